//! The sockets of a fake upstream: accept, TLS, HTTP/2, and the faults that happen below Flight.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidewing::task::Scope;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::State;
use super::faults::{Break, Fault, Method, Refusal, Stall};
use super::service::Fake;
use super::socket::Socket;

/// How long a client may take for its side of the TLS handshake.
const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the last bytes of a torn answer take to leave.
const FLUSH: Duration = Duration::from_millis(20);

/// One accepted connection.
struct Connection {
    number: usize,
    requests: AtomicUsize,
    reset: Notify,
    goaway: Notify,
}

/// Serves until `scope` is cancelled, which also kills every open connection.
pub(super) async fn accept_loop(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<State>,
    scope: Scope,
) {
    let mut goodbyes = state.goodbyes.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = goodbyes.recv() => return,
        };
        match accepted {
            Ok((tcp, _)) => {
                let serve = serve_tcp(tcp, tls.clone(), Arc::clone(&state));
                scope.spawn("fake upstream connection", serve);
            }
            Err(error) => {
                state.problem(format!("accept failed: {error}"));
                return;
            }
        }
    }
}

async fn serve_tcp(tcp: TcpStream, tls: Option<Arc<rustls::ServerConfig>>, state: Arc<State>) {
    // Requests and answers are small; Nagle's delay would drown what tests time.
    let _ = tcp.set_nodelay(true);
    // A connection that is to be reset must not say goodbye with a FIN.
    if state.reset_every.load(Ordering::Relaxed) > 0 {
        let _ = tcp.set_zero_linger();
    }
    let Some(tls) = tls else { return serve_http2(tcp, state).await };
    // A client that does not like the certificate leaves here: that is its business, not a problem of ours.
    let handshake = TlsAcceptor::from(tls).accept(tcp);
    if let Ok(Ok(stream)) = tokio::time::timeout(TLS_HANDSHAKE_MAX, handshake).await {
        serve_http2(stream, state).await;
    }
}

async fn serve_http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let connection = Arc::new(Connection {
        number: state.connections.fetch_add(1, Ordering::Relaxed),
        requests: AtomicUsize::new(0),
        reset: Notify::new(),
        goaway: Notify::new(),
    });
    let mut cuts = state.cuts.subscribe();
    let mut goodbyes = state.goodbyes.subscribe();
    let _open = Open::new(Arc::clone(&state));
    let flight = FlightServiceServer::new(Fake(Arc::clone(&state)));
    let socket = Socket::new(io, Arc::clone(&state));
    let service = service_fn({
        let connection = Arc::clone(&connection);
        move |request| handle(request, flight.clone(), Arc::clone(&connection), Arc::clone(&state))
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = std::pin::pin!(serving);
    loop {
        tokio::select! {
            // What is sent after a cut must not arrive.
            biased;
            // Also where this one came too late to hear of every cut.
            _ = cuts.recv() => return,
            () = connection.reset.notified() => return,
            () = connection.goaway.notified() => serving.as_mut().graceful_shutdown(),
            Ok(()) = goodbyes.recv() => serving.as_mut().graceful_shutdown(),
            // A client that goes away in mid-call is an error for hyper, and everyday life here.
            _ = serving.as_mut() => return,
        }
    }
}

/// A connection that is open.
struct Open(Arc<State>);

impl Open {
    fn new(state: Arc<State>) -> Self {
        state.open_connections.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request: records it, lets it suffer, or hands it to the Flight service.
async fn handle(
    request: Request<Incoming>,
    flight: FlightServiceServer<Fake>,
    connection: Arc<Connection>,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    let answered = AssertUnwindSafe(answer(request, flight, connection, Arc::clone(&state))).catch_unwind();
    Ok(answered.await.unwrap_or_else(|_| {
        state.problem("a handler panicked".to_owned());
        Status::internal("the fake upstream panicked").into_http()
    }))
}

async fn answer(
    mut request: Request<Incoming>,
    mut flight: FlightServiceServer<Fake>,
    connection: Arc<Connection>,
    state: Arc<State>,
) -> Response<Body> {
    let Some(method) = Method::of_path(request.uri().path()) else {
        state.problem(format!("a request for {}", request.uri().path()));
        return Status::unimplemented("not a Flight call").into_http();
    };
    let open = state.open(method);
    let ending = state.begin(method);
    let call = state.record(method, request.headers(), connection.number);
    request.extensions_mut().insert(call);
    count(&connection, &state).await;
    let mut bytes_left = None;
    match state.injections.take(method) {
        None => {}
        Some(Fault::Status(status)) => match method {
            Method::GetFlightInfo | Method::GetSchema | Method::DoGet | Method::DoExchange => {
                request.extensions_mut().insert(Refusal(status));
            }
            _ => return status.into_http(),
        },
        Some(Fault::Http503) => return load_balancer_page(),
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => reset(&connection).await,
        Some(Fault::BreakAfter { batches, status }) => {
            request.extensions_mut().insert(Break { batches, status });
        }
        Some(Fault::StallAfter { batches }) => {
            request.extensions_mut().insert(Stall(batches));
        }
        Some(Fault::ResetAfter { bytes }) => bytes_left = Some(bytes),
    }
    let response = match flight.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    drop(ending);
    let response = match bytes_left {
        None => response,
        Some(left) => response.map(|body| Body::new(Torn { body, left, connection, wait: None })),
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _open = &open;
            frame
        }))
    })
}

/// Ends the connection when it has had its share of requests.
async fn count(connection: &Connection, state: &State) {
    let requests = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let due = |every: &AtomicUsize| match every.load(Ordering::Relaxed) {
        0 => false,
        every => requests > every,
    };
    if due(&state.reset_every) {
        reset(connection).await;
    }
    if due(&state.goaway_every) {
        connection.goaway.notify_one();
    }
}

/// Never returns: the connection, this request with it, is dropped.
async fn reset(connection: &Connection) {
    connection.reset.notify_one();
    std::future::pending().await
}

/// An answer of which so many bytes arrive before its connection dies.
struct Torn {
    body: Body,
    left: usize,
    connection: Arc<Connection>,
    /// Runs while the last bytes are on their way.
    wait: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Torn {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.left == 0 {
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
            std::task::ready!(wait.as_mut().poll(cx));
            self.connection.reset.notify_one();
            return Poll::Pending;
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|mut data| {
                    data.truncate(self.left);
                    self.left -= data.len();
                    data
                })
            })
        }))
    }
}

fn load_balancer_page() -> Response<Body> {
    let page = "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>\n";
    let mut response = Response::new(Body::new(page.to_owned()));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
    response
}
