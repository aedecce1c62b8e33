//! Some rows of a table, immutable, and what is known of them without reading them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::scalar::ScalarValue;

use crate::acceleration::chunk_id::ChunkId;

use super::budget::{Budget, Lease};
use super::chosen::Chosen;
use super::coded::{self, Coded};
use super::layout::Layout;
use super::time::{Span, nanoseconds};
use super::{StoreError, shape};

/// A longest and a shortest text are kept beside a chunk only when they are this short, in bytes.
const SUMMARY_VALUE_BYTES_MAX: usize = 1024;

/// A chunk and the memory that it holds; shared by every generation that has these rows.
#[derive(Debug)]
pub(crate) struct Chunk {
    id: ChunkId,
    schema: SchemaRef,
    rows: usize,
    /// In the types of the schema, or as codes.
    stored: Vec<ArrayRef>,
    columns: Vec<Summary>,
    span: Option<Span>,
    fingerprint: u64,
    bytes: usize,
    _lease: Lease,
}

/// What is known of one column of a chunk.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    /// Least and greatest value as SQL's `min` and `max` see them; none where all are NULL, where the type has no
    /// order worth keeping, or where they are long.
    pub bounds: Option<(ScalarValue, ScalarValue)>,
    pub nulls: usize,
    pub bytes: usize,
}

impl Chunk {
    /// Copies `pieces` (of the layout's schema, at least one row) into buffers of their own.
    ///
    /// # Errors
    /// [`StoreError::Memory`], [`StoreError::Time`], or a kernel's failure.
    pub(super) fn build(
        layout: &Layout,
        pieces: &[RecordBatch],
        fingerprint: u64,
        budget: &Budget,
    ) -> Result<Arc<Self>, StoreError> {
        let rows = pieces.iter().map(RecordBatch::num_rows).sum();
        let columns = 0..layout.schema().fields().len();
        let columns = columns.map(|at| Kept::of(layout, at, &shape::column(pieces, at)));
        let columns = columns.collect::<Result<_, ArrowError>>().map_err(StoreError::arrow(layout.name()))?;
        Self::of(layout, ChunkId::fresh(), rows, columns, fingerprint, budget)
    }

    /// The same for a batch that owns its buffers.
    pub(super) fn keep(
        layout: &Layout,
        id: ChunkId,
        batch: RecordBatch,
        fingerprint: u64,
        budget: &Budget,
    ) -> Result<Arc<Self>, StoreError> {
        let rows = batch.num_rows();
        let columns = batch.columns().iter().enumerate().map(|(at, column)| Kept::owned(layout, at, column));
        Self::of(layout, id, rows, columns.collect(), fingerprint, budget)
    }

    fn of(
        layout: &Layout,
        id: ChunkId,
        rows: usize,
        kept: Vec<Kept>,
        fingerprint: u64,
        budget: &Budget,
    ) -> Result<Arc<Self>, StoreError> {
        let bytes = kept.iter().map(|column| column.stored.get_buffer_memory_size()).sum();
        let lease = budget.lease(bytes)?;
        let span = layout.time().map(|time| nanoseconds(layout, time, &kept[time.column].stored));
        let span = span.transpose()?.map(|times| Span::of(&times));
        let schema = Arc::clone(layout.schema());
        let columns = kept.iter().zip(schema.fields()).map(|(kept, field)| kept.summary(field.data_type()));
        let columns = columns.collect::<Result<_>>().map_err(StoreError::compute(layout.name()))?;
        let stored = kept.into_iter().map(|column| column.stored).collect();
        Ok(Arc::new(Self { id, schema, rows, stored, columns, span, fingerprint, bytes, _lease: lease }))
    }

    pub(crate) fn id(&self) -> ChunkId {
        self.id
    }

