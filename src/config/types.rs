//! The checked spicepod: what the rest of the program may rely on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::name::DatasetName;

use super::{
    Acceleration, Access, ApiKey, BindAddress, ByteSize, Cors, Diagnostic, Diagnostics, Duration, LogFormat,
    Mcp, ReadyState, SchemaChange, SourceFile, Span, TaskHistory, Telemetry, Template, TimeColumn, Tls,
    Warnings,
};

/// A whole spicepod, checked.
#[derive(Debug)]
pub struct Spicepod {
    pub source: Arc<SourceFile>,
    pub name: String,
    /// `version:` as written.
    pub version: String,
    pub runtime: Runtime,
    /// Stores in the order in which they are searched: the last one written is first.
    pub secrets: Vec<SecretStore>,
    pub datasets: Vec<Dataset>,
    pub views: Vec<View>,
    /// What works and is better done otherwise, e.g. an API key in clear.
    pub warnings: Vec<Diagnostic>,
}

impl Spicepod {
    /// The advice that the spicepod earned, as a person reads it; empty where there is none.
    #[must_use]
    pub fn shown_warnings(&self) -> String {
        match self.warnings.is_empty() {
            true => String::new(),
            false => {
                let advice = Diagnostics::new(Arc::clone(&self.source), self.warnings.clone());
                format!("{}\n", Warnings(advice))
            }
        }
    }
}

/// The process-wide settings; `None` means that the default, or the command line, decides.
#[derive(Debug, Default)]
pub struct Runtime {
    pub http_bind: Option<BindAddress>,
    pub flight_bind: Option<BindAddress>,
    pub metrics_bind: Option<SocketAddr>,
    /// `runtime.auth.api-key`: without any, everybody may ask.
    pub api_keys: Vec<ApiKey>,
    /// `runtime.tls`: of the HTTP and Flight listeners.
    pub tls: Option<Tls>,
    /// `runtime.metrics.tls`.
    pub metrics_tls: Option<Tls>,
    pub cors: Cors,
    pub mcp: Mcp,
    /// `runtime.flight.max_message_size`: inbound gRPC messages.
    pub max_message_size: Option<ByteSize>,
    /// `runtime.query.timeout`.
    pub query_timeout: Option<Duration>,
    /// `runtime.query.target_partitions`.
    pub target_partitions: Option<usize>,
    pub memory: QueryMemory,
    /// `runtime.query.max_concurrent_queries`; zero is no bound.
    pub max_concurrent_queries: Option<usize>,
    /// `runtime.params.query_queue_max`: how many queries may wait.
    pub query_queue_max: Option<usize>,
    /// `runtime.params.query_queue_timeout`: how long each may wait.
    pub query_queue_timeout: Option<Duration>,
    /// `runtime.params.query_client_timeout`: how long a client may take nothing of an answer.
    pub query_client_timeout: Option<Duration>,
    /// `runtime.params.upstream_max_concurrent_requests`: calls to one endpoint; zero is no bound.
    pub upstream_max_concurrent: Option<usize>,
    /// `runtime.params.upstream_establishment_timeout`: how long a call that runs nothing may be without an answer.
    pub upstream_establishment_timeout: Option<Duration>,
    /// `runtime.params.upstream_name_server`: asked instead of those of the system.
    pub upstream_name_server: Option<SocketAddr>,
    /// `runtime.params.push_down`.
    pub push_down: Option<bool>,
    /// `runtime.params.data_dir`: where datasets in files have their folders, relative to the spicepod's folder.
    pub data_dir: Option<PathBuf>,
    pub results_cache: ResultsCache,
    /// `runtime.dataset_load_parallelism`: how many datasets are verified at a time.
    pub dataset_load_parallelism: Option<usize>,
    pub shutdown_timeout: Option<Duration>,
    /// `runtime.output_level`; `RUST_LOG` wins.
    pub output_level: Option<LogLevel>,
    /// `runtime.params.log_format`; `SIDEWING_LOG_FORMAT` wins.
    pub log_format: Option<LogFormat>,
    pub task_history: TaskHistory,
    pub telemetry: Telemetry,
}

