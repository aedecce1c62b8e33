//! One endpoint: calls enter, HTTP/2 exchanges leave, by whichever of its connections.
//!
//! Holds what belongs to the endpoint beside them: its health, the retry budget, and how many calls may be under way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightEndpoint, FlightInfo};
use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::{Authority, InvalidUri, Scheme};
use http::{HeaderValue, Request, Response};
use rustls::ClientConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tonic::body::Body;

use crate::name::EndpointUrl;
use crate::task::Scope;
use crate::wire;

use super::auth::{self, Greeting, Token};
use super::error::{ErrorKind, Step, UpstreamError};
use super::health::Health;
use super::identity::UpstreamId;
use super::link::{self, Dialer, Link};
use super::node::{Node, Seat};
use super::retry::Budget;
use super::roster::{HANDOVERS_MAX, Roster};
use super::single_flight::Held;
use super::status::{Doing, Origin};
use super::target::Credentials;

/// Channels to other locations that one upstream may name.
const LOCATIONS_MAX: usize = 64;
/// How long a location that did not answer is left alone.
const LOCATION_AVOIDED: Duration = Duration::from_secs(30);
/// How long a call waits for others to end, where nothing ends it before.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("sidewing/", env!("CARGO_PKG_VERSION"));
/// A Handshake answer is small.
const HANDSHAKE_LIMIT: u64 = 4 << 20;
/// What the metrics are told of from the start.
const METHODS: [&str; 4] = ["GetFlightInfo", "GetSchema", "DoGet", "DoExchange"];

/// What every endpoint of a process is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `runtime.params.upstream_max_concurrent_requests`; `None` is no bound.
    pub concurrent: Option<NonZeroUsize>,
    /// `runtime.params.upstream_establishment_timeout`: how long a call that runs nothing may be without an answer.
    pub establishment: Duration,
    /// `runtime.params.upstream_name_server`: asked instead of those of the system.
    pub name_server: Option<SocketAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        const CONCURRENT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
        Self { concurrent: Some(CONCURRENT), establishment: Duration::from_secs(30), name_server: None }
    }
}

pub(super) struct Channel {
    pub id: UpstreamId,
    pub limits: Limits,
    pub health: Arc<Health>,
    dialer: Arc<Dialer>,
    roster: Arc<Roster>,
    tls: Option<Arc<ClientConfig>>,
    /// Fair: who comes first goes first.
    turns: Option<Semaphore>,
    budget: Mutex<Budget>,
    /// Whether its tickets are the commands themselves, by the last FlightInfo.
    takes_commands: AtomicBool,
    received: OnceLock<metrics::Counter>,
    /// Of the calls of each method.
    calls: [[OnceLock<metrics::Counter>; METHODS.len()]; 2],
    /// What stands in the URI of a request, or why it cannot.
    authority: Result<Authority, InvalidUri>,
    /// Where this upstream has said that data lies, besides itself.
    locations: Mutex<BTreeMap<EndpointUrl, Location>>,
}

/// Which calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Requests,
    Retries,
}

impl Calls {
    fn metric(self) -> &'static str {
        match self {
            Self::Requests => "upstream_requests",
            Self::Retries => "upstream_retries",
        }
    }
}

/// Another place with data of the same upstream.
struct Location {
    channel: Arc<Channel>,
    /// Not tried before then: it did not answer.
    avoided_until: Option<Instant>,
}

/// The right to have a call under way whose answer has not begun.
pub(super) struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

impl Channel {
    /// A channel that is not connected yet.
    pub fn new(id: UpstreamId, tls: Option<Arc<ClientConfig>>, limits: Limits, scope: Scope) -> Self {
        let health = Arc::new(Health::new(id.endpoint.to_string()));
        Self::with_health(id, tls, limits, scope, health)
    }

    fn with_health(
        id: UpstreamId,
        tls: Option<Arc<ClientConfig>>,
        limits: Limits,
        scope: Scope,
        health: Arc<Health>,
    ) -> Self {
        let dialer = Arc::new(Dialer {
            endpoint: id.endpoint.clone(),
            name_server: limits.name_server,
            tls: tls.clone(),
            prefix: id.flavor.prefix(),
            scope,
            is_calm: Arc::default(),
            health: Arc::clone(&health),
        });
        Self {
            authority: id.endpoint.authority().parse(),
            id,
            limits,
            roster: Arc::new(Roster::new(Arc::clone(&dialer), Arc::clone(&health))),
            health,
            dialer,
            tls,
            turns: limits.concurrent.map(|max| Semaphore::new(max.get().min(Semaphore::MAX_PERMITS))),
            budget: Mutex::new(Budget::new(Instant::now())),
            takes_commands: AtomicBool::new(false),
            received: OnceLock::new(),
            calls: Default::default(),
            locations: Mutex::default(),
        }
    }

    /// Whether a command may be sent as a ticket, without asking for one.
    pub fn takes_commands(&self) -> bool {
        self.takes_commands.load(Ordering::Relaxed)
    }

