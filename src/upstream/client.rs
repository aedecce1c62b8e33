//! What others call: SQL enters, schemas, plans and batches leave; retries and new tokens happen in here.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::{FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::time::Instant;

use super::breaker::CircuitState;
use super::call::Call;
use super::channel::{Calls, Channel};
use super::error::{ErrorKind, Step, UpstreamError};
use super::flightsql;
use super::identity::UpstreamId;
use super::node::Seat;
use super::reader::{self, Asked, Passage, RemoteStream};
use super::retry::{Attempts, Budget};
use super::roster::AddressHealth;
use super::session::Session;
use super::table::RemoteTableName;
use super::target::{Credentials, Flavor};
use crate::telemetry::Context;

/// One dataset's view of shared channels: same sockets and credentials, its own message size limit.
pub struct Upstream {
    id: UpstreamId,
    /// One an endpoint, in the order in which they are asked; at least one.
    channels: Vec<Arc<Channel>>,
    /// What they are called in messages.
    shown: String,
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

/// How one endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// `https://host:port`.
    pub endpoint: String,
    pub circuit: CircuitState,
    /// Since when nothing is sent there, probes apart; `None` while the circuit is closed.
    pub since: Option<SystemTime>,
    /// The last failure, while no success came after it. Without secrets.
    pub last_error: Option<String>,
    pub addresses: Vec<AddressHealth>,
    /// Calls under way, and open streams.
    pub in_flight: usize,
}

/// How an upstream is: its endpoints in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHealth {
    pub endpoints: Vec<EndpointHealth>,
}

impl Upstream {
    pub(super) fn new(id: UpstreamId, channels: Vec<Arc<Channel>>, limit: u64) -> Self {
        let endpoints: Vec<_> = channels.iter().map(|channel| channel.endpoint().to_string()).collect();
        Self { id, channels, shown: endpoints.join(", "), limit }
    }

    /// What makes two datasets answerable by one statement.
    #[must_use]
    pub fn id(&self) -> &UpstreamId {
        &self.id
    }

