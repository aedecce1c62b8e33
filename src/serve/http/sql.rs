//! `POST /v1/sql`: decode the statement, ask, and stream the answer as it arrives.
//!
//! Headers wait for the first chunk. An error after it breaks the body off without an end, so that no
//! client takes half an answer for the whole.

use std::collections::VecDeque;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, StatusCode};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use serde_json::Value;

use super::accept::{self, Format};
use super::encode::{self, Encoder};
use super::error::Refusal;
use super::{QUERY_ID, REQUEST_ID, caching};
use crate::query::{Answer, Parameters, Protocol, QueryError, Request};
use crate::serve::Door;
use crate::serve::access::Identity;

/// The largest request body.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Some editors put it before a text; it is no part of the statement.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The JSON form of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRequest {
    sql: String,
    #[serde(default)]
    parameters: Value,
}

/// Answers a statement.
pub(super) async fn answer<D: Door>(
    State(door): State<D>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match try_answer(door, &identity, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&headers),
    }
}

async fn try_answer<D: Door>(
    door: D,
    identity: &Identity,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let format = accept::negotiate(headers).ok_or_else(|| {
        let message = "none of the accepted types can be answered: \
                       there is application/json, text/csv and text/plain";
        Refusal::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    })?;
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| unreadable(&error))?;
    let cache = caching::wishes(headers)?;
    let principal = identity.caller.principal.clone();
    let request = Request { cache, principal, protocol: Protocol::Http, ..decode(headers, &body)? };
    let answer = door.run(request).await?;
    let (id, cached) = (answer.id.to_string(), answer.cached.clone());
    let mut chunks = Box::pin(chunks(answer, format)?);
    let first = chunks.next().await.transpose()?;
    let request_id = headers.get(REQUEST_ID).cloned();
    let rest = chunks.inspect(move |chunk| {
        if let Err(error) = chunk {
            tracing::warn!(%error, ?request_id, "answer broken off");
        }
    });
    let mut response = Response::new(Body::from_stream(stream::iter(first.map(Ok)).chain(rest)));
    response.headers_mut().insert(CONTENT_TYPE, encode::content_type(format));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(QUERY_ID, id);
    }
    if let Some(cached) = &cached {
        caching::tell(response.headers_mut(), cached);
    }
    Ok(response)
}

fn bad(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}

fn unreadable(error: &axum::Error) -> Refusal {
    let too_large = std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    match too_large {
        true => {
            let message = format!("the request body is larger than {} MiB", BODY_BYTES_MAX >> 20);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
        }
        false => bad("BodyUnreadable", "the request body ended early"),
    }
}

/// A JSON request where Content-Type says so; otherwise the body is the statement, whatever its type
/// (curl's `-d` calls it a form).
fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let request = match is_json(headers) {
        true => decode_json(body)?,
        false => {
            let sql = std::str::from_utf8(body)
                .map_err(|_| bad("BodyNotUtf8", "the statement is not UTF-8 text"))?
                .to_owned();
            Request::new(sql)
        }
    };
    match request.sql.trim().is_empty() {
        true => Err(bad("EmptyStatement", "the statement is empty: send SQL, for example SELECT 1")),
        false => Ok(request),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn decode_json(body: &[u8]) -> Result<Request, Refusal> {
    let expected = r#"expected {"sql": "…", "parameters": […] or {…}}"#;
    let JsonRequest { sql, parameters } = serde_json::from_slice(body)
        .map_err(|error| bad("BodyNotJson", format!("the request body: {error}; {expected}")))?;
    let parameters = match parameters {
        Value::Null => Parameters::None,
        Value::Array(values) => Parameters::Positional(values),
        Value::Object(values) => Parameters::Named(values),
        _ => return Err(bad("BodyNotJson", format!("`parameters` is no list and no object; {expected}"))),
    };
    Ok(Request { parameters, ..Request::new(sql) })
}

/// What this format cannot write is the statement's to change; anything else is ours.
fn unwritable(error: ArrowError) -> QueryError {
    match error {
        ArrowError::NotYetImplemented(message) => QueryError::Unsupported { message },
        ArrowError::JsonError(message) | ArrowError::CsvError(message) => {
            let message = format!("{message}: cast the column to text, or ask over Flight");
            QueryError::Unsupported { message }
        }
        other => QueryError::Internal { message: format!("the answer cannot be written: {other}") },
    }
}

/// An answer on its way out; dropping it drops the query.
struct Outgoing {
    answer: Option<Answer>,
    encoder: Encoder,
    pending: VecDeque<RecordBatch>,
}

impl Outgoing {
    /// The next piece of text, `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, QueryError> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                let text = self.encoder.encode(&chunk).map_err(unwritable)?;
                if self.encoder.is_full() {
                    self.pending.clear();
                    return self.finish().map(Some);
                }
                if !text.is_empty() {
                    return Ok(Some(text));
                }
                continue;
            }
            let Some(answer) = &mut self.answer else { return Ok(None) };
            match answer.batches.next().await {
                Some(batch) => self.pending.extend(Encoder::chunks(&batch?)),
                None => return self.finish().map(Some),
            }
        }
    }

    fn finish(&mut self) -> Result<Bytes, QueryError> {
        self.answer = None;
        self.encoder.finish().map_err(unwritable)
    }
}

fn chunks(
    answer: Answer,
    format: Format,
) -> Result<impl Stream<Item = Result<Bytes, QueryError>> + Send, QueryError> {
    let encoder = Encoder::try_new(format, &answer.schema).map_err(unwritable)?;
    let outgoing = Outgoing { answer: Some(answer), encoder, pending: VecDeque::new() };
    Ok(stream::try_unfold(outgoing, |mut outgoing| async move {
        let text = outgoing.next().await?;
        Ok(text.map(|text| (text, outgoing)))
    }))
}
