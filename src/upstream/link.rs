//! One connection: DNS, TCP, TLS and the first words of HTTP/2, each step named when it fails.
//!
//! What the socket has seen decides what a failure is called.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;

use crate::name::EndpointUrl;
use crate::task::Scope;

use super::addresses::Address;
use super::error::{ErrorKind, Step, UpstreamError};
use super::health::Health;
use super::probe;
use super::tls;
use super::verifier;
use super::watched::{Failure, FirstBytes, Notes, Stream, Watched};

/// From the DNS question to the server's first HTTP/2 frame.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A ping when nothing was heard for so long, while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The connection is dead when a ping has no answer for so long. With the interval this stays below the
/// window for new attempts, so that a call which met a dead connection gets another one.
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// For servers that take frequent pings for an attack: gRPC's C++ core allows one in five minutes while it
/// has nothing to send, and ends the connection at the third beyond that.
const PING_INTERVAL_CALM: Duration = Duration::from_secs(310);
/// How much one slow reader may have under way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// No limit over all streams: a join reads one input to its end while others wait with full windows, and a
/// shared window that those fill would stop it for good.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Error texts travel in headers.
const HEADER_BYTES_MAX: u32 = 256 << 10;

/// Makes connections to one endpoint.
pub(super) struct Dialer {
    pub endpoint: EndpointUrl,
    /// Asked instead of the system's name servers.
    pub name_server: Option<SocketAddr>,
    pub tls: Option<Arc<ClientConfig>>,
    /// What the params in help texts begin with.
    pub prefix: &'static str,
    pub scope: Scope,
    /// The server has complained about pings.
    pub is_calm: Arc<AtomicBool>,
    /// Hears of connections that die.
    pub health: Arc<Health>,
}

/// A live HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Link {
    pub requests: http2::SendRequest<Body>,
    pub notes: Arc<Notes>,
}

/// A connection that was not made, and where.
pub(super) struct Failed {
    pub at: Vec<Address>,
    pub error: UpstreamError,
}

