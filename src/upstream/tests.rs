//! Tests over real sockets: the scripted server at one end, this room at the other.

mod answers;
mod auth;
pub(super) mod exchange;
mod protection;
mod rules;
mod tls;
mod trouble;

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::{Upstream, UpstreamError};

/// The whole answer.
async fn collect(upstream: &Arc<Upstream>, sql: &str) -> Result<Vec<RecordBatch>, UpstreamError> {
    upstream.query(sql).await?.batches.try_collect().await
}

async fn count(upstream: &Arc<Upstream>, sql: &str) -> Result<usize, UpstreamError> {
    Ok(collect(upstream, sql).await?.iter().map(RecordBatch::num_rows).sum())
}

/// The error with the changing port taken out.
fn text(error: &UpstreamError, port: u16) -> String {
    error.to_string().replace(&port.to_string(), "PORT")
}
