//! The change batches of a stock upstream: `op`, `primary_keys` and `data` enter, runs of one kind leave in order.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, StructArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;

/// Neighbouring rows of one kind.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// `t`: the table begins anew.
    Truncate,
    /// `r` and `c`: rows of the table, under the names that they came with.
    Rows(RecordBatch),
    /// `u`, `d`, what is unknown, and rows without data: so many.
    Ignored(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Truncate,
    Row,
    Other,
}

/// The changes of one batch.
///
/// # Errors
/// A batch that has another form, in words.
pub(super) fn changes(batch: &RecordBatch) -> Result<Vec<Change>, String> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            let there: Vec<String> =
                batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            format!("a change has no column `{name}`; it has {}", there.join(", "))
        })
    };
    let (op, data) = (column("op")?, column("data")?);
    let op = cast(op, &DataType::Utf8).map_err(|error| format!("`op` is no text: {error}"))?;
    let data = data.as_struct_opt().ok_or_else(|| format!("`data` is no struct but {}", data.data_type()))?;
    let ops = op.as_string::<i32>();
    let mut found = Vec::new();
    let mut from = 0;
    while from < batch.num_rows() {
        let to = run(ops, from);
        let change = match kind(ops, from) {
            Op::Truncate => vec![Change::Truncate],
            Op::Row => rows(&data.slice(from, to - from)).map_err(|error| error.to_string())?,
            Op::Other => vec![Change::Ignored(to - from)],
        };
        found.extend(change);
        from = to;
    }
    Ok(found)
}

/// Where the run that begins at `from` ends.
fn run(ops: &StringArray, from: usize) -> usize {
    let first = kind(ops, from);
    (from + 1..ops.len()).find(|at| kind(ops, *at) != first).unwrap_or(ops.len())
}

fn kind(ops: &StringArray, at: usize) -> Op {
    match ops.is_valid(at).then(|| ops.value(at)) {
        Some("r" | "c") => Op::Row,
        Some("t") => Op::Truncate,
        _ => Op::Other,
    }
}

/// The rows of `data`, and how many are none.
fn rows(data: &StructArray) -> Result<Vec<Change>, ArrowError> {
    let schema = Arc::new(Schema::new(data.fields().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(data.len()));
    let batch = RecordBatch::try_new_with_options(schema, data.columns().to_vec(), &options)?;
    if data.null_count() == 0 {
        return Ok(vec![Change::Rows(batch)]);
    }
    let there: BooleanArray = (0..data.len()).map(|at| Some(data.is_valid(at))).collect();
    Ok(vec![Change::Rows(filter_record_batch(&batch, &there)?), Change::Ignored(data.null_count())])
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::Field;

    use super::*;

    fn batch(ops: &[&str], nulls: &[bool]) -> RecordBatch {
        let fields = vec![Field::new("n", DataType::Int64, true)].into();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ops.len() as i64));
        let data = StructArray::new(fields, vec![numbers], Some(NullBuffer::from(nulls.to_vec())));
        let ops: ArrayRef = Arc::new(StringViewArray::from_iter_values(ops));
        RecordBatch::try_from_iter([("op", ops), ("data", Arc::new(data) as ArrayRef)]).unwrap()
    }

    fn shown(ops: &[&str], nulls: &[bool]) -> String {
        let show = |change: Change| match change {
            Change::Truncate => "truncate".to_owned(),
            Change::Ignored(rows) => format!("ignored {rows}"),
            Change::Rows(batch) => {
                let numbers = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
                format!("rows {:?}", &numbers.values()[..])
            }
        };
        let all: Vec<String> = changes(&batch(ops, nulls)).unwrap().into_iter().map(show).collect();
        all.join(", ")
    }

    #[test]
    fn runs_come_in_order() {
        assert_eq!(shown(&["r", "c", "r"], &[true; 3]), "rows [0, 1, 2]");
        assert_eq!(
            shown(&["t", "r", "d", "u", "x", "c"], &[false, true, true, true, true, true]),
            "truncate, rows [1], ignored 3, rows [5]"
        );
        assert_eq!(shown(&["r", "r", "r"], &[true, false, true]), "rows [0, 2], ignored 1");
        assert_eq!(shown(&[], &[]), "");
    }

    #[test]
    fn other_batches_are_refused_in_words() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let plain = RecordBatch::try_from_iter([("n", Arc::clone(&numbers))]).unwrap();
        assert_eq!(changes(&plain).unwrap_err(), "a change has no column `op`; it has n");
        let flat = RecordBatch::try_from_iter([("op", Arc::clone(&numbers)), ("data", numbers)]).unwrap();
        assert_eq!(changes(&flat).unwrap_err(), "`data` is no struct but Int64");
    }
}