    /// `https://host:port`, for messages; several with commas between them.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.shown
    }

    /// How its endpoints are now. Asks nobody.
    #[must_use]
    pub fn health(&self) -> UpstreamHealth {
        let endpoints = self.channels.iter().map(|channel| {
            let (circuit, addresses) = (channel.health.circuit.shown(), channel.roster().shown());
            EndpointHealth {
                endpoint: channel.endpoint().to_string(),
                circuit: circuit.state,
                since: circuit.since,
                last_error: circuit.last_error,
                in_flight: addresses.iter().map(|address| address.in_flight).sum(),
                addresses,
            }
        });
        UpstreamHealth { endpoints: endpoints.collect() }
    }

    /// Shows its metrics, be they zero, from now on.
    pub fn announce(&self) {
        self.channels.iter().for_each(|channel| channel.announce());
    }

    /// The largest gRPC message that this dataset takes, in bytes.
    #[must_use]
    pub fn max_message_size(&self) -> u64 {
        self.limit
    }

    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.id.flavor
    }

    /// DNS, TCP, TLS and the handshake, one after the other, on a connection of its own, at the first endpoint where
    /// all of them succeed; `seen` hears each step that did, with a detail for people.
    ///
    /// # Errors
    /// The first step that failed, at the last endpoint.
    pub async fn verify(&self, mut seen: impl FnMut(Step, String) + Send) -> Result<(), UpstreamError> {
        let mut failed = None;
        for channel in &self.channels {
            match verify_at(channel, &mut seen).await {
                Ok(()) => {
                    if let Some(error) = failed {
                        let endpoint = channel.endpoint().to_string();
                        tracing::warn!(%error, instead = endpoint, "endpoint away, another one answers");
                    }
                    // Whoever was away answers again.
                    channel.health.circuit.invite();
                    return Ok(());
                }
                Err(error) => failed = Some(joined(failed, error)),
            }
        }
        Err(failed.unwrap_or_else(|| self.without_endpoint()))
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
        let reading = Reading { command: self.command(sql), promised: None, hands_on: false };
        self.read(reading, Step::Query, sql).await.map(Passage::into_batches)
    }

    /// The same for a client that may take messages as they are (`hands_on`). `promised` is the schema that was told of
    /// this statement before, if any: what comes in another layout is brought to it.
    ///
    /// # Errors
    /// As for [`Upstream::query`].
    pub async fn pass(
        &self,
        sql: &str,
        promised: Option<SchemaRef>,
        hands_on: bool,
    ) -> Result<Passage, UpstreamError> {
        let reading = Reading { command: self.command(sql), promised, hands_on };
        self.read(reading, Step::Query, sql).await
    }

    /// `shown` is what is asked for, for people.
    async fn read(&self, reading: Reading, step: Step, shown: &str) -> Result<Passage, UpstreamError> {
        let call = Call::begin("DoGet", self.endpoint(), shown);
        let passage = self.retrying(&call, step, |session| reading.clone().open(session)).await?;
        Ok(call.follow(passage))
    }

    async fn planned(&self, sql: &str, step: Step) -> Result<Planned, UpstreamError> {
        let (command, call) = (self.command(sql), Call::begin("GetFlightInfo", self.endpoint(), sql));
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
        let (command, call) = (self.command(sql), Call::begin("GetSchema", self.endpoint(), sql));
        self.retrying(&call, Step::Schema, |session| {
            let command = command.clone();
            async move { statement_schema(&session, command).await.map(Arc::new) }
        })
        .await
    }

    async fn schema_in_catalog(&self, table: &RemoteTableName) -> Result<Option<SchemaRef>, UpstreamError> {
        let reading = Reading { command: flightsql::get_tables(table), promised: None, hands_on: false };
        let tables = self.read(reading, Step::Schema, "CommandGetTables").await?;
        let batches: Vec<_> = tables.into_batches().batches.try_collect().await?;
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
        self.count(Calls::Requests, method);
        self.with_budget(|budget| budget.deposit(Instant::now()));
        let mut attempts = Attempts::start(Instant::now());
        let mut before = None;
        loop {
            let error = match self.attempt(step, &run).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let jitter = rand::random::<f64>();
            let wait = self.with_budget(|budget| attempts.next(&error, budget, Instant::now(), jitter));
            let Some(wait) = wait else {
                let error = match error.kind {
                    // What opened the circuit says more than that it is open.
                    ErrorKind::CircuitOpen => before.unwrap_or(error),
                    _ => error,
                };
                self.count_error(method, &error);
                return Err(error);
            };
            self.count(Calls::Retries, method);
            call.retried(attempts.made());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(%error, method, attempt = attempts.made(), wait_ms, "upstream call retried");
            before = Some(error);
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt: at the first endpoint that may be asked, and at the next one where it is away.
    pub(super) async fn attempt<T, F, Fut>(&self, step: Step, run: &F) -> Result<T, UpstreamError>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let mut failed = None;
        for (place, channel) in self.channels.iter().enumerate() {
            let has_next = place + 1 < self.channels.len();
            if has_next && channel.health.circuit.is_probe_due() && !channel.roster().is_connected() {
                // Nobody waits for a connection that another endpoint makes good.
                channel.roster().reconnect();
                continue;
            }
            match self.attempt_at(channel, step, run).await {
                Err(error) if error.is_absence() => failed = Some(joined(failed, error)),
                outcome => return outcome,
            }
        }
        Err(failed.unwrap_or_else(|| self.without_endpoint()))
    }

    /// The attempt at one endpoint, with leave of its circuit and within its limit.
    async fn attempt_at<T, F, Fut>(
        &self,
        channel: &Arc<Channel>,
        step: Step,
        run: &F,
    ) -> Result<T, UpstreamError>
    where
        F: Fn(Session) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, UpstreamError>> + Send,
    {
        channel.health.circuit.check()?;
        let _turn = channel.turn().await?;
        let pass = channel.health.circuit.admit()?;
        let mut address = None;
        let outcome = async {
            let seat = channel.seat().await?;
            address = Some(seat.node.address);
            let session = Session::at_seat(channel, seat, self.limit, step).await?;
            match run(session.clone()).await {
                Err(_) if session.renew_token() => {}
                Err(error) if is_ping_complaint(&error) => {
                    tracing::debug!(%error, "upstream complains about pings, sending fewer");
                    channel.calm_down();
                }
                outcome => return outcome,
            }
            // Once more: the upstream has forgotten the token, or it was we who cut the call.
            let seat = Seat::new(session.node(), channel.endpoint());
            run(Session::at_seat(channel, seat, self.limit, step).await?).await
        }
        .await;
        channel.health.settle(pass, address, outcome.as_ref().err());
        outcome
    }

    /// The retries of all endpoints come out of one budget.
    fn with_budget<T: Default>(&self, use_it: impl FnOnce(&mut Budget) -> T) -> T {
        self.channels.first().map_or_else(T::default, |channel| channel.with_budget(use_it))
    }

    /// Counts a call at the endpoint that is asked first now.
    pub(super) fn count(&self, calls: Calls, method: &'static str) {
        let asked = self.channels.iter().find(|channel| channel.health.circuit.check().is_ok());
        if let Some(channel) = asked.or(self.channels.last()) {
            channel.calls(calls, method).increment(1);
        }
    }

    /// Counts a failed call at the endpoint that failed.
    pub(super) fn count_error(&self, method: &'static str, error: &UpstreamError) {
        let failed = self.channels.iter().find(|channel| channel.endpoint().to_string() == error.endpoint);
        if let Some(channel) = failed.or(self.channels.last()) {
            channel.errors(method, &error.kind).increment(1);
        }
    }

    /// Cannot happen: a target has an endpoint.
    fn without_endpoint(&self) -> UpstreamError {
        UpstreamError::new(ErrorKind::Internal, Step::Dns, "none", "no endpoint could be asked")
    }
}

