//! An answer on its way out: batches enter, pieces of its body leave, each as large as is good for a socket.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::accept::Format;
use super::encode::Encoder;
use crate::query::{Answer, Batches, QueryError};

/// Rows of the first piece: it is soon there. Later ones follow the size that rows turned out to have.
const ROWS_START: usize = 1024;
const ROWS_MAX: usize = 8192;
/// A piece is larger only where one row is, or where rows suddenly are.
const PIECE_BYTES_MAX: usize = 512 * 1024;

/// The body of an answer; dropping it drops the query.
///
/// # Errors
/// What the format cannot hold.
pub(super) fn pieces(
    answer: Answer,
    format: Format,
) -> Result<impl Stream<Item = Result<Bytes, QueryError>> + Send, QueryError> {
    let encoder = Encoder::try_new(format, &answer.schema).map_err(unwritable)?;
    let batches = Some(answer.into_batches());
    let outgoing = Outgoing { batches, encoder, rest: None, rows: ROWS_START };
    Ok(stream::try_unfold(outgoing, |mut outgoing| async move {
        let piece = outgoing.next().await?;
        Ok(piece.map(|piece| (piece, outgoing)))
    }))
}

struct Outgoing {
    /// None after the end.
    batches: Option<Batches>,
    encoder: Encoder,
    /// What is left of the current batch.
    rest: Option<RecordBatch>,
    rows: usize,
}

impl Outgoing {
    /// The next piece, `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, QueryError> {
        loop {
            if let Some(batch) = self.rest.take() {
                let piece = self.encode_head(&batch)?;
                if self.encoder.is_full() {
                    self.rest = None;
                    return self.finish().map(Some);
                }
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
                continue;
            }
            let Some(batches) = &mut self.batches else { return Ok(None) };
            match batches.next().await.transpose()? {
                Some(batch) => self.rest = (batch.num_rows() > 0).then_some(batch),
                None => return self.finish().map(Some),
            }
        }
    }

    /// Encodes the first rows of `batch`, and keeps the others.
    fn encode_head(&mut self, batch: &RecordBatch) -> Result<Bytes, QueryError> {
        let rows = self.rows.min(batch.num_rows());
        let left = batch.num_rows() - rows;
        self.rest = (left > 0).then(|| batch.slice(rows, left));
        let piece = self.encoder.encode(&batch.slice(0, rows)).map_err(unwritable)?;
        self.rows = match piece.len() {
            long if long > PIECE_BYTES_MAX => (rows * (PIECE_BYTES_MAX >> 10) / (long >> 10)).max(1),
            short if short < PIECE_BYTES_MAX / 4 && rows == self.rows => (rows * 2).min(ROWS_MAX),
            _ => self.rows,
        };
        Ok(piece)
    }

    fn finish(&mut self) -> Result<Bytes, QueryError> {
        self.batches = None;
        self.encoder.finish().map_err(unwritable)
    }
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
