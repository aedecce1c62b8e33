//! Spicepod YAML to checked plain data: text enters, [`Spicepod`] or every problem of it leaves.
//!
//! Reads files, holds no live object, knows no tokio, tonic or arrow. Secrets stay templates here.

mod acceleration;
mod api_keys;
mod bind;
mod bytesize;
mod check;
mod cron;
mod dataset_params;
mod decode;
mod diagnostic;
mod duration;
mod excerpt;
mod fields;
pub(crate) mod file;
mod json_schema;
mod origin;
mod params;
mod references;
mod results_cache;
mod schema;
mod secret_stores;
mod telemetry;
mod template;
mod text;
mod tls;
mod types;
mod view_sql;
mod web;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use acceleration::{
    Acceleration, Access, AppendStream, Conflict, FileMode, IndexOf, Mode, OnConflict, OnStartup, ReadyState,
    Refresh, RefreshMode, Retention, Retry, Schedule, SchemaChange, StreamRetention, TimeColumn, TimeFormat,
    ZeroResults,
};
pub use api_keys::{ApiKey, KeyFault, KeyRights};
pub use bind::{BindAddress, BindError, parse_bind_address};
pub use bytesize::{ByteSize, ByteSizeError};
pub use cron::{CronError, parse_cron};
pub use diagnostic::{Diagnostic, Diagnostics, SourceFile, Span, Warnings};
pub use duration::{Duration, DurationError};
pub use json_schema::json_schema;
pub use params::{ParamForm, ParamSpec, connector_params};
pub use telemetry::{LogFormat, OtelExporter, OtelHeader, OtelProtocol, TaskHistory, Telemetry};
pub use template::{Template, TemplateError, TemplateFault, TemplatePart};
pub use tls::{ClientAuth, Pem, PemSource, Tls};
pub use types::{
    CacheKeyType, Connector, Dataset, Eviction, LogLevel, Origin, Param, QueryMemory, ResultsCache, Runtime,
    SecretStore, Spicepod, SpillCompression, StoreKind, TempDirectory, View,
};
pub use web::{Cors, Mcp};

/// Bytes of a spicepod; a large one has a few ten thousand.
const SPICEPOD_BYTES_MAX: u64 = 4 << 20;

/// The names under which a directory holds its spicepod.
const FILE_NAMES: &[&str] = &["spicepod.yaml", "spicepod.yml"];

/// Loads and checks the spicepod at `path`: a YAML file, or a directory that holds `spicepod.yaml` or
/// `spicepod.yml`.
///
/// # Errors
/// Every problem of the file at once.
pub fn load(path: &Path) -> Result<Spicepod, Diagnostics> {
    let path = find(path)?;
    match file::read(&path, SPICEPOD_BYTES_MAX) {
        Ok(text) => parse(SourceFile { path, text }),
        Err(file::ReadError::Io(error)) => Err(Diagnostics::unreadable(&path, &error)),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            Err(Diagnostics::without_source(vec![Diagnostic::new("UnreadableSpicepod", message)]))
        }
    }
}

/// Checks the text of a spicepod; files that it names are looked for beside `source.path`.
///
/// # Errors
/// Every problem of the text at once.
pub fn parse(source: SourceFile) -> Result<Spicepod, Diagnostics> {
    let source = Arc::new(source);
    let mut problems = Vec::new();
    let root = yaml::read(&source.text, &mut problems);
    let Some(root) = root.filter(|root| !root.is_null()) else {
        if problems.is_empty() {
            problems.push(Diagnostic::new("EmptySpicepod", "the spicepod is empty").help(EXAMPLE));
        }
        return Err(Diagnostics::new(source, problems));
    };
    check::check(&root, fields::SPICEPOD, &mut problems);
    let spicepod = decode::decode(&root, Arc::clone(&source), &mut problems);
    match problems.is_empty() {
        true => Ok(spicepod),
        false => Err(Diagnostics::new(source, problems)),
    }
}

const EXAMPLE: &str = "begin with `version: v1`, `kind: Spicepod`, `name: my-app` and a list of `datasets`; \
                       config/ holds commented examples";

/// The file that `path` means.
fn find(path: &Path) -> Result<PathBuf, Diagnostics> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let problem =
            Diagnostic::new("SpicepodNotFound", format!("no spicepod at {}: {error}", path.display()));
        Diagnostics::without_source(vec![
            problem.help("name a YAML file, or a directory with `spicepod.yaml`"),
        ])
    })?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let found = FILE_NAMES.iter().map(|name| path.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let names = text::list(FILE_NAMES.iter().copied());
        let message = format!("no spicepod in {}: looked for {names}", path.display());
        Diagnostics::without_source(vec![Diagnostic::new("SpicepodNotFound", message).help(EXAMPLE)])
    })
}

#[cfg(test)]
mod tests;
