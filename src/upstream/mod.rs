//! Verified, authenticated Flight connections: a dataset's params enter, schemas and batches leave.
//!
//! The only room that opens outward sockets for data and that knows tonic's client.

mod error;
mod target;

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;

pub use error::{ErrorKind, Step, UpstreamError};
pub use target::{Credentials, Flavor, RemoteTableName, Target, UpstreamId};

/// Every live channel of the process, one per [`UpstreamId`].
pub struct Pool {}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// The connection for `target`, sharing the channel of any equal target. No I/O.
    ///
    /// # Errors
    /// Certificates and keys that cannot be used: a config mistake.
    pub fn connect(&self, _target: &Target) -> Result<Arc<Upstream>, UpstreamError> {
        todo!()
    }
}

/// One dataset's view of a shared channel: same socket and credentials, its own message size limit.
pub struct Upstream {}

/// What an upstream promises of one statement.
#[derive(Debug, Clone)]
pub struct Planned {
    pub schema: SchemaRef,
    /// From FlightInfo; `None` where the upstream does not know (negative, or 0 on a server that never counts).
    pub total_records: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// Batches as they arrive. The first one is already here: nothing is retried any more.
pub struct RemoteStream {
    /// What FlightInfo promised.
    pub promised: SchemaRef,
    /// What the stream says of itself: the schema of every batch.
    pub schema: SchemaRef,
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, UpstreamError>> + Send>>,
}

impl Upstream {
    /// What makes two datasets answerable by one statement.
    #[must_use]
    pub fn id(&self) -> &UpstreamId {
        todo!()
    }

    /// `https://host:port`, for messages.
    #[must_use]
    pub fn endpoint(&self) -> String {
        todo!()
    }

    /// The largest gRPC message that this dataset takes, in bytes.
    #[must_use]
    pub fn max_message_size(&self) -> u64 {
        todo!()
    }

    #[must_use]
    pub fn flavor(&self) -> Flavor {
        todo!()
    }

    /// DNS, TCP, TLS and the handshake, one after the other, on a connection of its own;
    /// `seen` hears each step that succeeded.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn verify(&self, _seen: impl FnMut(Step, String) + Send) -> Result<(), UpstreamError> {
        todo!()
    }

    /// The schema of a remote table: GetSchema for `spice.ai`, CommandGetTables for `flightsql`, with
    /// `sql` (`SELECT * FROM t`) through GetFlightInfo where the server does not answer that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a table that is not there, otherwise what the call met.
    pub async fn table_schema(
        &self,
        _table: &RemoteTableName,
        _sql: &str,
    ) -> Result<SchemaRef, UpstreamError> {
        todo!()
    }

    /// GetFlightInfo of `sql`, retried.
    ///
    /// # Errors
    /// What the last attempt met.
    pub async fn plan(&self, _sql: &str) -> Result<Planned, UpstreamError> {
        todo!()
    }

    /// GetFlightInfo and DoGet of every endpoint of `sql`, retried until the first batch is here.
    ///
    /// # Errors
    /// What the last attempt met; after the first batch errors are items of the stream.
    pub async fn query(&self, _sql: &str) -> Result<RemoteStream, UpstreamError> {
        todo!()
    }
}
