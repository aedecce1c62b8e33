//! The columns that a client sends, as the table has them: found by name, laid out alike. Values are never converted.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::upstream::is_same_but_layout;

/// Where each column of the table stands in what is sent.
#[derive(Debug)]
pub(super) struct Columns {
    table: SchemaRef,
    places: Vec<usize>,
}

impl Columns {
    /// # Errors
    /// Every difference in words.
    pub(super) fn try_new(table: &SchemaRef, sent: &SchemaRef) -> Result<Self, String> {
        let mut problems = Vec::new();
        let mut places = Vec::with_capacity(table.fields().len());
        for field in table.fields() {
            let (name, kind) = (field.name(), field.data_type());
            let Some((place, given)) = sent.column_with_name(name) else {
                problems.push(format!("`{name}` ({kind}) is missing"));
                continue;
            };
            places.push(place);
            if has_runs(given.data_type()) {
                problems.push(format!("`{name}` was sent run-end encoded: send plain values"));
            } else if !is_same_but_layout(kind, given.data_type()) {
                problems.push(format!("`{name}` is {kind} and was sent as {}", given.data_type()));
            }
        }
        let mut seen = HashSet::new();
        for field in sent.fields() {
            let (name, kind) = (field.name(), field.data_type());
            if !seen.insert(name) {
                problems.push(format!("`{name}` was sent twice"));
            } else if table.column_with_name(name).is_none() {
                problems.push(format!("`{name}` ({kind}) is no column of the table"));
            }
        }
        match problems.is_empty() {
            true => Ok(Self { table: Arc::clone(table), places }),
            false => Err(problems.join(", ")),
        }
    }

    /// One batch as the table has it; columns that are right are not copied.
    ///
    /// # Errors
    /// NULL where the table has none.
    pub(super) fn fitted(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.places.iter().zip(self.table.fields()).map(|(place, field)| {
            let column = batch.column(*place);
            match column.data_type() == field.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast(column, field.data_type()),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.table), columns, &options)
    }
}

/// Runs are refused: a few bytes of them stand for any number of rows.
fn has_runs(kind: &DataType) -> bool {
    match kind {
        DataType::RunEndEncoded(..) => true,
        DataType::Dictionary(_, values) => has_runs(values),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_runs(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_runs(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_runs(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, AsArray, DictionaryArray, Int64Array, LargeStringArray, StringArray,
    };
    use arrow::datatypes::{Field, Int8Type, Schema};

    use super::*;

    fn table() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, true),
            Field::new("word", DataType::Utf8, true),
        ]))
    }

    fn sent(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    #[test]
    fn order_and_layout_are_free() {
        let words: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
        let batch = sent(vec![
            ("word", Arc::new(words)),
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("name", Arc::new(LargeStringArray::from(vec!["x", "y", "a name that is long enough"]))),
        ]);
        let fitted = Columns::try_new(&table(), &batch.schema()).unwrap().fitted(&batch).unwrap();
        assert_eq!(fitted.schema(), table());
        assert_eq!(fitted.column(2).as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("a")]));
        assert_eq!(fitted.column(1).as_string_view().value(2), "a name that is long enough");
        assert_eq!(fitted.column(2).logical_null_count(), 1);
    }

    #[test]
    fn every_difference_is_told() {
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::Utf8, true)),
        );
        let other = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, true),
            Field::new("id", DataType::Int64, true),
            Field::new("Name", DataType::Utf8, true),
            Field::new("word", runs, true),
        ]));
        insta::assert_snapshot!(Columns::try_new(&table(), &other).unwrap_err(), @"`id` is Int64 and was sent as Int32, `name` (Utf8View) is missing, `word` was sent run-end encoded: send plain values, `id` was sent twice, `Name` (Utf8) is no column of the table");
        let same = Columns::try_new(&table(), &table());
        assert!(same.is_ok());
    }

    #[test]
    fn a_null_is_refused_where_the_table_has_none() {
        let batch = sent(vec![
            ("id", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("name", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("word", Arc::new(StringArray::from(vec!["a", "b"]))),
        ]);
        let error = Columns::try_new(&table(), &batch.schema()).unwrap().fitted(&batch).unwrap_err();
        assert!(error.to_string().contains("'id' is declared as non-nullable but contains null"), "{error}");
    }
}
