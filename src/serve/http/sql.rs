//! `POST /v1/sql`: decode the statement, ask, and stream the answer as it arrives.
//!
//! Headers wait for the first rows. An error after them breaks the body off without an end, so that no client takes half an
//! answer for the whole. An answer that is there at once is sent with its length.

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{self, Stream, StreamExt};

use super::accept;
use super::asked::{self, SqlRequest};
use super::body::Bodies;
use super::envelope::SqlAnswer;
use super::error::Refusal;
use super::outer::REQUEST_ID;
use super::outgoing;
use super::{CONFIG, QUERY_ID, caching};
use crate::query::{Caller, Protocol, QueryError, Request};
use crate::serve::access::Identity;
use crate::serve::{Door, trace};

/// The largest request body. A statement is planned in full, and everything in it is bound in memory several times over;
/// what is larger is data, and belongs into a dataset.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// An answer up to this size is not begun before it is known whether it is whole.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// Answers a statement.
///
/// The body is the statement, or JSON with its parameters where `Content-Type` is `application/json`. `Accept` chooses the
/// form of the answer. `Cache-Control` (`no-cache`, `no-store`, `only-if-cached`, `max-age`, `min-fresh`, `max-stale`,
/// `stale-if-error`) and `Spice-Cache-Key` speak to the results cache. A client that goes away ends its query.
#[utoipa::path(
    post,
    path = "/v1/sql",
    request_body(content(
        (SqlRequest = "application/json"),
        (String = "text/plain", example = "SELECT 1 AS one"),
    )),
    responses(
        (status = 200, description = "The rows, as they come", content(
            (Vec<BTreeMap<String, Value>> = "application/json"),
            (SqlAnswer = "application/vnd.spiceai.sql.v1+json"),
            (String = "text/csv"),
            (String = "text/plain"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        ), headers(("X-Query-Id" = String, description = "Cancels it: POST /v1/sql/{id}/cancel"))),
        (status = 400, description = "The request cannot be read, or the statement is wrong or does more than read"),
        (status = 406, description = "None of the accepted types can be answered"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is larger than 16 MiB"),
        (status = 429, description = "As many queries run and wait as may, or there is no memory left for this one"),
        (status = 499, description = "Somebody cancelled the query"),
        (status = 502, description = "An upstream refused sidewing, or broke the protocol"),
        (status = 503, description = "A dataset is not ready, its upstream is away, or there is no room for the body: \
            `Retry-After` says when to try"),
        (status = 504, description = "The query, its turn, or its upstream took too long; or nothing is cached and the \
            request wants nothing else"),
        (status = 507, description = "There is no room for the query's temporary files"),
    )
)]
pub(super) async fn answer<D: Door>(
    State(door): State<D>,
    Extension(bodies): Extension<Bodies>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let format = accept::negotiate(&headers).ok_or_else(not_acceptable)?;
    let cache = caching::wishes(&headers)?;
    // It takes its room until the query has had its turn.
    let body = bodies.read(body, BODY_BYTES_MAX).await?;
    let Caller { principal, rights } = identity.caller;
    let caller = trace::of_headers(&headers);
    let asked = asked::decode(&headers, &body.bytes)?;
    let request = Request { cache, principal, rights, caller, protocol: Protocol::Http, ..asked };
    let answer = door.run(request).await?;
    drop(body);
    let (id, cached, config) = (answer.id.to_string(), answer.cached.clone(), answer.config.clone());
    let body = begun(outgoing::pieces(answer, format)?, headers.get(REQUEST_ID).cloned()).await?;
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(QUERY_ID, id);
    }
    if let Some(config) = config.and_then(|config| HeaderValue::try_from(&*config).ok()) {
        response.headers_mut().insert(CONFIG, config);
    }
    if let Some(cached) = &cached {
        caching::tell(response.headers_mut(), cached);
    }
    Ok(response)
}

fn not_acceptable() -> Refusal {
    let types = accept::FORMATS.map(|format| format.content_type().split(';').next().unwrap_or_default());
    let message = format!("none of the accepted types can be answered: there is {}", types.join(", "));
    Refusal::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
}

/// The body, once its first piece is there; with its length, if all of it is.
async fn begun(
    pieces: impl Stream<Item = Result<Bytes, QueryError>> + Send + 'static,
    request_id: Option<HeaderValue>,
) -> Result<Body, QueryError> {
    let mut pieces = Box::pin(pieces);
    let mut here = Vec::from_iter(pieces.next().await.transpose()?);
    while here.iter().map(Bytes::len).sum::<usize>() <= WHOLE_BYTES_MAX {
        match pieces.next().now_or_never() {
            Some(Some(piece)) => here.push(piece?),
            Some(None) => return Ok(Body::from(here.concat())),
            None => break,
        }
    }
    let rest = pieces.then(move |piece| {
        if let Err(error) = &piece {
            tracing::warn!(%error, ?request_id, "answer broken off");
        }
        // An encoder takes rows for as long as they are ready: between two pieces others have their turn, and what it holds
        // is flushed.
        async move {
            tokio::task::yield_now().await;
            piece
        }
    });
    Ok(Body::from_stream(stream::iter(here.into_iter().map(Ok)).chain(rest)))
}