/// What is read of a statement, and how.
#[derive(Clone)]
struct Reading {
    command: Bytes,
    promised: Option<SchemaRef>,
    hands_on: bool,
}

impl Reading {
    /// Where tickets are known to be the commands themselves, none is asked for first.
    async fn open(self, session: Session) -> Result<Passage, UpstreamError> {
        let mut failed = None;
        if session.channel.takes_commands() {
            let ticket = Ticket::new(self.command.clone());
            let info = FlightInfo::new().with_endpoint(FlightEndpoint::new().with_ticket(ticket));
            match reader::open(session.clone(), self.asked(info)).await {
                // GetFlightInfo says better what is wrong with a statement; or tickets are something else by now.
                Err(error) if is_of_the_statement(&error) => failed = Some(error),
                opened => return opened,
            }
        }
        let info = session.flight_info(self.command.clone()).await?;
        match failed {
            // It is a good statement, and its ticket is the one that failed.
            Some(error) if error.kind != ErrorKind::Protocol && session.channel.takes_commands() => {
                Err(error)
            }
            _ => reader::open(session, self.asked(info)).await,
        }
    }

    fn asked(&self, info: FlightInfo) -> Asked {
        Asked { info, promised: self.promised.clone(), hands_on: self.hands_on }
    }
}

/// Whether the upstream was there and did not like what it was asked.
fn is_of_the_statement(error: &UpstreamError) -> bool {
    matches!(
        error.kind,
        ErrorKind::Refused
            | ErrorKind::NotFound
            | ErrorKind::Unimplemented
            | ErrorKind::Planning
            | ErrorKind::Protocol
            | ErrorKind::Internal
    )
}

async fn verify_at(
    channel: &Channel,
    seen: &mut (impl FnMut(Step, String) + Send),
) -> Result<(), UpstreamError> {
    let apart = Arc::new(channel.apart());
    apart.connect(seen).await?;
    let greeting = match apart.id.credentials {
        Credentials::Anonymous => "anonymous, no key set",
        Credentials::Basic { .. } => {
            let seat = apart.seat().await?;
            apart.greeting(&seat.node).await?.value.detail
        }
    };
    seen(Step::Handshake, greeting.to_owned());
    Ok(())
}

/// The failure of one endpoint after that of another: the last one, with the words of the others.
fn joined(before: Option<UpstreamError>, error: UpstreamError) -> UpstreamError {
    let Some(before) = before else { return error };
    // A call that was made says more than one that was not.
    let (shown, other) = match error.kind {
        ErrorKind::CircuitOpen => (before, error),
        _ => (error, before),
    };
    let message = format!("{}; nor does {} answer: {}", shown.message, other.endpoint, other.message);
    UpstreamError { message, ..shown }
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
