//! What every request and every answer has, whatever is in between: an id, an error that its client can read, and an
//! answer even where a handler panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use ::http::header::HeaderName;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use metrics::{Counter, Histogram};

use super::accept;
use super::error::Refusal;
use crate::slots::Slots;
use crate::task;

/// Names the request in its answer; a client may bring its own.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own request id is kept up to this length.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// What the metrics tell apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const OTHER: &str = "other";

/// Gives the request an id that its answer, its error and the log share, and its [`Refusal`] a body.
pub(super) async fn around(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let counted = Counted::begin(&request);
    let as_json = accept::takes_json(request.headers());
    let is_head = request.method() == Method::HEAD;
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|panic| {
        tracing::error!(request_id = ?id, panic = task::words_of(panic.as_ref()), "a request's handler panicked");
        let message = "internal error: the log has more under this request's id";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", message).into_response()
    });
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = refusal.told(response, as_json, &id);
    }
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response.headers_mut().insert(REQUEST_ID, id);
    counted.ends(response.status());
    response
}

/// One request of the metrics. Its path is the route's: what clients make up makes no series.
struct Counted {
    method: &'static str,
    /// None where no route has it.
    path: Option<MatchedPath>,
    begun: Instant,
}

/// The metrics of requests of a kind, looked up once.
struct Series {
    method: &'static str,
    path: String,
    status: StatusCode,
    requests: Counter,
    duration: Histogram,
}

static SERIES: Slots<Series> = Slots::new();

impl Counted {
    fn begin(request: &Request) -> Self {
        let method = METHODS.into_iter().find(|method| *method == request.method().as_str());
        Self {
            method: method.unwrap_or(OTHER),
            path: request.extensions().get::<MatchedPath>().cloned(),
            begun: Instant::now(),
        }
    }

    fn ends(self, status: StatusCode) {
        let (method, path) = (self.method, self.path.as_ref().map_or(OTHER, MatchedPath::as_str));
        let took = self.begun.elapsed().as_secs_f64() * 1e3;
        let hash = u64::from(crc32fast::hash(path.as_bytes()))
            ^ (method.as_ptr().addr() as u64) << 16
            ^ u64::from(status.as_u16()) << 48;
        let known = SERIES.at(hash);
        if let Some(series) = known.as_ref().filter(|series| series.is_of(method, path, status)) {
            return series.tell(took);
        }
        let series = Series::new(method, path, status);
        series.tell(took);
        SERIES.put(hash, series);
    }
}

impl Series {
    fn new(method: &'static str, path: &str, status: StatusCode) -> Self {
        let path = path.to_owned();
        let labels =
            [("method", method.to_owned()), ("path", path.clone()), ("status", status.as_u16().to_string())];
        Self {
            method,
            requests: metrics::counter!("http_requests", &labels),
            duration: metrics::histogram!("http_requests_duration_ms", "method" => method, "path" => path.clone()),
            path,
            status,
        }
    }

    fn is_of(&self, method: &str, path: &str, status: StatusCode) -> bool {
        self.status == status && self.method == method && self.path == path
    }

    fn tell(&self, took: f64) {
        self.requests.increment(1);
        self.duration.record(took);
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let brought = headers.get(&REQUEST_ID).filter(|id| {
        id.len() <= REQUEST_ID_BYTES_MAX && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    match brought {
        Some(id) => id.clone(),
        None => {
            HeaderValue::try_from(uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("none"))
        }
    }
}
