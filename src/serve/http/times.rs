//! Dates and times that no calendar here reaches: an error, where Arrow would write `ERROR: …` as a value.
//!
//! What can be written is one unbroken range for every type, so the least and the greatest value tell.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Finds values that cannot be written as text, in columns at any depth.
pub(super) fn check(batch: &RecordBatch) -> Result<(), ArrowError> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if !is_writable(column)? {
            return Err(ArrowError::NotYetImplemented(format!(
                "column `{}` holds a date or time too far away to be written as text: ask over Flight, \
                 or for the number behind it, for example CAST({0} AS BIGINT)",
                field.name()
            )));
        }
    }
    Ok(())
}

fn is_writable(array: &ArrayRef) -> Result<bool, ArrowError> {
    let of = array.data_type();
    if is_time(of) {
        return ends_are_writable(array);
    }
    if !of.is_nested() && !matches!(of, DataType::Dictionary(..)) {
        return Ok(true);
    }
    for child in array.to_data().child_data() {
        if !is_writable(&make_array(child.clone()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_time(of: &DataType) -> bool {
    use DataType::{Date32, Date64, Duration, Time32, Time64, Timestamp};
    matches!(of, Date32 | Date64 | Duration(_) | Time32(_) | Time64(_) | Timestamp(..))
}

fn ends_are_writable(array: &ArrayRef) -> Result<bool, ArrowError> {
    let numbers = cast(array, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let valid = || numbers.iter().enumerate().filter_map(|(row, number)| Some((number?, row)));
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    let mut ends = valid().min().into_iter().chain(valid().max());
    Ok(ends.all(|(_, row)| formatter.value(row).try_to_string().is_ok()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;

    use super::*;

    fn refused(array: impl Array + 'static) -> bool {
        let batch = RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap();
        check(&batch).is_err()
    }

    #[test]
    fn far_times_are_found_wherever_they_stand() {
        assert!(refused(TimestampSecondArray::from(vec![Some(0), Some(i64::MAX), None])));
        assert!(refused(TimestampMillisecondArray::from(vec![i64::MIN]).with_timezone("+02:00")));
        assert!(refused(Date32Array::from(vec![i32::MAX])));
        assert!(refused(Time64MicrosecondArray::from(vec![-1])));
        let keys = Int8Array::from(vec![0]);
        assert!(refused(DictionaryArray::new(keys, Arc::new(Date64Array::from(vec![i64::MAX])))));
        let far = Some(vec![Some(0), Some(i64::MIN)]);
        let list = ListArray::from_iter_primitive::<arrow::datatypes::TimestampSecondType, _, _>([far]);
        assert!(refused(list));
    }

    #[test]
    fn ordinary_times_and_numbers_pass() {
        assert!(!refused(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX])));
        assert!(!refused(TimestampSecondArray::from(vec![None, Some(253_402_300_799)])));
        assert!(!refused(Date32Array::from(vec![None, Some(-1)])));
        assert!(!refused(Date32Array::from(Vec::<i32>::new())));
        assert!(!refused(Int64Array::from(vec![i64::MAX])));
    }
}
