//! A gRPC status or HTTP head enters, an [`UpstreamError`] leaves: kind, the upstream's own words without
//! secrets, and what to do.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use tonic::{Code, Status};

use crate::name::EndpointUrl;

use super::error::{ErrorKind, Step, UpstreamError};
use super::link::chain;

/// More of an upstream's words than these are cut.
const WORDS_MAX: usize = 2000;
/// Marks an error of a Spice.ai runtime that may be retried whatever its code.
const RETRYABLE_KEY: &str = "spiceai-retryable";
/// What clients of the Flight family take as a lost connection.
const RESET_PHRASES: &[&str] = &[
    "operation was canceled",
    "http2 error",
    "grpc-status header missing",
    "received message with invalid compression flag",
    "error reading a body from connection",
    "transport error",
];

/// Where a status came from.
pub(super) struct Origin<'a> {
    pub endpoint: &'a EndpointUrl,
    /// What the params in help texts begin with.
    pub prefix: &'static str,
    /// Never shown.
    pub secrets: &'a [String],
    pub is_anonymous: bool,
}

/// What was being done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing {
    pub step: Step,
    pub method: &'static str,
    /// The largest message that is read.
    pub limit: u64,
    /// Whether batches have been seen: an INTERNAL is then no planning error.
    pub is_streaming: bool,
}

impl Origin<'_> {
    /// What a failed call means.
    pub fn error(&self, status: &Status, doing: Doing) -> UpstreamError {
        if let Some(error) = own_error(status) {
            let step = if error.step < Step::Handshake { error.step } else { doing.step };
            return UpstreamError { step, message: self.clean(&error.message), ..error.clone() };
        }
        let words = self.clean(status.message());
        let kind = kind(status, doing);
        // A connection that was lost is counted where it ends, for all of its calls.
        let step = if is_lost_connection(status) { Step::Tcp } else { doing.step };
        let message = match (&kind, words.is_empty()) {
            (ErrorKind::MessageTooLarge { found, limit }, _) => {
                return self.too_large(*found, *limit, doing, &words);
            }
            (_, true) => format!("{} failed: {}", doing.method, status.code().description()),
            (_, false) => format!("{} failed: {words}", doing.method),
        };
        let error = UpstreamError::new(kind, step, self.endpoint, message);
        match self.help(&error.kind) {
            Some(help) => error.with_help(help),
            None => error,
        }
    }

    fn help(&self, kind: &ErrorKind) -> Option<String> {
        match kind {
            ErrorKind::Auth => Some(self.auth_help()),
            ErrorKind::Unavailable | ErrorKind::Passing => {
                Some("the upstream is down, starting or overloaded; check it and try again".to_owned())
            }
            ErrorKind::Timeout => Some("the upstream's own time limit ended the call".to_owned()),
            ErrorKind::ResourceExhausted => Some(
                "the upstream lacks memory or quota for this; narrow the query or raise its limits"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn auth_help(&self) -> String {
        match (self.prefix, self.is_anonymous) {
            ("spiceai", true) => "the upstream asks for a key: set `spiceai_api_key`".to_owned(),
            ("spiceai", false) => {
                "check `spiceai_api_key`: the key may be wrong, expired or of another environment; on an \
                 upstream of your own it must stand in `runtime.auth.api-key.keys`"
                    .to_owned()
            }
            (_, true) => {
                "the upstream asks who calls: set `flightsql_username` and `flightsql_password`".to_owned()
            }
            (_, false) => "check `flightsql_username` and `flightsql_password`".to_owned(),
        }
    }

    fn too_large(&self, found: Option<u64>, limit: u64, doing: Doing, words: &str) -> UpstreamError {
        let is_ours = limit == doing.limit && words.contains("decoded message length");
        let kind = ErrorKind::MessageTooLarge { found, limit };
        let size = found.map_or_else(String::new, |found| format!(" of {found} bytes"));
        let (message, help) = match is_ours {
            true => (
                format!("a message{size} is larger than max_message_size ({limit} bytes)"),
                format!(
                    "set `max_message_size: {}` in the dataset's params or `runtime.flight.max_message_size`, \
                     or select fewer columns",
                    sufficient(found, limit)
                ),
            ),
            false => (
                format!("the upstream refuses a message{size} as too large: {words}"),
                "raise `max_message_size` on the upstream too, or select fewer columns".to_owned(),
            ),
        };
        UpstreamError::new(kind, doing.step, self.endpoint, message).with_help(help)
    }

    /// Text from outside: secrets taken out, control characters and length bounded.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), "[redacted]");
        }
        if let Some((end, _)) = text.char_indices().nth(WORDS_MAX) {
            text.truncate(end);
            text.push('…');
        }
        text.trim().replace(|c: char| c.is_control() && c != '\n', " ")
    }

    /// An answer that is not gRPC's; `None` when it is.
    pub fn check_head(&self, head: &http::response::Parts) -> Option<UpstreamError> {
        if head.headers.contains_key("grpc-status") {
            return None;
        }
        if head.status != StatusCode::OK {
            return Some(self.http_error(head.status));
        }
        let content_type =
            head.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        match content_type {
            Some(value) if value.starts_with("application/grpc") => None,
            other => {
                let found = other.map_or("nothing".to_owned(), |value| format!("`{}`", self.clean(&value)));
                let message = format!("the answer is not gRPC: its content-type is {found}");
                let error = UpstreamError::new(ErrorKind::Protocol, Step::Query, self.endpoint, message);
                Some(error.with_help("check that the port is the upstream's Flight port"))
            }
        }
    }

    /// The HTTP statuses of load balancers and gateways, by gRPC's own table.
    fn http_error(&self, status: StatusCode) -> UpstreamError {
        let (kind, help) = match status.as_u16() {
            429 | 502 | 503 | 504 => (
                ErrorKind::Unavailable,
                "a load balancer or gateway answered: is the upstream behind it up?".to_owned(),
            ),
            401 | 403 => (ErrorKind::Auth, self.auth_help()),
            404 => (
                ErrorKind::Unimplemented,
                "the server at this port has no Flight service; check host, port and gateway routes"
                    .to_owned(),
            ),
            _ => (ErrorKind::Protocol, "check that the port is the upstream's Flight port".to_owned()),
        };
        let message = format!("the answer is HTTP status {status} instead of gRPC");
        UpstreamError::new(kind, Step::Query, self.endpoint, message).with_help(help)
    }
}

