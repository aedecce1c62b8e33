//! One map from every query error to HTTP and gRPC status. Exhaustive, without a catch-all arm: a new
//! kind of error is a compile error here.
//!
//! An upstream's UNAUTHENTICATED never becomes ours: the client would take its own key for wrong.

use ::http::StatusCode;
use tonic::Code;

use crate::query::{PutError, QueryError};
use crate::upstream::ErrorKind;

/// gRPC sends the message as a header: longer ones are cut.
const GRPC_MESSAGE_BYTES_MAX: usize = 4096;
/// 499, "client closed request": the query was cancelled, nobody is wrong.
const CLIENT_CLOSED: u16 = 499;

/// How one error is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) http: StatusCode,
    pub(super) grpc: Code,
    /// A stable word for programs.
    pub(super) code: &'static str,
    /// Whether the same request may succeed soon: `Retry-After` is sent.
    pub(super) passes: bool,
}

const fn verdict(http: StatusCode, grpc: Code, code: &'static str) -> Verdict {
    let passes = http.as_u16() == StatusCode::SERVICE_UNAVAILABLE.as_u16();
    Verdict { http, grpc, code, passes }
}

/// The status of a failed statement.
pub(super) fn of(error: &QueryError) -> Verdict {
    match error {
        QueryError::Invalid { .. } => {
            verdict(StatusCode::BAD_REQUEST, Code::InvalidArgument, "InvalidStatement")
        }
        // 404 is for routes: the table is a part of the statement.
        QueryError::NotFound { .. } => verdict(StatusCode::BAD_REQUEST, Code::NotFound, "TableNotFound"),
        QueryError::ReadOnly { .. } => verdict(StatusCode::BAD_REQUEST, Code::InvalidArgument, "ReadOnly"),
        QueryError::NotReady { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "DatasetNotReady")
        }
        QueryError::Upstream { source, .. } => of_upstream(&source.kind),
        QueryError::Unsupported { .. } => {
            verdict(StatusCode::BAD_REQUEST, Code::Unimplemented, "UnsupportedStatement")
        }
        // Not a 5xx: one query that is too large is no reason for a load balancer to take the instance away. Without
        // `Retry-After`: the same query will hardly fit a second later.
        QueryError::ResourcesExhausted { .. } => {
            verdict(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, "ResourcesExhausted")
        }
        QueryError::Spill { .. } => {
            verdict(StatusCode::INSUFFICIENT_STORAGE, Code::ResourceExhausted, "TemporaryFiles")
        }
        QueryError::QueueFull { .. } => Verdict {
            passes: true,
            ..verdict(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, "TooManyQueries")
        },
        QueryError::QueueTimeout { .. } => {
            verdict(StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded, "QueryQueueTimeout")
        }
        QueryError::Timeout { .. } => {
            verdict(StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded, "QueryTimeout")
        }
        // As RFC 9111 has it.
        QueryError::NotCached => verdict(StatusCode::GATEWAY_TIMEOUT, Code::FailedPrecondition, "NotCached"),
        QueryError::Cancelled => verdict(client_closed(), Code::Cancelled, "Cancelled"),
        QueryError::ClientStalled { .. } => {
            verdict(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, "ClientStalled")
        }
        QueryError::Internal { .. } => verdict(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "Internal"),
    }
}

fn of_upstream(kind: &ErrorKind) -> Verdict {
    const BAD: StatusCode = StatusCode::BAD_GATEWAY;
    const AWAY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    match kind {
        ErrorKind::Dns => verdict(AWAY, Code::Unavailable, "UpstreamDns"),
        ErrorKind::Connect => verdict(AWAY, Code::Unavailable, "UpstreamConnect"),
        ErrorKind::Unavailable | ErrorKind::Passing => {
            verdict(AWAY, Code::Unavailable, "UpstreamUnavailable")
        }
        ErrorKind::CircuitOpen => verdict(AWAY, Code::Unavailable, "UpstreamCircuitOpen"),
        ErrorKind::Busy => verdict(AWAY, Code::ResourceExhausted, "UpstreamBusy"),
        ErrorKind::ResourceExhausted => verdict(AWAY, Code::ResourceExhausted, "UpstreamResourceExhausted"),
        ErrorKind::Cancelled => verdict(AWAY, Code::Cancelled, "UpstreamCancelled"),
        ErrorKind::Timeout => verdict(StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded, "UpstreamTimeout"),
        ErrorKind::Tls => verdict(BAD, Code::FailedPrecondition, "UpstreamTls"),
        ErrorKind::Auth => verdict(BAD, Code::FailedPrecondition, "UpstreamAuth"),
        ErrorKind::MessageTooLarge { .. } => verdict(BAD, Code::ResourceExhausted, "UpstreamMessageTooLarge"),
        ErrorKind::Refused => verdict(StatusCode::BAD_REQUEST, Code::InvalidArgument, "UpstreamRefused"),
        ErrorKind::NotFound => verdict(BAD, Code::NotFound, "UpstreamNotFound"),
        ErrorKind::Unimplemented => verdict(BAD, Code::Unimplemented, "UpstreamUnimplemented"),
        ErrorKind::Planning => verdict(BAD, Code::Internal, "UpstreamPlanning"),
        ErrorKind::Protocol => verdict(BAD, Code::Internal, "UpstreamProtocol"),
        ErrorKind::Internal => verdict(BAD, Code::Internal, "UpstreamInternal"),
    }
}

fn client_closed() -> StatusCode {
    StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Which dataset and endpoint an error is about, where it is about one.
pub(super) fn place(error: &QueryError) -> (Option<&str>, Option<&str>) {
    match error {
        QueryError::NotReady { dataset, endpoint, .. } => (Some(dataset), endpoint.as_deref()),
        QueryError::Upstream { dataset, source } => (dataset.as_deref(), Some(&source.endpoint)),
        QueryError::Invalid { .. }
        | QueryError::NotFound { .. }
        | QueryError::ReadOnly { .. }
        | QueryError::Unsupported { .. }
        | QueryError::ResourcesExhausted { .. }
        | QueryError::Spill { .. }
        | QueryError::QueueFull { .. }
        | QueryError::QueueTimeout { .. }
        | QueryError::Timeout { .. }
        | QueryError::NotCached
        | QueryError::Cancelled
        | QueryError::ClientStalled { .. }
        | QueryError::Internal { .. } => (None, None),
    }
}

/// The text for a client; names the endpoint even where the error's own text does not.
pub(super) fn message(error: &QueryError) -> String {
    match error {
        QueryError::NotReady { endpoint: Some(endpoint), reason, .. } if !reason.contains(endpoint) => {
            format!("{error} (endpoint {endpoint})")
        }
        other => other.to_string(),
    }
}

/// The error as gRPC tells it.
pub(super) fn grpc(error: &QueryError) -> tonic::Status {
    told(of(error).grpc, message(error))
}

/// The gRPC code of rows that are not taken.
pub(super) fn of_put(error: &PutError) -> Code {
    match error {
        PutError::NotWritable { .. } | PutError::Rows(_) => Code::InvalidArgument,
        PutError::Duplicate(_) => Code::AlreadyExists,
        PutError::NotReady { .. } | PutError::Stopped { .. } => Code::Unavailable,
        PutError::NoRoom(_) => Code::ResourceExhausted,
        PutError::Failed(_) => Code::Internal,
    }
}

/// A message of any length, cut where it is too long for a header.
pub(super) fn told(code: Code, mut text: String) -> tonic::Status {
    if text.len() > GRPC_MESSAGE_BYTES_MAX {
        let end = (0..=GRPC_MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    tonic::Status::new(code, text)
}