impl Dialer {
    /// The addresses of the endpoint, and for how long they hold; `seen` hears of them.
    pub async fn find(
        &self,
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<(Vec<Address>, Option<Instant>), UpstreamError> {
        if self.endpoint.socket().is_some() {
            return Ok((vec![Address::Socket], None));
        }
        let found = probe::resolve(&self.endpoint, self.name_server, deadline).await?;
        let shown: Vec<_> = found.addresses.iter().map(|address| address.ip().to_string()).collect();
        seen(Step::Dns, format!("{} is {}", self.endpoint.host(), shown.join(", ")));
        Ok((found.addresses.into_iter().map(Address::Tcp).collect(), found.fresh_until))
    }

    /// Connects to the first of `addresses` that answers; `seen` hears each step that succeeded.
    pub async fn connect(
        &self,
        addresses: &[Address],
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<(Address, Link), Failed> {
        let begun = Instant::now();
        let (address, stream) = self
            .reach(addresses, deadline, seen)
            .await
            .map_err(|error| Failed { at: addresses.to_vec(), error })?;
        let made = async {
            let stream = self.wrap(stream, deadline, seen).await?;
            self.speak_http2(stream, address, deadline).await
        };
        let link = made.await.map_err(|error| Failed { at: vec![address], error })?;
        let endpoint = self.endpoint.to_string();
        metrics::histogram!("upstream_connect_duration_ms", "endpoint" => endpoint)
            .record(begun.elapsed().as_secs_f64() * 1000.0);
        Ok((address, link))
    }

    async fn reach(
        &self,
        addresses: &[Address],
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<(Address, Stream), UpstreamError> {
        if let Some(path) = self.endpoint.socket() {
            let stream = probe::connect_socket(&self.endpoint, path, deadline).await?;
            seen(Step::Tcp, format!("connected to {}", self.endpoint));
            return Ok((Address::Socket, Stream::Unix(stream)));
        }
        let addresses: Vec<_> = addresses.iter().filter_map(|address| address.tcp()).collect();
        let (socket, address) = probe::connect(&self.endpoint, &addresses, deadline).await?;
        seen(Step::Tcp, format!("connected to {address}"));
        Ok((Address::Tcp(address), Stream::Plain(socket)))
    }

    /// TLS, where the endpoint speaks it; the name is the endpoint's, whatever the address.
    async fn wrap(
        &self,
        stream: Stream,
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<Stream, UpstreamError> {
        let (socket, config) = match (stream, &self.tls) {
            (Stream::Plain(socket), Some(config)) => (socket, config),
            (stream, _) => return Ok(stream),
        };
        let stream = self.secure(socket, Arc::clone(config), deadline).await?;
        seen(Step::Tls, describe(&stream));
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn secure(
        &self,
        socket: TcpStream,
        config: Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, UpstreamError> {
        let host = self.endpoint.host().to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| {
            self.tls_error(format!("`{host}` is not a name that a certificate can carry"), "check the host")
        })?;
        let handshake = TlsConnector::from(config).connect(name, socket);
        let error = match tokio::time::timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => {
                let help = "check that the port is the upstream's Flight port with TLS; use http:// for an \
                            upstream without TLS";
                return Err(self.tls_error("the server did not finish the TLS handshake in time", help));
            }
        };
        Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => self.explained(error),
            None => self.tls_error(
                format!("the server closed the connection in the TLS handshake: {error}"),
                "the server may not speak TLS (use http://), or something in between refuses it",
            ),
        })
    }

    fn explained(&self, error: &rustls::Error) -> UpstreamError {
        let explained = tls::explain(error, self.endpoint.host(), self.prefix);
        self.tls_error(explained.message, explained.help)
    }

    fn tls_error(&self, message: impl Into<String>, help: impl Into<String>) -> UpstreamError {
        UpstreamError::new(ErrorKind::Tls, Step::Tls, &self.endpoint, message).with_help(help)
    }

    /// Sends the HTTP/2 preface and waits for the server's first bytes, so that a server of another
    /// protocol is known for what it is before any call is made.
    async fn speak_http2(
        &self,
        stream: Stream,
        address: Address,
        deadline: Instant,
    ) -> Result<Link, UpstreamError> {
        let notes = Arc::new(Notes::default());
        let watched = Watched::new(stream, Arc::clone(&notes));
        let (requests, connection) = http2::Builder::new(Spawner(self.scope.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(self.ping_interval())
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(|error| {
                self.diagnose(&notes).unwrap_or_else(|| self.lost(&notes, &error.to_string()))
            })?;
        let (seen, end) = (Arc::clone(&notes), self.end());
        self.scope.spawn("upstream-connection", async move {
            if let Err(error) = connection.await {
                end.met(&error, address, &seen);
            }
        });
        match tokio::time::timeout_at(deadline, notes.heard()).await {
            Ok(()) => {}
            Err(_) => return Err(self.lost(&notes, "the server accepts connections but does not answer")),
        }
        match self.diagnose(&notes) {
            Some(error) => Err(error),
            None => Ok(Link { requests, notes }),
        }
    }

    fn end(&self) -> End {
        End {
            endpoint: self.endpoint.clone(),
            is_calm: Arc::clone(&self.is_calm),
            health: Arc::clone(&self.health),
        }
    }

    fn ping_interval(&self) -> Duration {
        match self.is_calm.load(Ordering::Relaxed) {
            true => PING_INTERVAL_CALM,
            false => PING_INTERVAL,
        }
    }

    /// What the socket's history says about a failure; `None` when it looks like HTTP/2.
    pub fn diagnose(&self, notes: &Notes) -> Option<UpstreamError> {
        let protocol = |message: &str, help: &str| {
            Some(UpstreamError::new(ErrorKind::Protocol, Step::Tls, &self.endpoint, message).with_help(help))
        };
        if let Some(Failure::Tls(error)) = notes.failure.get() {
            return Some(self.explained(error));
        }
        match notes.first.get() {
            Some(FirstBytes::Tls) => protocol(
                "the server speaks TLS, but the endpoint is plaintext",
                "use https:// (or grpc+tls://) instead of http://",
            ),
            Some(FirstBytes::Http1) => protocol(
                "the server speaks HTTP/1.1, not the HTTP/2 that Flight needs",
                "check that the port is the upstream's Flight port, not its HTTP port",
            ),
            Some(FirstBytes::Http2) => None,
            Some(FirstBytes::Closed) => Some(self.lost(notes, "the server closed the connection at once")),
            None => notes.failure.get().map(|_| self.lost(notes, "the connection failed")),
        }
    }

    /// A connection that ended: the same call may succeed on the next one.
    pub fn lost(&self, notes: &Notes, why: &str) -> UpstreamError {
        let cause = match notes.failure.get() {
            Some(Failure::Io(cause)) if !why.contains(cause.as_str()) => format!("{why}: {cause}"),
            _ => why.to_owned(),
        };
        lost(&self.endpoint, cause)
    }
}

fn lost(endpoint: &EndpointUrl, cause: String) -> UpstreamError {
    UpstreamError::new(ErrorKind::Unavailable, Step::Tcp, endpoint, cause)
        .with_help("check that the upstream runs and that the port is its Flight port")
}

/// Who hears of a connection's end.
struct End {
    endpoint: EndpointUrl,
    is_calm: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl End {
    /// A connection that ends unused, as load balancers end them, is nobody's fault. Pings are only sent for calls.
    fn met(&self, error: &hyper::Error, address: Address, notes: &Notes) {
        let words = chain(error);
        tracing::debug!(error = words, %address, "upstream connection ended");
        let is_ping_complaint = words.contains("too_many_pings");
        if is_ping_complaint {
            self.is_calm.store(true, Ordering::Relaxed);
        } else if notes.is_carrying() || error.is_timeout() {
            self.health.lost(&[address], &lost(&self.endpoint, format!("the connection was lost: {words}")));
        }
        notes.fail(Failure::Io(words));
    }
}

/// `TLSv1.3, certificate valid until …`.
fn describe(stream: &TlsStream<TcpStream>) -> String {
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let until = session
        .peer_certificates()
        .and_then(|chain| verifier::validity(chain.first()?))
        .map_or_else(String::new, |(_, until)| format!(", certificate valid until {}", tls::date(until)));
    format!("{version}{until}")
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

/// Runs HTTP/2's own tasks in the room's scope.
#[derive(Clone)]
struct Spawner(Scope);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn("upstream-http2", task);
    }
}