    /// Counts the bytes that arrive.
    pub fn received(&self) -> &metrics::Counter {
        let endpoint = || self.endpoint().to_string();
        self.received.get_or_init(|| metrics::counter!("upstream_received_bytes", "endpoint" => endpoint()))
    }

    /// Learns of a FlightInfo what the tickets of this upstream are.
    pub fn learn_tickets(&self, command: &Bytes, info: &FlightInfo) {
        let is_said = info.app_metadata == wire::SQL_TICKETS;
        let takes_commands = match &info.endpoint[..] {
            [FlightEndpoint { ticket: Some(ticket), location, .. }] => {
                location.is_empty() && (is_said || ticket.ticket == *command)
            }
            _ => false,
        };
        self.takes_commands.store(takes_commands, Ordering::Relaxed);
    }

    /// A channel of its own to the same upstream: other connections, the same health.
    pub fn apart(&self) -> Self {
        let (scope, health) = (self.dialer.scope.clone(), Arc::clone(&self.health));
        Self::with_health(self.id.clone(), self.tls.clone(), self.limits, scope, health)
    }

    /// The channel to another place that holds this upstream's data; `None` where credentials must not go:
    /// a place of the other kind of encryption, or one too many.
    pub fn at(&self, endpoint: EndpointUrl) -> Option<Arc<Self>> {
        if endpoint.is_tls() != self.id.endpoint.is_tls() {
            return None;
        }
        let mut locations = self.locations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(location) = locations.get(&endpoint) {
            let is_avoided = location.avoided_until.is_some_and(|until| Instant::now() < until);
            return (!is_avoided).then(|| Arc::clone(&location.channel));
        }
        if locations.len() >= LOCATIONS_MAX {
            return None;
        }
        let id = UpstreamId { endpoint: endpoint.clone(), ..self.id.clone() };
        let channel = Arc::new(Self::new(id, self.tls.clone(), self.limits, self.dialer.scope.clone()));
        let location = Location { channel: Arc::clone(&channel), avoided_until: None };
        locations.insert(endpoint, location);
        Some(channel)
    }

    /// Leaves a location alone for a while, so that not every query waits for it in vain.
    pub fn avoid(&self, endpoint: &EndpointUrl) {
        let mut locations = self.locations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(location) = locations.get_mut(endpoint) {
            location.avoided_until = Some(Instant::now() + LOCATION_AVOIDED);
        }
    }

    pub fn endpoint(&self) -> &EndpointUrl {
        &self.id.endpoint
    }

