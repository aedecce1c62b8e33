//! Where a stream of rows is cut into chunks: by what the rows are, not by where they stand.
//!
//! A cut follows a row whose hash has some bits zero. Rows that came or went elsewhere do not move it, so that a table
//! that changed in one place falls into the same chunks everywhere else.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::{hash, shape};

/// No chunk has more rows, the last batch that an operator gets is not larger.
const ROWS_MAX: usize = 64 * 1024;
/// A chunk of long rows has about this many bytes at most.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// However long the rows.
const ROWS_MAX_LEAST: usize = 64;

/// The least and the greatest number of rows of a chunk. The mean is about three eighths of the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    rows_max: usize,
}

/// Collects rows until a chunk of them is whole.
#[derive(Debug)]
pub(super) struct Cutter {
    size: Option<Size>,
    open: Cut,
}

/// The rows of one chunk, still in the batches that they came in.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub pieces: Vec<RecordBatch>,
    pub fingerprint: u64,
    rows: usize,
    bytes: usize,
}

impl Size {
    /// For rows as long as those of `batch`.
    fn of(batch: &RecordBatch) -> Self {
        let row = shape::bytes(batch) / batch.num_rows().max(1);
        let rows = (BYTES_MAX / row.max(1)).clamp(ROWS_MAX_LEAST, ROWS_MAX);
        // A power of two: about the same length of rows gives the same size.
        Self { rows_max: 1 << rows.ilog2() }
    }

    /// The smallest size, so that a test needs few rows for many chunks.
    #[cfg(test)]
    pub(super) fn least() -> Self {
        Self { rows_max: ROWS_MAX_LEAST }
    }

    pub(super) fn rows_min(self) -> usize {
        self.rows_max / 8
    }

    fn ends(self, rows: usize, hash: u64) -> bool {
        let mask = self.rows_max as u64 / 4 - 1;
        rows >= self.rows_max || (rows >= self.rows_min() && hash & mask == 0)
    }
}

impl Cutter {
    /// With the size of the generation before, so that equal rows are cut alike; else with one for the first rows.
    pub(super) fn new(size: Option<Size>) -> Self {
        Self { size, open: Cut::default() }
    }

    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Settles the size by the first rows, without taking them.
    pub(super) fn measure(&mut self, batch: &RecordBatch) {
        self.size.get_or_insert_with(|| Size::of(batch));
    }

    /// Bytes that the rows since the last cut keep in memory, where batches that share buffers count as if they
    /// did not.
    pub(super) fn held(&self) -> usize {
        self.open.bytes
    }

    /// The chunks that `batch` completes.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<Vec<Cut>> {
        let size = *self.size.get_or_insert_with(|| Size::of(batch));
        let bytes = shape::bytes(batch);
        let mut cuts = Vec::new();
        // Rows that are suddenly far longer than the first ones.
        if self.open.rows > 0 && self.open.bytes + bytes > 4 * BYTES_MAX {
            cuts.push(std::mem::take(&mut self.open));
        }
        let mut from = 0;
        for (at, row) in hash::of_rows(batch.columns(), batch.num_rows())?.into_iter().enumerate() {
            self.open.fingerprint = hash::followed_by(self.open.fingerprint, row);
            self.open.rows += 1;
            if size.ends(self.open.rows, row) {
                self.open.pieces.push(batch.slice(from, at + 1 - from));
                cuts.push(std::mem::take(&mut self.open));
                from = at + 1;
            }
        }
        if from < batch.num_rows() {
            self.open.pieces.push(batch.slice(from, batch.num_rows() - from));
            self.open.bytes += bytes;
        }
        Ok(cuts)
    }

    /// The rows since the last cut.
    pub(super) fn rest(&mut self) -> Option<Cut> {
        (self.open.rows > 0).then(|| std::mem::take(&mut self.open))
    }
}

/// The fingerprint that a cut of just these rows would have.
pub(super) fn fingerprint(batch: &RecordBatch) -> Result<u64> {
    let rows = hash::of_rows(batch.columns(), batch.num_rows())?;
    Ok(rows.into_iter().fold(0, hash::followed_by))
}
