//! Rows as they are kept: copied out of the buffers that they came in, and no longer than they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::utils::memory::get_record_batch_memory_size;

/// One batch of all rows of `pieces`, in buffers of its own: a slice of a Flight message would keep the whole message.
pub(crate) fn owned(schema: &SchemaRef, pieces: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let rows = pieces.iter().map(RecordBatch::num_rows).sum();
    let columns = (0..schema.fields().len()).map(|at| owned_column(&column(pieces, at)));
    let columns = columns.collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// A column in the pieces that it stands in.
pub(super) fn column(pieces: &[RecordBatch], at: usize) -> Vec<ArrayRef> {
    pieces.iter().map(|piece| Arc::clone(piece.column(at))).collect()
}

/// Bytes of all buffers, a shared one counted once.
pub(crate) fn bytes(batch: &RecordBatch) -> usize {
    get_record_batch_memory_size(batch)
}

/// The columns of `batch` under `schema`, or why they do not fit. Names may differ in nothing, nullability may: what
/// counts is that no NULL stands where none may.
pub(crate) fn fitted(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let given = batch.schema();
    if given.fields().len() != schema.fields().len() {
        return Err(format!(
            "a batch of {} columns, {} expected",
            given.fields().len(),
            schema.fields().len()
        ));
    }
    let other =
        schema.fields().iter().zip(given.fields()).find(|(wanted, given)| wanted.name() != given.name());
    if let Some((wanted, given)) = other {
        return Err(format!("a batch with column `{}`, `{}` expected", given.name(), wanted.name()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| error.to_string())
}

/// The same of one column, in pieces of one type.
pub(super) fn owned_column(pieces: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let joined = match pieces {
        // Of one array `concat` gives a slice; of two, a copy.
        [one] => {
            let half = one.len() / 2;
            concat(&[one.slice(0, half).as_ref(), one.slice(half, one.len() - half).as_ref()])?
        }
        several => concat(&several.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    };
    let mut tight = collected(&joined)?;
    tight.shrink_to_fit();
    Ok(tight)
}

/// Views copied out of the buffers that they point into, at any depth.
fn collected(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc())),
        DataType::BinaryView => Ok(Arc::new(array.as_binary_view().gc())),
        kind if kind.is_nested() => {
            let data = array.to_data();
            let children =
                data.child_data().iter().map(|child| Ok(collected(&make_array(child.clone()))?.to_data()));
            let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
            Ok(make_array(data.into_builder().child_data(children).build()?))
        }
        _ => Ok(Arc::clone(array)),
    }
}