    /// The rows, in the table's schema.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(crate) fn batch(&self) -> Result<RecordBatch, ArrowError> {
        self.all_of(&Chosen::First(self.rows))
    }

    /// Some rows, in the table's schema.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn all_of(&self, chosen: &Chosen) -> Result<RecordBatch, ArrowError> {
        let all: Vec<usize> = (0..self.stored.len()).collect();
        self.read(&self.schema, &all, chosen)
    }

    /// What [`Chunk::batch`] takes beside the chunk, in bytes: the texts that are kept as codes.
    pub(crate) fn unpacked_bytes(&self) -> usize {
        let columns = self.stored.iter().zip(self.schema.fields()).zip(&self.columns);
        let coded = columns.filter(|((stored, field), _)| stored.data_type() != field.data_type());
        coded.map(|(_, summary)| summary.bytes).sum()
    }

    /// Some rows of some columns, in the table's types: those of `schema`.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn read(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        chosen: &Chosen,
    ) -> Result<RecordBatch, ArrowError> {
        let read = columns.iter().zip(schema.fields());
        let read = read.map(|(at, field)| self.column(*at, field.data_type(), chosen));
        let options = RecordBatchOptions::new().with_row_count(Some(chosen.len()));
        let read = read.collect::<Result<Vec<_>, ArrowError>>()?;
        RecordBatch::try_new_with_options(Arc::clone(schema), read, &options)
    }

    /// Some rows of the column at `at`, of type `kind`.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn column(&self, at: usize, kind: &DataType, chosen: &Chosen) -> Result<ArrayRef, ArrowError> {
        coded::plain(&chosen.of(&self.stored[at])?, kind)
    }

    /// A column as it is kept: in the table's type, or as codes.
    pub(super) fn stored(&self, at: usize) -> &ArrayRef {
        &self.stored[at]
    }

    /// The time column or a column of a key: those are never codes.
    pub(super) fn plain(&self, at: usize) -> &ArrayRef {
        &self.stored[at]
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the buffers, a shared one counted once.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn columns(&self) -> &[Summary] {
        &self.columns
    }

    /// First and last moment; none without a time column.
    pub(super) fn span(&self) -> Option<Span> {
        self.span
    }

    /// A hash of the rows in their order.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether these are exactly the rows of `pieces`, in their order.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn holds(&self, pieces: &[RecordBatch]) -> Result<bool, ArrowError> {
        let rows: usize = pieces.iter().map(RecordBatch::num_rows).sum();
        if rows != self.rows {
            return Ok(false);
        }
        let own = self.batch()?;
        let mut at = 0;
        Ok(pieces.iter().all(|piece| {
            let own = own.slice(at, piece.num_rows());
            at += piece.num_rows();
            own.columns() == piece.columns()
        }))
    }
}

/// A column on its way into a chunk.
struct Kept {
    /// In the type of the schema, or as codes.
    stored: ArrayRef,
    plain_bytes: usize,
}

impl Kept {
    /// A copy of a column that came in `pieces`.
    fn of(layout: &Layout, at: usize, pieces: &[ArrayRef]) -> Result<Self, ArrowError> {
        Self::coded(layout, at, pieces).map_or_else(|| shape::owned_column(pieces).map(Self::plain), Ok)
    }

    fn owned(layout: &Layout, at: usize, column: &ArrayRef) -> Self {
        let coded = Self::coded(layout, at, std::slice::from_ref(column));
        coded.unwrap_or_else(|| Self::plain(Arc::clone(column)))
    }

    fn plain(stored: ArrayRef) -> Self {
        Self { plain_bytes: stored.get_buffer_memory_size(), stored }
    }

    /// What decides about rows is read row by row, and stays plain.
    fn coded(layout: &Layout, at: usize, pieces: &[ArrayRef]) -> Option<Self> {
        let is_time = layout.time().is_some_and(|time| time.column == at);
        let is_key = layout.keys().iter().any(|key| key.columns.contains(&at));
        let Coded { stored, plain_bytes } = if is_time || is_key { None } else { coded::coded(pieces) }?;
        Some(Self { stored, plain_bytes })
    }

    /// `kind` is the type of the schema. Of codes the texts are looked at: each is there for at least one row.
    fn summary(&self, kind: &DataType) -> Result<Summary> {
        let Self { stored, plain_bytes } = self;
        let bounds = match (has_order(kind), stored.as_any_dictionary_opt()) {
            (false, _) => None,
            (true, Some(codes)) => bounds(&cast(codes.values(), kind)?)?,
            (true, None) => bounds(stored)?,
        };
        Ok(Summary { bounds, nulls: stored.logical_null_count(), bytes: *plain_bytes })
    }
}

/// The very accumulators that answer `min` and `max`: a query must not see a difference.
fn bounds(column: &ArrayRef) -> Result<Option<(ScalarValue, ScalarValue)>> {
    let mut least = MinAccumulator::try_new(column.data_type())?;
    let mut greatest = MaxAccumulator::try_new(column.data_type())?;
    least.update_batch(std::slice::from_ref(column))?;
    greatest.update_batch(std::slice::from_ref(column))?;
    let (least, greatest) = (least.evaluate()?, greatest.evaluate()?);
    let known = !least.is_null() && !greatest.is_null();
    let short = least.size() + greatest.size() <= 2 * (size_of::<ScalarValue>() + SUMMARY_VALUE_BYTES_MAX);
    Ok((known && short).then_some((least, greatest)))
}

fn has_order(kind: &DataType) -> bool {
    match kind {
        DataType::Null | DataType::Interval(_) | DataType::Dictionary(..) => false,
        kind => !kind.is_nested(),
    }
}
