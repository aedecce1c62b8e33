//! The checked spicepod: what the rest of the program may rely on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::name::DatasetName;

use super::{SourceFile, Span};

/// A duration as spicepods write it; see its `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub(super) std::time::Duration);

/// A number of bytes as spicepods write it; see its `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub(super) u64);

impl ByteSize {
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(format!("`{text}` is not a size")),
        };
        let number: u64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a size"))?;
        number.checked_mul(unit).map(Self).ok_or_else(|| format!("`{text}` is too large"))
    }
}

/// A whole spicepod, checked.
#[derive(Debug)]
pub struct Spicepod {
    pub source: Arc<SourceFile>,
    pub name: String,
    pub runtime: Runtime,
    /// Stores in the order in which they are searched: the last one written is first.
    pub secrets: Vec<SecretStore>,
    pub datasets: Vec<Dataset>,
    pub views: Vec<View>,
}

/// The process-wide settings; `None` means that the default, or the command line, decides.
#[derive(Debug, Default)]
pub struct Runtime {
    pub http_bind: Option<SocketAddr>,
    pub flight_bind: Option<SocketAddr>,
    pub metrics_bind: Option<SocketAddr>,
    /// `runtime.flight.max_message_size`: inbound gRPC messages.
    pub max_message_size: Option<ByteSize>,
    /// `runtime.query.timeout`.
    pub query_timeout: Option<Duration>,
    /// `runtime.query.target_partitions`.
    pub target_partitions: Option<usize>,
    /// `runtime.dataset_load_parallelism`: how many datasets are verified at a time.
    pub dataset_load_parallelism: Option<usize>,
    pub shutdown_timeout: Option<Duration>,
    /// `runtime.output_level`; `RUST_LOG` wins.
    pub output_level: Option<LogLevel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Info,
    Verbose,
    VeryVerbose,
}

/// One secret store: `- from: env, name: env`.
#[derive(Debug, Clone)]
pub struct SecretStore {
    /// How `${name:KEY}` refers to it.
    pub name: String,
    /// `params.file_path`: a dotenv file instead of `.env.local` and `.env` beside the process.
    pub file_path: Option<String>,
    pub at: Span,
}

/// A dataset that lives on an upstream.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub name: DatasetName,
    pub from: Origin,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Connector params by canonical name: the connector's prefix removed (`api_key`, `endpoint`,
    /// `max_message_size`).
    pub params: BTreeMap<String, Param>,
    pub at: Span,
}

/// The `from:` of a dataset, split at its first `:` or `/` after the connector's name.
#[derive(Debug, Clone)]
pub struct Origin {
    pub connector: Connector,
    /// All that follows the connector's name and its separator: an endpoint URL, an
    /// `<org>/<app>/datasets/<table>` path, or a table reference.
    pub path: String,
    /// As written.
    pub text: String,
    pub at: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connector {
    /// `spice.ai` and `spiceai`.
    SpiceAi,
    /// `flightsql`.
    FlightSql,
}

/// One connector param.
#[derive(Debug, Clone)]
pub struct Param {
    /// As written, prefix included: what messages name.
    pub key: String,
    pub value: Template,
    pub at: Span,
}

/// Text with `${store:KEY}` references in it, checked for form, not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<TemplatePart>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(String),
    /// `${store:KEY}`; the store `secrets` means all of them.
    Reference {
        store: String,
        key: String,
    },
}

/// A SQL view over datasets and other views.
#[derive(Debug, Clone)]
pub struct View {
    pub name: DatasetName,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// One SELECT statement (`sql`, or the content of the file `sql_ref`).
    pub sql: String,
    pub at: Span,
}