    pub fn with_budget<T>(&self, use_it: impl FnOnce(&mut Budget) -> T) -> T {
        use_it(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the metrics show of it from the start.
    pub fn announce(&self) {
        let endpoint = self.endpoint().to_string();
        self.health.circuit.announce();
        for name in ["upstream_reconnects", "upstream_handshakes", "upstream_received_bytes"] {
            metrics::counter!(name, "endpoint" => endpoint.clone()).absolute(0);
        }
        for name in ["upstream_in_flight", "upstream_addresses"] {
            metrics::gauge!(name, "endpoint" => endpoint.clone()).set(0.0);
        }
        for method in METHODS {
            for calls in [Calls::Requests, Calls::Retries] {
                self.calls(calls, method).absolute(0);
            }
            for kind in [ErrorKind::Connect, ErrorKind::Unavailable, ErrorKind::CircuitOpen] {
                self.errors(method, &kind).absolute(0);
            }
        }
    }

    /// The counter of such calls.
    pub fn calls(&self, calls: Calls, method: &'static str) -> metrics::Counter {
        let counter = || {
            let endpoint = self.endpoint().to_string();
            metrics::counter!(calls.metric(), "endpoint" => endpoint, "method" => method)
        };
        match METHODS.iter().position(|known| *known == method) {
            Some(at) => self.calls[calls as usize][at].get_or_init(counter).clone(),
            None => counter(),
        }
    }

    /// The counter of calls that failed so.
    pub fn errors(&self, method: &'static str, kind: &ErrorKind) -> metrics::Counter {
        let endpoint = self.endpoint().to_string();
        metrics::counter!(
            "upstream_errors", "endpoint" => endpoint, "method" => method, "code" => kind.code()
        )
    }

    /// Waits until fewer calls than may be are under way. A stream whose first batch has come is none of them: a join
    /// reads one while it waits for another, and both together must not wait for each other.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] after too long a wait.
    pub async fn turn(&self) -> Result<Turn<'_>, UpstreamError> {
        let Some(turns) = &self.turns else { return Ok(Turn { _permit: None }) };
        match tokio::time::timeout(TURN_WAIT_MAX, turns.acquire()).await {
            Ok(permit) => Ok(Turn { _permit: permit.ok() }),
            Err(_) => {
                let max = self.limits.concurrent.map_or(0, NonZeroUsize::get);
                let seconds = TURN_WAIT_MAX.as_secs();
                let message =
                    format!("UpstreamBusy: {max} calls are under way there, and for {seconds} s none ended");
                let help =
                    "raise runtime.params.upstream_max_concurrent_requests if the upstream can take more";
                Err(UpstreamError::new(ErrorKind::Busy, Step::Query, self.endpoint(), message)
                    .with_help(help))
            }
        }
    }

    /// Connects now, telling each step; the connection is then used by this channel.
    pub async fn connect(&self, seen: &mut (dyn FnMut(Step, String) + Send)) -> Result<(), UpstreamError> {
        self.roster.connect(seen).await
    }

    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// A place for one call.
    pub async fn seat(&self) -> Result<Seat, UpstreamError> {
        self.roster.seat().await
    }

    /// The token of a node, by a Handshake when there is none yet.
    pub async fn greeting(self: &Arc<Self>, node: &Arc<Node>) -> Result<Held<Greeting>, UpstreamError> {
        let (channel, there) = (Arc::clone(self), Arc::clone(node));
        let shake = || async move { channel.shake(there).await };
        node.greeting.get(shake).await.unwrap_or_else(|| Err(self.roster.going_down()))
    }

    async fn shake(self: Arc<Self>, node: Arc<Node>) -> Result<Greeting, UpstreamError> {
        let (credentials, begun) = (&self.id.credentials, Instant::now());
        let endpoint = self.endpoint().to_string();
        let is_asked = matches!(credentials, Credentials::Basic { .. });
        if is_asked {
            metrics::counter!("upstream_handshakes", "endpoint" => endpoint.clone()).increment(1);
        }
        let client = FlightServiceClient::new(Wire { channel: Arc::clone(&self), node });
        let doing =
            Doing { step: Step::Handshake, method: "Handshake", limit: HANDSHAKE_LIMIT, is_streaming: false };
        let patience = self.limits.establishment;
        let greeting = auth::handshake(client, credentials, self.id.flavor, patience).await;
        let greeting = greeting.map_err(|refusal| {
            refusal.into_error(self.endpoint(), |status| {
                self.translate(None, |origin| origin.error(status, doing))
            })
        })?;
        if is_asked {
            metrics::histogram!("upstream_handshake_duration_ms", "endpoint" => endpoint)
                .record(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(greeting)
    }

    /// Ends the use of connections whose server complained about pings: the next ones send hardly any.
    pub fn calm_down(&self) {
        self.dialer.is_calm.store(true, Ordering::Relaxed);
        self.roster.clear();
    }

    /// Translates a status with every secret of this upstream at hand, to be taken out.
    pub fn translate<T>(&self, token: Option<&Token>, speak: impl FnOnce(&Origin<'_>) -> T) -> T {
        let secrets = auth::secrets(&self.id.credentials, token);
        speak(&Origin {
            endpoint: self.endpoint(),
            prefix: self.id.flavor.prefix(),
            secrets: &secrets,
            is_anonymous: matches!(self.id.credentials, Credentials::Anonymous),
        })
    }

    async fn send(
        &self,
        node: &Arc<Node>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        self.address(&mut request)?;
        let mut last = None;
        for _ in 0..HANDOVERS_MAX {
            let Held { generation, value: mut link } = self.roster.link(node).await?;
            match link.requests.try_send_request(request).await {
                Ok(response) => return self.answer(response),
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = self.explain(&link, failed.error());
                    if link.requests.is_closed() {
                        node.link.invalidate(generation);
                    }
                    match unsent {
                        Some(unsent) if error.is_retryable() => request = unsent,
                        _ => return Err(error),
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.roster.going_down()))
    }

    fn explain(&self, link: &Link, error: &hyper::Error) -> UpstreamError {
        let words = format!("the connection was lost: {}", link::chain(error));
        self.dialer.diagnose(&link.notes).unwrap_or_else(|| self.dialer.lost(&link.notes, &words))
    }

    /// HTTP/2 wants scheme and authority in each request.
    fn address(&self, request: &mut Request<Body>) -> Result<(), UpstreamError> {
        let endpoint = self.endpoint();
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(if endpoint.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
        let wrong = |error: &dyn std::fmt::Display| {
            let message = format!("`{}` cannot stand in a request: {error}", endpoint.authority());
            UpstreamError::new(ErrorKind::Protocol, Step::Query, endpoint, message)
        };
        parts.authority = Some(self.authority.as_ref().map_err(|error| wrong(error))?.clone());
        *request.uri_mut() = http::Uri::from_parts(parts).map_err(|error| wrong(&error))?;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(())
    }

    fn answer(&self, response: Response<hyper::body::Incoming>) -> Result<Response<Body>, UpstreamError> {
        let (head, body) = response.into_parts();
        match self.translate(None, |origin| origin.check_head(&head)) {
            Some(error) => Err(error),
            None => Ok(Response::from_parts(head, Body::new(body))),
        }
    }
}

/// A node of a channel as the service that tonic's generated client calls.
#[derive(Clone)]
pub(super) struct Wire {
    pub channel: Arc<Channel>,
    pub node: Arc<Node>,
}

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { channel, node } = self.clone();
        Box::pin(async move { channel.send(&node, request).await })
    }
}
