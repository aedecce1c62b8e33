//! What others call: SQL enters, schemas, plans and batches leave; retries and new tokens happen in here.

use std::future::Future;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightInfo;
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::time::Instant;

use super::call::Call;
use super::channel::Channel;
use super::error::{ErrorKind, Step, UpstreamError};
use super::flightsql;
use super::identity::UpstreamId;
use super::reader::{self, RemoteStream};
use super::retry::Attempts;
use super::session::Session;
use super::table::RemoteTableName;
use super::target::{Credentials, Flavor};
use crate::telemetry::Context;

/// One dataset's view of a shared channel: same socket and credentials, its own message size limit.
pub struct Upstream {
    channel: Arc<Channel>,
    /// The largest message that is read, in bytes.
    limit: u64,
}

/// What an upstream promises of one statement.
#[derive(Debug, Clone)]
pub struct Planned {
    pub schema: SchemaRef,
    /// From FlightInfo; `None` where the upstream does not know (negative, or 0 on a server that never counts).
    pub total_records: Option<u64>,
    pub total_bytes: Option<u64>,
}

impl Upstream {
    pub(super) fn new(channel: Arc<Channel>, limit: u64) -> Self {
        Self { channel, limit }
    }

    /// What makes two datasets answerable by one statement.
    #[must_use]
    pub fn id(&self) -> &UpstreamId {
        &self.channel.id
    }

    /// `https://host:port`, for messages.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.channel.endpoint().to_string()
    }

    /// The largest gRPC message that this dataset takes, in bytes.
    #[must_use]
    pub fn max_message_size(&self) -> u64 {
        self.limit
    }

    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.channel.id.flavor
    }

    /// DNS, TCP, TLS and the handshake, one after the other, on a connection of its own;
    /// `seen` hears each step that succeeded, with a detail for people.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn verify(&self, mut seen: impl FnMut(Step, String) + Send) -> Result<(), UpstreamError> {
        let apart = Arc::new(self.channel.apart());
        apart.connect(&mut seen).await?;
        let greeting = match apart.id.credentials {
            Credentials::Anonymous => "anonymous, no key set",
            Credentials::Basic { .. } => apart.greeting().await?.value.detail,
        };
        seen(Step::Handshake, greeting.to_owned());
        Ok(())
    }

    /// The schema of a remote table: GetSchema for `spice.ai`, CommandGetTables for `flightsql`, with
    /// `sql` (`SELECT * FROM t`) through GetFlightInfo where the server does not answer that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a table that is not there, otherwise what the call met.
    pub async fn table_schema(&self, table: &RemoteTableName, sql: &str) -> Result<SchemaRef, UpstreamError> {
        let direct = match self.flavor() {
            Flavor::Spice => self.schema_of_statement(sql).await.map(Some),
            Flavor::FlightSql { .. } => self.schema_in_catalog(table).await,
        };
        let answer = match direct {
            Ok(Some(schema)) => Ok(schema),
            Ok(None) => self.planned(sql, Step::Schema).await.map(|planned| planned.schema),
            Err(error) if has_other_way(&error) => {
                self.planned(sql, Step::Schema).await.map(|planned| planned.schema)
            }
            Err(error) => Err(error),
        };
        answer.map_err(|error| missing_table(error, table))
    }

    /// GetFlightInfo of `sql`, retried.
    ///
    /// # Errors
    /// What the last attempt met.
    pub async fn plan(&self, sql: &str) -> Result<Planned, UpstreamError> {
        self.planned(sql, Step::Query).await
    }

    /// GetFlightInfo and DoGet of every endpoint of `sql`, retried until the first batch is here.
    ///
    /// # Errors
    /// What the last attempt met; after the first batch errors are items of the stream.
    pub async fn query(&self, sql: &str) -> Result<RemoteStream, UpstreamError> {
        self.read(self.command(sql), Step::Query, sql).await
    }

    /// `shown` is what is asked for, for people.
    async fn read(&self, command: Bytes, step: Step, shown: &str) -> Result<RemoteStream, UpstreamError> {
        let call = Call::begin("DoGet", &self.endpoint(), shown);
        let stream = self
            .retrying(&call, step, |session| {
                let command = command.clone();
                async move {
                    let info = session.flight_info(command).await?;
                    reader::open(session, info).await
                }
            })
            .await?;
        Ok(call.follow(stream))
    }

    async fn planned(&self, sql: &str, step: Step) -> Result<Planned, UpstreamError> {
        let (command, call) = (self.command(sql), Call::begin("GetFlightInfo", &self.endpoint(), sql));
        self.retrying(&call, step, |session| {
            let command = command.clone();
            async move {
                let info = session.flight_info(command.clone()).await?;
                let schema = match reader::promised(&session, &info)? {
                    Some(schema) => schema,
                    None => statement_schema(&session, command).await?,
                };
                Ok(planned(schema, &info))
            }
        })
        .await
    }

    async fn schema_of_statement(&self, sql: &str) -> Result<SchemaRef, UpstreamError> {
        let (command, call) = (self.command(sql), Call::begin("GetSchema", &self.endpoint(), sql));
        self.retrying(&call, Step::Schema, |session| {
            let command = command.clone();
            async move { statement_schema(&session, command).await.map(Arc::new) }
        })
        .await
    }

    async fn schema_in_catalog(&self, table: &RemoteTableName) -> Result<Option<SchemaRef>, UpstreamError> {
        let tables = self.read(flightsql::get_tables(table), Step::Schema, "CommandGetTables").await?;
        let batches: Vec<_> = tables.batches.try_collect().await?;
        Ok(flightsql::find_schema(&batches, table))
    }

    fn command(&self, sql: &str) -> Bytes {
        match self.flavor() {
            Flavor::Spice => Bytes::copy_from_slice(sql.as_bytes()),
            Flavor::FlightSql { .. } => flightsql::statement(sql),
        }
    }

    /// Runs attempts until one succeeds or the policy says no.
    async fn retrying<T, F, Fut>(&self, call: &Call, step: Step, run: F) -> Result<T, UpstreamError>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let done = Context::scope_in(call.context(), self.attempts(call, step, run)).await;
        done.inspect_err(|error| call.failed(error))
    }

    async fn attempts<T, F, Fut>(&self, call: &Call, step: Step, run: F) -> Result<T, UpstreamError>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let method = call.method;
        self.count("upstream_requests", method);
        self.channel.with_budget(|budget| budget.deposit(Instant::now()));
        let mut attempts = Attempts::start(Instant::now());
        loop {
            let error = match self.attempt(step, &run).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let jitter = rand::random::<f64>();
            let wait =
                self.channel.with_budget(|budget| attempts.next(&error, budget, Instant::now(), jitter));
            let Some(wait) = wait else {
                self.count("upstream_errors", method);
                return Err(error);
            };
            self.count("upstream_retries", method);
            call.retried(attempts.made());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(%error, method, attempt = attempts.made(), wait_ms, "upstream call retried");
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, made again with a new token when the upstream has forgotten the old one, and on a
    /// quieter connection when it took our pings for an attack: then it was we who cut the call.
    pub(super) async fn attempt<T, F, Fut>(&self, step: Step, run: &F) -> Result<T, UpstreamError>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let session = Session::open(&self.channel, self.limit, step).await?;
        match run(session.clone()).await {
            Err(_) if session.renew_token() => {}
            Err(error) if is_ping_complaint(&error) => {
                tracing::debug!(%error, "upstream complains about pings, sending fewer");
                self.channel.calm_down();
            }
            outcome => return outcome,
        }
        run(Session::open(&self.channel, self.limit, step).await?).await
    }

    pub(super) fn count(&self, name: &'static str, method: &'static str) {
        metrics::counter!(name, "endpoint" => self.endpoint(), "method" => method).increment(1);
    }
}

