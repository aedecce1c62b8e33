//! Spicepod YAML to checked plain data: text enters, [`Spicepod`] or every problem of it leaves.
//!
//! Reads files, holds no live object, knows no tokio, tonic or arrow. Secrets stay templates here.

mod diagnostic;
mod types;

use std::path::Path;

pub use diagnostic::{Diagnostic, Diagnostics, SourceFile, Span};
pub use types::{
    ByteSize, Connector, Dataset, Duration, LogLevel, Origin, Param, Runtime, SecretStore, Spicepod,
    Template, View,
};

/// Loads and checks the spicepod at `path`: a YAML file, or a directory that holds `spicepod.yaml` or
/// `spicepod.yml`.
///
/// # Errors
/// Every problem of the file at once.
pub fn load(_path: &Path) -> Result<Spicepod, Diagnostics> {
    todo!()
}
