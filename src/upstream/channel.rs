//! One upstream's shared connection: calls enter, HTTP/2 exchanges leave; it connects when first needed and
//! again, with fresh DNS, whenever the connection has ended.
//!
//! Holds the bearer token and the retry budget beside the connection, because both belong to the same
//! upstream.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use http::header::USER_AGENT;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response};
use rustls::ClientConfig;
use tokio::time::Instant;
use tonic::body::Body;

use crate::name::EndpointUrl;
use crate::task::Scope;

use super::auth::{self, Greeting, Token};
use super::error::{ErrorKind, Step, UpstreamError};
use super::identity::UpstreamId;
use super::link::{self, Dialer, Link};
use super::retry::Budget;
use super::single_flight::{Held, SingleFlight};
use super::status::{Doing, Origin};
use super::target::Credentials;

/// How often one call is handed to a new connection because the one at hand had just ended unused.
const HANDOVERS_MAX: usize = 3;
/// Channels to other locations that one upstream may name.
const LOCATIONS_MAX: usize = 64;
/// How long a location that did not answer is left alone.
const LOCATION_AVOIDED: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("sidewing/", env!("CARGO_PKG_VERSION"));
/// A Handshake answer is small.
const HANDSHAKE_LIMIT: u64 = 4 << 20;

pub(super) struct Channel {
    pub id: UpstreamId,
    dialer: Arc<Dialer>,
    tls: Option<Arc<ClientConfig>>,
    link: SingleFlight<Link>,
    greeting: SingleFlight<Greeting>,
    budget: Mutex<Budget>,
    /// Where this upstream has said that data lies, besides itself.
    locations: Mutex<BTreeMap<EndpointUrl, Location>>,
    was_dialed: Arc<AtomicBool>,
}

/// Another place with data of the same upstream.
struct Location {
    channel: Arc<Channel>,
    /// Not tried before then: it did not answer.
    avoided_until: Option<Instant>,
}

impl Channel {
    /// A channel that is not connected yet.
    pub fn new(id: UpstreamId, tls: Option<Arc<ClientConfig>>, scope: Scope) -> Self {
        let dialer = Dialer {
            endpoint: id.endpoint.clone(),
            tls: tls.clone(),
            prefix: id.flavor.prefix(),
            scope: scope.clone(),
            is_calm: Arc::default(),
        };
        Self {
            id,
            dialer: Arc::new(dialer),
            tls,
            link: SingleFlight::new("upstream-connect", scope.clone()),
            greeting: SingleFlight::new("upstream-handshake", scope),
            budget: Mutex::new(Budget::new(Instant::now())),
            locations: Mutex::default(),
            was_dialed: Arc::default(),
        }
    }

    /// A channel of its own to the same upstream.
    pub fn apart(&self) -> Self {
        Self::new(self.id.clone(), self.tls.clone(), self.dialer.scope.clone())
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
        let channel = Arc::new(Self::new(id, self.tls.clone(), self.dialer.scope.clone()));
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

    /// Connects now, telling each step; the connection is then used by this channel.
    pub async fn connect(&self, seen: &mut (dyn FnMut(Step, String) + Send)) -> Result<(), UpstreamError> {
        let link = self.dialer.dial(seen).await?;
        self.link.preset(link);
        Ok(())
    }

    /// The token, by a Handshake when there is none yet.
    pub async fn greeting(self: &Arc<Self>) -> Result<Held<Greeting>, UpstreamError> {
        let channel = Arc::clone(self);
        let shake = || async move { channel.shake().await };
        self.greeting.get(shake).await.unwrap_or_else(|| Err(self.going_down()))
    }

    async fn shake(self: Arc<Self>) -> Result<Greeting, UpstreamError> {
        let credentials = &self.id.credentials;
        if let Credentials::Basic { .. } = credentials {
            metrics::counter!("upstream_handshakes", "endpoint" => self.endpoint().to_string()).increment(1);
        }
        let client = FlightServiceClient::new(Wire(Arc::clone(&self)));
        let doing =
            Doing { step: Step::Handshake, method: "Handshake", limit: HANDSHAKE_LIMIT, is_streaming: false };
        auth::handshake(client, credentials, self.id.flavor).await.map_err(|refusal| {
            refusal.into_error(self.endpoint(), |status| {
                self.translate(None, |origin| origin.error(status, doing))
            })
        })
    }

    /// The next call makes a new Handshake.
    pub fn forget_token(&self, generation: u64) {
        self.greeting.invalidate(generation);
    }

    /// Ends the use of a connection whose server complained about pings: the next one sends hardly any.
    pub fn calm_down(&self) {
        self.dialer.is_calm.store(true, Ordering::Relaxed);
        self.link.clear();
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

    fn going_down(&self) -> UpstreamError {
        UpstreamError::new(ErrorKind::Cancelled, Step::Query, self.endpoint(), "sidewing is shutting down")
    }

    async fn live_link(&self) -> Result<Held<Link>, UpstreamError> {
        loop {
            let (dialer, was_dialed) = (Arc::clone(&self.dialer), Arc::clone(&self.was_dialed));
            let dial = || async move {
                if was_dialed.swap(true, Ordering::Relaxed) {
                    let endpoint = dialer.endpoint.to_string();
                    metrics::counter!("upstream_reconnects", "endpoint" => endpoint).increment(1);
                }
                dialer.dial(&mut |_, _| {}).await
            };
            let held = self.link.get(dial).await.unwrap_or_else(|| Err(self.going_down()))?;
            if !held.value.requests.is_closed() {
                return Ok(held);
            }
            self.link.invalidate(held.generation);
        }
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        self.address(&mut request)?;
        let mut last = None;
        for _ in 0..HANDOVERS_MAX {
            let Held { generation, value: mut link } = self.live_link().await?;
            match link.requests.try_send_request(request).await {
                Ok(response) => return self.answer(response),
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = self.explain(&link, failed.error());
                    if link.requests.is_closed() {
                        self.link.invalidate(generation);
                    }
                    match unsent {
                        Some(unsent) if error.is_retryable() => request = unsent,
                        _ => return Err(error),
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.going_down()))
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
        let authority: Authority = endpoint.authority().parse().map_err(|error| wrong(&error))?;
        parts.authority = Some(authority);
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

/// A channel as the service that tonic's generated client calls.
#[derive(Clone)]
pub(super) struct Wire(pub Arc<Channel>);

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = Arc::clone(&self.0);
        Box::pin(async move { channel.send(request).await })
    }
}