/// An error of our own layers that passed through tonic.
fn own_error(status: &Status) -> Option<&UpstreamError> {
    find_source(status).filter(|_| status.code() == Code::Unknown)
}

fn find_source<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn kind(status: &Status, doing: Doing) -> ErrorKind {
    let words = status.message().to_lowercase();
    if let Some(too_large) = message_too_large(status.code(), &words, doing.limit) {
        return too_large;
    }
    if is_reset(status, &words) {
        return ErrorKind::Unavailable;
    }
    if status.metadata().contains_key(RETRYABLE_KEY) && status.code() != Code::Unavailable {
        return ErrorKind::Passing;
    }
    match status.code() {
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Auth,
        Code::InvalidArgument => ErrorKind::Refused,
        Code::NotFound => ErrorKind::NotFound,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Internal if doing.step >= Step::Schema && !doing.is_streaming => ErrorKind::Planning,
        _ => ErrorKind::Internal,
    }
}

fn is_reset(status: &Status, words: &str) -> bool {
    matches!(status.code(), Code::Internal | Code::Cancelled | Code::Unknown)
        && (RESET_PHRASES.iter().any(|phrase| words.contains(phrase))
            || find_source::<hyper::Error>(status).is_some())
}

/// Whether the connection itself ended; a stream that the server resets is no more than an answer.
fn is_lost_connection(status: &Status) -> bool {
    find_source::<hyper::Error>(status).is_some_and(|error| !chain(error).contains("stream error"))
}

