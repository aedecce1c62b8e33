//! The rows of an answer on their way: batches, or the messages that they travel in.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};

use super::{Protocol, QueryError};
use crate::wire::Part;

/// What happens one after the other, and may fail.
pub(super) type Items<T> = Pin<Box<dyn Stream<Item = Result<T, QueryError>> + Send>>;

/// Batches of an answer; ends after the first error.
pub type Batches = Items<RecordBatch>;

/// Batches, or messages that are handed on; ends after the first error.
pub type Parts = Items<Part>;

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Batches,
    /// Messages too, as an upstream sent them.
    Messages,
}

impl Form {
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Flight | Protocol::FlightSql => Self::Messages,
            Protocol::Http | Protocol::Mcp | Protocol::Internal => Self::Batches,
        }
    }
}

pub(super) fn of_batches(batches: Batches) -> Parts {
    batches.map(|batch| batch.map(Part::Batch)).boxed()
}

/// All of them decoded.
pub(super) fn into_batches(parts: Parts, schema: SchemaRef) -> Batches {
    let decode = move |part: Part| {
        part.batch(&schema).map_err(|error| QueryError::Internal {
            message: format!("a message of the upstream cannot be decoded: {error}"),
        })
    };
    parts.map(move |part| part.and_then(&decode)).boxed()
}
