//! Brings what an upstream sent into the schema that was promised.
//!
//! Some servers promise `string_view` and send `large_utf8`, or decode dictionaries on the way. Such
//! spellings of the same values are cast; anything else is an error of the upstream, never a guess.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;

/// Turns batches of one schema into batches of another, column by column.
#[derive(Debug)]
pub(crate) struct Aligner {
    to: SchemaRef,
    /// Whether each column is already right.
    same: Vec<bool>,
    /// Nothing is to be done but to say the promised schema.
    rename_only: bool,
}

impl Aligner {
    /// From the schema of a stream to the promised one, matched by position.
    ///
    /// # Errors
    /// Says which column differs and how.
    pub(crate) fn try_new(from: &Schema, to: SchemaRef) -> Result<Self, String> {
        if from.fields().len() != to.fields().len() {
            return Err(format!(
                "the upstream sent {} columns where {} were promised",
                from.fields().len(),
                to.fields().len()
            ));
        }
        let mut same = Vec::with_capacity(to.fields().len());
        for (sent, promised) in from.fields().iter().zip(to.fields()) {
            let equal = sent.data_type() == promised.data_type();
            if !equal && !is_respelling(sent.data_type(), promised.data_type()) {
                return Err(format!(
                    "the upstream sent column `{}` as {} where {} was promised",
                    promised.name(),
                    sent.data_type(),
                    promised.data_type()
                ));
            }
            same.push(equal);
        }
        let rename_only = same.iter().all(|same| *same);
        Ok(Self { to, same, rename_only })
    }

    /// One batch in the promised schema. Columns that are right are not copied.
    ///
    /// # Errors
    /// Nulls where none were promised; a value that does not fit its type.
    pub(crate) fn align(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.rename_only && batch.schema_ref() == &self.to {
            return Ok(batch);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let columns: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .zip(self.to.fields())
            .zip(&self.same)
            .map(|((column, field), same)| match same {
                true => Ok(Arc::clone(column)),
                false => cast_with_options(column, field.data_type(), &strict),
            })
            .collect::<Result<_, _>>()?;
        RecordBatch::try_new_with_options(Arc::clone(&self.to), columns, &options)
    }
}

/// Whether two types spell the same values: strings, binaries, dictionaries of them, and lists thereof.
fn is_respelling(a: &DataType, b: &DataType) -> bool {
    use DataType::{Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Struct};
    match (a, b) {
        (Dictionary(_, a), Dictionary(_, b)) => a == b || is_respelling(a, b),
        (Dictionary(_, value), other) | (other, Dictionary(_, value)) => {
            value.as_ref() == other || is_respelling(value, other)
        }
        (
            List(a) | LargeList(a) | ListView(a) | LargeListView(a) | FixedSizeList(a, _),
            List(b) | LargeList(b) | ListView(b) | LargeListView(b),
        ) => same_or_respelled(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.name() == b.name() && same_or_respelled(a.data_type(), b.data_type()))
        }
        _ => (a.is_string() && b.is_string()) || (is_binary(a) && is_binary(b)),
    }
}

fn same_or_respelled(a: &DataType, b: &DataType) -> bool {
    a == b || is_respelling(a, b)
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, LargeStringArray, StringViewArray};
    use arrow::datatypes::Field;

    use super::*;

    fn schema(fields: Vec<(&str, DataType, bool)>) -> SchemaRef {
        Arc::new(Schema::new(
            fields.into_iter().map(|(name, kind, null)| Field::new(name, kind, null)).collect::<Vec<_>>(),
        ))
    }

    #[test]
    fn respelled_strings_are_cast_and_equal_columns_shared() {
        let from = schema(vec![("x", DataType::LargeUtf8, true), ("n", DataType::Int64, true)]);
        let to = schema(vec![("name", DataType::Utf8View, true), ("n", DataType::Int64, true)]);
        let names: ArrayRef = Arc::new(LargeStringArray::from(vec![Some("a"), None]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_new(Arc::clone(&from), vec![names, Arc::clone(&numbers)]).unwrap();
        let aligned = Aligner::try_new(&from, Arc::clone(&to)).unwrap().align(batch).unwrap();
        assert_eq!(aligned.schema(), to);
        assert_eq!(aligned.column(0).as_string_view(), &StringViewArray::from(vec![Some("a"), None]));
        assert!(Arc::ptr_eq(aligned.column(1), &numbers));
    }

    #[test]
    fn other_types_and_broken_promises_are_errors() {
        let from = schema(vec![("n", DataType::Int64, true)]);
        let other = Aligner::try_new(&from, schema(vec![("n", DataType::Utf8, true)])).unwrap_err();
        assert_eq!(other, "the upstream sent column `n` as Int64 where Utf8 was promised");
        let two = schema(vec![("n", DataType::Int64, true), ("m", DataType::Int64, true)]);
        assert_eq!(
            Aligner::try_new(&from, two).unwrap_err(),
            "the upstream sent 1 columns where 2 were promised"
        );
        let never_null = Aligner::try_new(&from, schema(vec![("n", DataType::Int64, false)])).unwrap();
        let nulls = RecordBatch::try_new(from, vec![Arc::new(Int64Array::from(vec![None]))]).unwrap();
        assert!(never_null.align(nulls).is_err());
    }
}