/// Our own limit (`found 5 bytes, the limit is: 4 bytes`), or that of a gRPC server (`Received message
/// larger than max (5 vs. 4)`).
fn message_too_large(code: Code, words: &str, limit: u64) -> Option<ErrorKind> {
    let is_coded = matches!(code, Code::OutOfRange | Code::ResourceExhausted | Code::Internal);
    let is_worded = words.contains("message length too large")
        || words.contains("message larger than max")
        || words.contains("message exceeds maximum size");
    if !(is_coded && is_worded) {
        return None;
    }
    let start = words.find("too large").or_else(|| words.find("larger than")).unwrap_or(0);
    let mut numbers = words[start..].split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok());
    let found = numbers.next();
    Some(ErrorKind::MessageTooLarge { found, limit: numbers.next().unwrap_or(limit) })
}

/// A size in MiB that holds the message that was met, or twice the limit where its size is unknown.
fn sufficient(found: Option<u64>, limit: u64) -> String {
    const MIB: u64 = 1 << 20;
    format!("{}MiB", found.unwrap_or(limit.saturating_mul(2)).div_ceil(MIB).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, words: &str, is_streaming: bool) -> UpstreamError {
        let endpoint: EndpointUrl = "https://core:50051".parse().unwrap();
        let secrets = ["hunter2".to_owned()];
        let origin =
            Origin { endpoint: &endpoint, prefix: "spiceai", secrets: &secrets, is_anonymous: false };
        let doing = Doing { step: Step::Query, method: "DoGet", limit: 4 << 20, is_streaming };
        origin.error(&Status::new(code, words), doing)
    }

    fn kind_of(code: Code, words: &str) -> ErrorKind {
        error(code, words, false).kind
    }

    #[test]
    fn the_reset_family_counts_as_unavailable() {
        for words in [
            "h2 protocol error: HTTP2 Error: stream error",
            "grpc-status header missing, mapped from HTTP status code 200",
            "error reading a body from connection: reset",
            "Transport error",
        ] {
            for code in [Code::Internal, Code::Cancelled, Code::Unknown] {
                assert_eq!(kind_of(code, words), ErrorKind::Unavailable, "{words}");
            }
            assert_eq!(kind_of(Code::InvalidArgument, words), ErrorKind::Refused);
        }
    }

    #[test]
    fn internal_is_planning_until_batches_flow() {
        assert_eq!(kind_of(Code::Internal, "no"), ErrorKind::Planning);
        assert_eq!(error(Code::Internal, "no", true).kind, ErrorKind::Internal);
        assert_eq!(kind_of(Code::ResourceExhausted, "no"), ErrorKind::ResourceExhausted);
        assert_eq!(kind_of(Code::DeadlineExceeded, "no"), ErrorKind::Timeout);
        assert_eq!(kind_of(Code::DataLoss, "no"), ErrorKind::Internal);
    }

    #[test]
    fn other_peoples_message_limits_are_known() {
        let kind = kind_of(Code::ResourceExhausted, "Received message larger than max (5242880 vs. 4194304)");
        assert_eq!(kind, ErrorKind::MessageTooLarge { found: Some(5_242_880), limit: 4_194_304 });
        let words = "Error, encoded message length too large: found 9 bytes, the limit is: 8 bytes";
        insta::assert_snapshot!(error(Code::OutOfRange, words, true), @"upstream https://core:50051: the upstream refuses a message of 9 bytes as too large: Error, encoded message length too large: found 9 bytes, the limit is: 8 bytes (raise `max_message_size` on the upstream too, or select fewer columns)");
    }

    #[test]
    fn words_from_outside_are_cleaned_and_bounded() {
        let long = format!("key hunter2 \u{7}{}", "x".repeat(10_000));
        let message = error(Code::Internal, &long, false).message;
        assert!(message.starts_with("DoGet failed: key [redacted]  xxx"), "{message}");
        assert!(message.chars().count() < 2100);
    }
}