impl Runtime {
    /// Whether nobody of another machine asks SQL without a key, or a certificate.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        !self.api_keys.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.client_auth.is_required())
    }
}

/// `runtime.caching.sql_results`, or `runtime.results_cache`, its older form.
#[derive(Debug, Default, Clone)]
pub struct ResultsCache {
    /// When absent, only results of accelerated data are cached.
    pub enabled: Option<bool>,
    pub max_size: Option<ByteSize>,
    pub item_ttl: Option<Duration>,
    pub eviction: Option<Eviction>,
    pub key: Option<CacheKeyType>,
    /// `stale_while_revalidate_ttl`.
    pub stale_ttl: Option<Duration>,
}

/// Which result goes first when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The one that was not used for longest.
    Lru,
    /// The one that is used least.
    TinyLfu,
}

/// What makes two statements the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKeyType {
    Plan,
    Sql,
}

/// Memory and temporary files of queries.
#[derive(Debug, Default, Clone)]
pub struct QueryMemory {
    /// `runtime.query.memory_limit`: of all queries and accelerated data together.
    pub limit: Option<ByteSize>,
    pub temp_directory: Option<TempDirectory>,
    pub spill_compression: Option<SpillCompression>,
}

/// `runtime.query.temp_directory`.
#[derive(Debug, Clone)]
pub struct TempDirectory {
    pub path: PathBuf,
    pub at: Span,
}

/// `runtime.query.spill_compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpillCompression {
    Zstd,
    Lz4Frame,
    Uncompressed,
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
    pub kind: StoreKind,
    /// What follows the colon of `from`: a directory, a secret, a path, a vault; nothing for `env`.
    pub object: String,
    /// By name, as written; they refer to stores of this machine only.
    pub params: BTreeMap<String, Param>,
    /// How often it is read again; its kind's own default where it is not said.
    pub refresh_interval: Option<Duration>,
    pub at: Span,
}

/// Where a store has its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The environment and dotenv files.
    Env,
    /// A directory with a file for each secret.
    Files,
    /// One secret of the Kubernetes API.
    Kubernetes,
    /// One path of HashiCorp Vault.
    Vault,
    /// One secret of AWS Secrets Manager, a JSON object.
    Aws,
    /// The secrets of an Azure Key Vault.
    Azure,
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
    /// `read_write` only where the dataset is accelerated, never refreshed, and not begun anew by each start.
    pub access: Access,
    pub time_column: Option<TimeColumn>,
    /// How the dataset is kept here; `None` when it is read from its upstream only.
    pub acceleration: Option<Acceleration>,
    /// Of an accelerated dataset.
    pub ready_state: ReadyState,
    /// Of an accelerated dataset.
    pub on_schema_change: SchemaChange,
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

impl Connector {
    /// As spicepods name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpiceAi => "spice.ai",
            Self::FlightSql => "flightsql",
        }
    }

    /// What users write before the canonical name of a param.
    #[must_use]
    pub fn param_prefix(self) -> &'static str {
        match self {
            Self::SpiceAi => "spiceai_",
            Self::FlightSql => "flightsql_",
        }
    }
}

/// One connector param.
#[derive(Debug, Clone)]
pub struct Param {
    /// As written, prefix included: what messages name.
    pub key: String,
    pub value: Template,
    pub at: Span,
}

/// A SQL view over datasets and other views.
#[derive(Debug, Clone)]
pub struct View {
    pub name: DatasetName,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// One SELECT statement (`sql`, or the content of the file `sql_ref`).
    pub sql: String,
    /// Where it stands, where that is not the spicepod.
    pub file: Option<PathBuf>,
    pub at: Span,
}
