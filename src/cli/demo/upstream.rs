//! `sidewing demo-upstream`: TPC-H data and a table that grows behind TLS and an API key, a Flight server to try a
//! sidecar on.
//!
//! The certificates and the key are made on the spot and written to a directory: `ca.pem` and
//! `core.env` (`CORE_API_KEY=…`), which is all that a sidecar needs to know. A later start on the same
//! directory keeps both, the CA by its private key in `ca.key`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use crate::config;
use crate::query::{Answer, DatasetState, DatasetStatus, Publication, QueryError, Request, SubscribeError};
use crate::secrets::Secret;
use crate::serve::flight::FlightOptions;
use crate::serve::{self, Door};
use crate::serve::{Access, ApiKey};
use crate::task::Scope;
use crate::telemetry::{self, Verbosity};

use super::super::fail;
use super::super::signals::StopSignals;
use super::live::{self, Live};
use super::{Failure, tpch};

/// The file with the CA certificate, for `spiceai_tls_ca_certificate_file`.
pub(super) const CA_FILE: &str = "ca.pem";
/// The CA's private key, kept for the next start.
const CA_KEY_FILE: &str = "ca.key";
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
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = config::parse_bind_address)]
    flight: SocketAddr,
    /// TPC-H scale factor: 1 is 6 million line items.
    #[arg(long, default_value_t = tpch::SCALE_DEFAULT, value_parser = tpch::parse_scale)]
    scale: f64,
    /// A further name or address for the certificate, beside localhost.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// End when standard input ends: for a parent that may die without a word.
    #[arg(long)]
    while_stdin_open: bool,
}

pub(crate) async fn run(args: UpstreamArgs) -> ExitCode {
    telemetry::init_log(Verbosity::Quiet);
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("the demo upstream cannot start: {error}")),
    }
}

async fn serve(args: UpstreamArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let listener = TcpListener::bind(args.flight).await?;
    let address = listener.local_addr()?;
    let live = Arc::new(Live::try_new(&args.dir)?);
    let door = DemoDoor::try_new(args.scale, Arc::clone(&live))?;
    let tls = certificates(&args.dir, &args.names)?;
    let key = make_key(&args.dir)?;
    let scope = Scope::new();
    let options = FlightOptions { tls: Some(tls.into()), access: Access::new(vec![ApiKey::reading(key)]) };
    scope.spawn("readings", async move {
        if let Err(error) = live.grow().await {
            tracing::warn!(%error, "the table grows no more");
        }
    });
    let serving = scope.clone();
    scope.spawn_draining("flight", async move {
        serve::flight::serve(listener, door, options, &serving).await;
    });
    say!("  flight   https://localhost:{}", address.port());
    tokio::select! {
        () = signals.next() => {}
        () = stdin_end(), if args.while_stdin_open => {}
    }
    scope
        .shutdown(std::time::Duration::from_secs(5))
        .await
        .map_err(|pending| format!("tasks did not end: {}", pending.join(", ")).into())
}

/// Resolves when nobody holds the other end of standard input any more.
async fn stdin_end() {
    // An error is an end as well.
    let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = tokio::task::spawn_blocking(read).await;
}

/// A CA made on the spot signs a server certificate for localhost and `names`; the CA goes to a file.
fn certificates(dir: &Path, names: &[String]) -> Result<rustls::ServerConfig, Failure> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "sidewing demo CA");
    let authority = CertifiedIssuer::self_signed(authority, authority_key(dir)?)?;
    // A kept key under the same name: the certificate that a client read before a restart stays good.
    std::fs::write(dir.join(CA_FILE), authority.pem())?;

    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    hosts.extend(names.iter().cloned());
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(hosts)?.signed_by(&key, &authority)?;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}

/// The CA's private key: that of an earlier start, if it is there and good, else a new one.
fn authority_key(dir: &Path) -> Result<KeyPair, Failure> {
    let path = dir.join(CA_KEY_FILE);
    let kept = std::fs::read_to_string(&path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let made = KeyPair::generate()?;
    write_private(&path, &made.serialize_pem())?;
    Ok(made)
}

/// The API key: that of an earlier start, if there is one, so that clients live through a restart; else
/// a random one.
fn make_key(dir: &Path) -> Result<Secret, Failure> {
    let path = dir.join(KEY_FILE);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let kept = kept.lines().find_map(|line| line.strip_prefix(KEY_NAME)?.strip_prefix('='));
    if let Some(key) = kept.map(str::trim).filter(|key| !key.is_empty()) {
        return Ok(Secret::new(key.to_owned()));
    }
    let key = format!("demo-{}", uuid::Uuid::new_v4().simple());
    write_private(&path, &format!("{KEY_NAME}={key}\n"))?;
    Ok(Secret::new(key))
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // The mode above is for new files only.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Answers SQL over the TPC-H tables and the one that grows, held in memory.
#[derive(Clone)]
struct DemoDoor {
    context: SessionContext,
    tables: Arc<Vec<(&'static str, SchemaRef)>>,
    live: Arc<Live>,
}

impl DemoDoor {
    fn try_new(scale: f64, live: Arc<Live>) -> Result<Self, Failure> {
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        let mut tables = Vec::new();
        for (name, schema, batches) in tpch::tables(scale)? {
            let table = MemTable::try_new(Arc::clone(&schema), vec![batches])?;
            context.register_table(name, Arc::new(table))?;
            tables.push((name, schema));
        }
        context.register_table(live::NAME, Arc::clone(live.table()) as Arc<dyn TableProvider>)?;
        tables.push((live::NAME, Arc::clone(live.schema())));
        Ok(Self { context, tables: Arc::new(tables), live })
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

impl Door for DemoDoor {
    async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        let stream = self.frame(&request.sql).await?.execute_stream().await.map_err(refused)?;
        let schema = stream.schema();
        Ok(Answer::new(schema, stream.map_err(refused).boxed()))
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

    /// The other tables never change: there is nothing to follow.
    fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        let name = path.join(".");
        if name == live::NAME {
            return Ok(Arc::clone(self.live.publication()));
        }
        let known =
            self.tables.iter().find(|(table, _)| *table == name).and_then(|(table, _)| table.parse().ok());
        Err(match known {
            Some(dataset) => SubscribeError::NotKept { dataset, endpoint: None },
            None => SubscribeError::Unknown(name),
        })
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        let status = |(table, _): &(&'static str, SchemaRef)| {
            let name = table.parse().ok()?;
            let state = DatasetState::Ready;
            let from = "memory".to_owned();
            Some(DatasetStatus { name, from, endpoint: None, state, is_view: false, acceleration: None })
        };
        self.tables.iter().filter_map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_restart_keeps_both_keys() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (authority, key) = (authority_key(dir).unwrap(), make_key(dir).unwrap());
        assert_eq!(authority_key(dir).unwrap().serialize_der(), authority.serialize_der());
        assert_eq!(make_key(dir).unwrap().expose(), key.expose());
        for file in [CA_KEY_FILE, KEY_FILE] {
            let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        std::fs::write(dir.join(CA_KEY_FILE), "no key").unwrap();
        assert_ne!(authority_key(dir).unwrap().serialize_der(), authority.serialize_der());
    }
}
