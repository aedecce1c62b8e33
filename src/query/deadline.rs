//! `runtime.query.timeout`: one moment for the whole of a query, its waiting included.

use std::time::Duration;

use tokio::time::Instant;

use super::QueryError;

/// When a query must have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub at: Instant,
    /// What was allowed.
    pub timeout: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    fn error(self) -> QueryError {
        QueryError::Timeout { seconds: self.timeout.as_secs_f64() }
    }
}

/// The work, or the deadline's error when it comes first.
pub(super) async fn within<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    match deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline.at, work).await.unwrap_or_else(|_| Err(deadline.error()))
        }
        None => work.await,
    }
}