/// What gRPC's C++ core says when it ends a connection for its pings.
pub(super) fn is_ping_complaint(error: &UpstreamError) -> bool {
    let words = error.message.to_lowercase();
    error.kind == ErrorKind::Unavailable
        && (words.contains("too many pings") || words.contains("too_many_pings"))
}

async fn statement_schema(session: &Session, command: Bytes) -> Result<Schema, UpstreamError> {
    let result = session.schema(command).await?;
    Schema::try_from(&result).map_err(|error| {
        session.protocol(ErrorKind::Protocol, format!("the schema in GetSchema cannot be read: {error}"))
    })
}

fn planned(schema: Schema, info: &FlightInfo) -> Planned {
    Planned {
        schema: Arc::new(schema),
        total_records: reader::known_total(info.total_records),
        total_bytes: reader::known_total(info.total_bytes),
    }
}

/// Whether GetFlightInfo may succeed where GetSchema or CommandGetTables did not.
fn has_other_way(error: &UpstreamError) -> bool {
    matches!(
        error.kind,
        ErrorKind::Unimplemented | ErrorKind::Planning | ErrorKind::Protocol | ErrorKind::Refused
    )
}

/// Planning errors that mean a missing table, said as such.
fn missing_table(error: UpstreamError, table: &RemoteTableName) -> UpstreamError {
    const PHRASES: [&str; 4] = ["not found", "does not exist", "doesn't exist", "no such table"];
    let words = error.message.to_lowercase();
    let is_missing = match error.kind {
        ErrorKind::NotFound => true,
        ErrorKind::Refused | ErrorKind::Planning => PHRASES.iter().any(|phrase| words.contains(phrase)),
        _ => false,
    };
    if !is_missing {
        return error;
    }
    let name = table.parts.join(".");
    let help = format!("check that the upstream has the table `{name}` and that this key may read it");
    UpstreamError { kind: ErrorKind::NotFound, help: Some(help), ..error }
}
