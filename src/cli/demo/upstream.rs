//! `sidewing demo-upstream`: TPC-H data behind TLS and an API key, a Flight server to try a sidecar on.
//!
//! The certificates and the key are made on the spot and written to a directory: `ca.pem` and
//! `core.env` (`CORE_API_KEY=…`), which is all that a sidecar needs to know.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use crate::name::QueryId;
use crate::query::{Answer, DatasetState, DatasetStatus, QueryError, Request};
use crate::secrets::Secret;
use crate::serve::flight::FlightOptions;
use crate::serve::{self, Door};
use crate::task::Scope;
use crate::telemetry::{self, Verbosity};

use super::super::fail;
use super::super::run::stop_signal;
use super::tpch;

/// The file with the CA certificate, for `spiceai_tls_ca_certificate_file`.
pub(super) const CA_FILE: &str = "ca.pem";
/// The dotenv file with the API key.
pub(super) const KEY_FILE: &str = "core.env";
/// What the key is called in it.
pub(super) const KEY_NAME: &str = "CORE_API_KEY";

#[derive(Debug, clap::Args)]
pub(crate) struct UpstreamArgs {
    /// Where `ca.pem` and `core.env` are written.
    #[arg(long)]
    dir: PathBuf,
    /// Where to answer Flight over TLS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    flight: SocketAddr,
    /// TPC-H scale factor: 1 is 6 million line items.
    #[arg(long, default_value_t = tpch::SCALE_DEFAULT)]
    scale: f64,
    /// A further name or address for the certificate, beside localhost.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

pub(crate) async fn run(args: UpstreamArgs) -> ExitCode {
    telemetry::init_log(Verbosity::Quiet);
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the demo upstream cannot start: {error}")),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve(args: UpstreamArgs) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.flight).await?;
    let address = listener.local_addr()?;
    let door = TpchDoor::try_new(args.scale)?;
    let tls = certificates(&args.dir, &args.names)?;
    let key = make_key(&args.dir)?;
    let scope = Scope::new();
    let options = FlightOptions { tls: Some(Arc::new(tls)), api_keys: vec![key] };
    let serving = scope.clone();
    scope.spawn_draining("flight", async move {
        serve::flight::serve(listener, door, options, &serving).await;
    });
    println!("  flight   https://localhost:{}", address.port());
    stop_signal().await;
    scope
        .shutdown(std::time::Duration::from_secs(5))
        .await
        .map_err(|pending| format!("tasks did not end: {}", pending.join(", ")).into())
}

/// A CA made on the spot signs a server certificate for localhost and `names`; the CA goes to a file.
fn certificates(dir: &Path, names: &[String]) -> Result<rustls::ServerConfig, Failure> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "sidewing demo CA");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    std::fs::write(dir.join(CA_FILE), authority.pem())?;

    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    hosts.extend(names.iter().cloned());
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(hosts)?.signed_by(&key, &authority)?;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A random key, in a file that only its owner reads.
fn make_key(dir: &Path) -> Result<Secret, Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let key = format!("demo-{}", uuid::Uuid::new_v4().simple());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(KEY_FILE))?;
    writeln!(file, "{KEY_NAME}={key}")?;
    Ok(Secret::new(key))
}

/// Answers SQL over the TPC-H tables, held in memory.
#[derive(Clone)]
struct TpchDoor {
    context: SessionContext,
    tables: Arc<Vec<(&'static str, SchemaRef)>>,
}

impl TpchDoor {
    fn try_new(scale: f64) -> Result<Self, Failure> {
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        let mut tables = Vec::new();
        for (name, schema, batches) in tpch::tables(scale)? {
            let table = MemTable::try_new(Arc::clone(&schema), vec![batches])?;
            context.register_table(name, Arc::new(table))?;
            tables.push((name, schema));
        }
        Ok(Self { context, tables: Arc::new(tables) })
    }

    async fn frame(&self, sql: &str) -> Result<datafusion::dataframe::DataFrame, QueryError> {
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        self.context.sql_with_options(sql, reading).await.map_err(refused)
    }
}

fn refused(error: DataFusionError) -> QueryError {
    QueryError::Invalid { message: error.strip_backtrace() }
}

impl Door for TpchDoor {
    async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        let stream = self.frame(&request.sql).await?.execute_stream().await.map_err(refused)?;
        let schema = stream.schema();
        Ok(Answer { id: QueryId::random(), schema, batches: stream.map_err(refused).boxed() })
    }

    async fn schema(&self, request: Request) -> Result<SchemaRef, QueryError> {
        let plan = self.frame(&request.sql).await?.create_physical_plan().await.map_err(refused)?;
        Ok(plan.schema())
    }

    async fn table_schema(&self, path: &[String]) -> Result<SchemaRef, QueryError> {
        let name = path.last().map(String::as_str).unwrap_or_default();
        let found = self.tables.iter().find(|(table, _)| *table == name);
        found
            .map(|(_, schema)| Arc::clone(schema))
            .ok_or_else(|| QueryError::NotFound { message: format!("table `{name}` not found") })
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        let status = |(table, _): &(&'static str, SchemaRef)| {
            let name = table.parse().ok()?;
            let state = DatasetState::Ready;
            Some(DatasetStatus { name, from: "memory".to_owned(), endpoint: None, state, is_view: false })
        };
        self.tables.iter().filter_map(status).collect()
    }
}
