//! What can go wrong between here and an upstream, in words that say what to do.

use std::fmt;

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Dns,
    Tcp,
    Tls,
    Handshake,
    Schema,
    Query,
}

/// What kind of failure it was: decides retry, fallback and status codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The name does not resolve.
    Dns,
    /// No address answers.
    Connect,
    /// The certificate or the TLS handshake.
    Tls,
    /// UNAUTHENTICATED or PERMISSION_DENIED.
    Auth,
    /// UNAVAILABLE and what counts as it: resets, HTTP 502/503/504 of a load balancer.
    Unavailable,
    /// Nothing was sent: the endpoint has failed too often, and the next probe is not due.
    CircuitOpen,
    /// Nothing was sent: as many calls as may be are under way, and none ended in time.
    Busy,
    /// What the upstream itself says passes (`spiceai-retryable`): a trouble of this statement, no sign that the
    /// upstream is away.
    Passing,
    /// DEADLINE_EXCEEDED.
    Timeout,
    /// A message above `max_message_size`, in bytes; `found` where the size is known.
    MessageTooLarge {
        found: Option<u64>,
        limit: u64,
    },
    /// INVALID_ARGUMENT: the upstream refuses the statement.
    Refused,
    NotFound,
    /// UNIMPLEMENTED.
    Unimplemented,
    /// INTERNAL while planning, before the first batch.
    Planning,
    ResourceExhausted,
    Cancelled,
    /// The answer is not Flight, or not what was promised.
    Protocol,
    /// Any other failure of the upstream.
    Internal,
}

impl ErrorKind {
    /// What metrics call it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Unavailable => "unavailable",
            Self::CircuitOpen => "circuit_open",
            Self::Busy => "busy",
            Self::Passing => "passing",
            Self::Timeout => "timeout",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Unimplemented => "unimplemented",
            Self::Planning => "planning",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Cancelled => "cancelled",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }
}

/// A failed call; shared between waiters, hence cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamError {
    pub kind: ErrorKind,
    pub step: Step,
    /// `https://host:port`.
    pub endpoint: String,
    /// What happened, without secrets; the upstream's own words where it spoke.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl UpstreamError {
    pub(super) fn new(
        kind: ErrorKind,
        step: Step,
        endpoint: impl fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, step, endpoint: endpoint.to_string(), message: message.into(), help: None }
    }

    #[must_use]
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the upstream cannot plan the statement: said in other words it may be answered. Away, busy or
    /// forbidding is no refusal: other words would only load it more.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused | ErrorKind::Unimplemented | ErrorKind::Planning)
    }

    /// Whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Dns
                | ErrorKind::Connect
                | ErrorKind::Unavailable
                | ErrorKind::Passing
                | ErrorKind::Timeout
        )
    }

    /// Whether another endpoint with the same data may answer what this one did not.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Dns
                | ErrorKind::Connect
                | ErrorKind::Tls
                | ErrorKind::Unavailable
                | ErrorKind::CircuitOpen
        )
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {}: {}", self.endpoint, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}
