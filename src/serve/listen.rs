//! Connections: a bound listener enters, requests reach a service, and a cancelled scope drains both.
//!
//! The only place that accepts. It never looks into a request.
//!
//! A drain waits for every answer but those that are marked [`Endless`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::opening::Opening;
use super::socket::{Listener, Stream};
use super::stall::Hasty;
use super::tls::ServerTls;
use crate::task::Scope;

/// Open connections of one listener; the next one waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16_384;
/// A client that opens a connection says something, finishes its TLS handshake, and each of its heads,
/// within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors): others may close meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that reads an answer takes some of it within this time.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// HTTP/2 pings find clients that vanished without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in flight on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// What the head of a request may take, in bytes, and in headers over HTTP/1.1.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;

/// When only answers without an end are left, their clients have this long to read that the process ends.
const ENDLESS_TIMEOUT: Duration = Duration::from_secs(1);

/// Put among a response's extensions: its body has no end of its own. A drain does not wait until its client has read
/// it, which may be never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 only.
    Grpc,
}

/// Spawns what hyper wants to run beside a connection in our scope.
#[derive(Clone)]
pub(super) struct ScopeExecutor(pub(super) Scope);

impl<F> Executor<F> for ScopeExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn_draining("serve http2 stream", task);
    }
}

/// Serves connections until the scope is cancelled; then accepts no more and returns when every
/// request in flight has its answer.
pub(super) async fn serve<S, B>(
    listener: impl Into<Listener>,
    protocol: Protocol,
    tls: Option<ServerTls>,
    service: S,
    scope: &Scope,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let listener = listener.into();
    let tls = tls.filter(|_| listener.wants_tls());
    let token = scope.token();
    let open = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let builder = Arc::new(builder(protocol, scope));
    while let Some((permit, mut stream)) = token.run_until_cancelled(accept(&listener, &permits)).await {
        // hyper flushes HTTP/1 otherwise than h2 does its frames.
        if let Err(error) = stream.hurry(protocol == Protocol::Grpc) {
            tracing::debug!(%error, "connection ended early");
            continue;
        }
        // The certificate of this moment.
        let acceptor = tls.as_ref().map(|tls| tls.acceptor(protocol));
        let (builder, service) = (Arc::clone(&builder), service.clone());
        let (token, counted) = (token.clone(), open.token());
        scope.spawn_draining("serve connection", async move {
            if let Err(error) = connection(stream, acceptor, builder, service, token).await {
                tracing::debug!(%error, "connection ended early");
            }
            drop((permit, counted));
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn accept(
    listener: &Listener,
    permits: &Arc<Semaphore>,
) -> (Option<tokio::sync::OwnedSemaphorePermit>, Stream) {
    // The semaphore is never closed, so there is always a permit.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok(stream) => return (permit, stream),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(protocol: Protocol, scope: &Scope) -> auto::Builder<ScopeExecutor> {
    let mut builder = auto::Builder::new(ScopeExecutor(scope.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    match protocol {
        Protocol::Http => builder,
        Protocol::Grpc => builder.http2_only(),
    }
}

async fn connection<S, B>(
    stream: Stream,
    acceptor: Option<TlsAcceptor>,
    builder: Arc<auto::Builder<ScopeExecutor>>,
    service: S,
    token: CancellationToken,
) -> Result<(), BoxError>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some(spoke) = token.run_until_cancelled(first_byte(&stream)).await else { return Ok(()) };
    spoke?;
    let stream = Hasty::new(stream, STALL_TIMEOUT);
    match acceptor {
        None => requests(stream, builder, service, token).await,
        Some(acceptor) => {
            let stream = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await??;
            // Apart: a connection without TLS need not hold room for one with.
            Box::pin(requests(stream, builder, service, token)).await
        }
    }
}

/// Waits until the client has sent anything: hyper's own timers start only then.
async fn first_byte(stream: &Stream) -> io::Result<()> {
    tokio::time::timeout(HEAD_TIMEOUT, stream.first_byte()).await?
}

async fn requests<I, S, B>(
    io: I,
    builder: Arc<auto::Builder<ScopeExecutor>>,
    service: S,
    token: CancellationToken,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let open = TaskTracker::new();
    let service = TowerToHyperService::new(counted(service, open.clone()));
    let io = TokioIo::new(Opening::new(io, HEAD_TIMEOUT));
    let connection = builder.serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = token.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => ended,
        () = only_endless(&open) => Ok(()),
    }
}

/// Resolves when nothing that ends was open for a while.
async fn only_endless(open: &TaskTracker) {
    open.close();
    loop {
        open.wait().await;
        tokio::time::sleep(ENDLESS_TIMEOUT).await;
        // What came before the client knew of the end is answered.
        if open.is_empty() {
            return;
        }
    }
}

/// `service`, each request counted in `open` until its body has ended, unless that is [`Endless`].
fn counted<S, B>(
    service: S,
    open: TaskTracker,
) -> impl tower::Service<
    Request<Incoming>,
    Response = Response<impl Body<Data = B::Data, Error = B::Error> + Send>,
    Error = S::Error,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    tower::service_fn(move |request| {
        let (call, token) = (service.clone().oneshot(request), open.token());
        async move {
            let response = call.await?;
            let token = response.extensions().get::<Endless>().is_none().then_some(token);
            Ok(response.map(|body| {
                body.map_frame(move |frame| {
                    let _open = &token;
                    frame
                })
            }))
        }
    })
}
