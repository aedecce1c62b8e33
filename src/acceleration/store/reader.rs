//! The rows of one partition of a scan, batch by batch.

use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::chosen::Chosen;
use super::numbered::Numbered;
use super::scan::{ChunkScan, Piece};
use super::sieve::Sieve;
use super::{Chunk, Generation};

/// So many pieces, and others have their turn.
const PIECES_PER_TURN: usize = 16;

/// Reads the pieces in their order. Few rows of each are put together to batches worth the while.
pub(super) struct Reader {
    generation: Arc<Generation>,
    schema: SchemaRef,
    columns: Arc<[usize]>,
    numbered: Arc<[Numbered]>,
    pieces: std::vec::IntoIter<Piece>,
    sieve: Sieve,
    batches: BatchCoalescer,
    /// Rows that are still wanted.
    left: usize,
    /// Pieces that may be read before others have their turn.
    turn: usize,
    metrics: BaselineMetrics,
}

impl Reader {
    pub(super) fn new(
        scan: &ChunkScan,
        pieces: Vec<Piece>,
        batch_rows: usize,
        metrics: BaselineMetrics,
    ) -> Self {
        let batches = BatchCoalescer::new(Arc::clone(&scan.schema), batch_rows)
            .with_biggest_coalesce_batch_size(Some(batch_rows / 2));
        // What has much to read lets others go on first: a task that waited for the same join wakes up behind this one, on
        // the same thread, and would stay there until this one is done.
        let turn = if pieces.len() > PIECES_PER_TURN { 0 } else { PIECES_PER_TURN };
        Self {
            generation: Arc::clone(&scan.generation),
            schema: Arc::clone(&scan.schema),
            columns: Arc::clone(&scan.columns),
            numbered: Arc::clone(&scan.numbered),
            pieces: pieces.into_iter(),
            sieve: Sieve::new(&scan.filters),
            batches,
            left: scan.fetch.unwrap_or(usize::MAX),
            turn,
            metrics,
        }
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let timer = self.metrics.elapsed_compute().clone();
        let _timer = timer.timer();
        loop {
            if let Some(batch) = self.batches.next_completed_batch() {
                self.metrics.record_output(batch.num_rows());
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.turn == 0 {
                self.turn = PIECES_PER_TURN;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.turn -= 1;
            match self.read_on() {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(None),
                Err(error) => {
                    self.left = 0;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Reads one more piece, or puts out what is left; false where nothing is.
    fn read_on(&mut self) -> Result<bool> {
        let piece = if self.left == 0 { None } else { self.pieces.next() };
        let Some(piece) = piece else {
            self.batches.finish_buffered_batch()?;
            return Ok(self.batches.has_completed_batch());
        };
        let (at, rows) = match piece {
            Piece::Whole(at) => (at, Chosen::First(self.generation.chunks()[at].rows())),
            Piece::Rows(at, rows) => (at, Chosen::At(rows)),
        };
        let chunk = &self.generation.chunks()[at];
        let chosen = self.sieve.sift(chunk, rows)?.at_most(self.left);
        if !chosen.is_empty() {
            self.left -= chosen.len();
            self.batches.push_batch(self.rows((at, chunk), &chosen)?)?;
        }
        Ok(true)
    }

    /// Of the chunk at `at` in the generation.
    fn rows(&self, (at, chunk): (usize, &Chunk), chosen: &Chosen) -> Result<RecordBatch, ArrowError> {
        if self.numbered.is_empty() {
            return chunk.read(&self.schema, &self.columns, chosen);
        }
        let read =
            self.columns.iter().zip(self.schema.fields()).enumerate().map(|(output, (column, field))| {
                let numbers = self.numbered.iter().find_map(|set| set.read(output, (at, chunk), chosen));
                numbers.unwrap_or_else(|| chunk.column(*column, field.data_type(), chosen))
            });
        RecordBatch::try_new(Arc::clone(&self.schema), read.collect::<Result<_, _>>()?)
    }
}
