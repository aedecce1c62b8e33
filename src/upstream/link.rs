//! One connection: DNS, TCP, TLS and the first words of HTTP/2, each step named when it fails.
//!
//! The socket is watched: its first bytes and its last error tell a TLS port from a plaintext one, and a
//! missing client certificate from a lost connection, long after the layers above have forgotten why.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;

use crate::name::EndpointUrl;
use crate::task::Scope;

use super::error::{ErrorKind, Step, UpstreamError};
use super::probe;
use super::tls;
use super::verifier;

/// From the DNS question to the server's first HTTP/2 frame.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A ping when nothing was heard for so long, while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The connection is dead when a ping has no answer for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How much one slow reader may have under way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// No limit over all streams: a join reads one input to its end while others wait with full windows, and a
/// shared window that those fill would stop it for good.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// Makes connections to one endpoint.
pub(super) struct Dialer {
    pub endpoint: EndpointUrl,
    pub tls: Option<Arc<ClientConfig>>,
    /// What the params in help texts begin with.
    pub prefix: &'static str,
    pub scope: Scope,
}

/// A live HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Link {
    pub requests: http2::SendRequest<Body>,
    pub notes: Arc<Notes>,
}

/// What was seen on a socket.
#[derive(Default)]
pub(super) struct Notes {
    first: OnceLock<FirstBytes>,
    failure: OnceLock<Failure>,
    changed: Notify,
}

/// What a server says first, whoever it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum FirstBytes {
    Http2,
    /// A TLS record where plaintext was expected.
    Tls,
    /// `HTTP/1.1 400 Bad Request`.
    Http1,
    Closed,
}

enum Failure {
    Tls(rustls::Error),
    Io(String),
}

impl Dialer {
    /// Connects; `seen` hears each step that succeeded.
    pub async fn dial(&self, seen: &mut (dyn FnMut(Step, String) + Send)) -> Result<Link, UpstreamError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let addresses = probe::resolve(&self.endpoint, deadline).await?;
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        seen(Step::Dns, format!("{} is {}", self.endpoint.host(), shown.join(", ")));
        let (socket, address) = probe::connect(&self.endpoint, &addresses, deadline).await?;
        seen(Step::Tcp, format!("connected to {address}"));
        let stream = match &self.tls {
            Some(config) => {
                let stream = self.secure(socket, Arc::clone(config), deadline).await?;
                let detail = describe(&stream);
                seen(Step::Tls, detail);
                Stream::Tls(Box::new(stream))
            }
            None => Stream::Plain(socket),
        };
        self.speak_http2(stream, deadline).await
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
    async fn speak_http2(&self, stream: Stream, deadline: Instant) -> Result<Link, UpstreamError> {
        let notes = Arc::new(Notes::default());
        let watched = Watched { stream, notes: Arc::clone(&notes), begun: false };
        let (requests, connection) = http2::Builder::new(Spawner(self.scope.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(|error| self.lost(&notes, &error.to_string()))?;
        let seen = Arc::clone(&notes);
        self.scope.spawn("upstream-connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "upstream connection ended");
                seen.fail(Failure::Io(chain(&error)));
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
        UpstreamError::new(ErrorKind::Unavailable, Step::Tcp, &self.endpoint, cause)
            .with_help("check that the upstream runs and that the port is its Flight port")
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

impl Notes {
    fn begin(&self, first: FirstBytes) {
        if self.first.set(first).is_ok() {
            self.changed.notify_waiters();
        }
    }

    fn fail(&self, failure: Failure) {
        if self.failure.set(failure).is_ok() {
            self.changed.notify_waiters();
        }
    }

    /// Resolves when the server has said anything, or the connection has failed.
    async fn heard(&self) {
        loop {
            let changed = self.changed.notified();
            if self.first.get().is_some() || self.failure.get().is_some() {
                return;
            }
            changed.await;
        }
    }
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

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket whose first bytes and last error are noted.
struct Watched {
    stream: Stream,
    notes: Arc<Notes>,
    begun: bool,
}

impl Watched {
    fn note(&mut self, bytes: &[u8]) {
        self.begun = true;
        let is_plain = matches!(self.stream, Stream::Plain(_));
        self.notes.begin(match bytes {
            [] => FirstBytes::Closed,
            // A handshake or alert record of any TLS version.
            [0x15 | 0x16, 0x03, ..] if is_plain => FirstBytes::Tls,
            bytes if bytes.starts_with(b"HTTP/") => FirstBytes::Http1,
            _ => FirstBytes::Http2,
        });
    }

    fn note_error(&self, error: &io::Error) {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        self.notes.fail(match tls {
            Some(error) => Failure::Tls(error.clone()),
            None => Failure::Io(error.to_string()),
        });
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        match &result {
            Ok(()) if !self.begun => self.note(&buf.filled()[before..]),
            Ok(()) => {}
            Err(error) => self.note_error(error),
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
