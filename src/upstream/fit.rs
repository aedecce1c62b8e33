//! Batches that differ from the promised schema only in how they are laid out are brought to it; any other
//! difference is refused, but for a type that only the stream can know. Pure.
//!
//! Servers promise string views and send large strings, or promise dictionaries and send plain values: the
//! values are the same, and everybody above relies on the promise.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

/// How the batches of one stream become batches of the promised schema.
#[derive(Clone)]
pub(crate) struct Fit {
    schema: SchemaRef,
    is_same: bool,
}

impl Fit {
    /// What to do with batches of `found` to get batches of `promised`.
    ///
    /// # Errors
    /// The first difference that is more than layout, in words.
    pub fn try_new(promised: &SchemaRef, found: &SchemaRef) -> Result<Self, String> {
        for (wanted, got) in promised.fields().iter().zip(found.fields()) {
            if wanted.name() != got.name() {
                return Err(format!("column `{}` was promised, `{}` arrived", wanted.name(), got.name()));
            }
        }
        Self::by_position(promised, found)
    }

    /// The same where names mean nothing: the first column is the first column, however it is called.
    ///
    /// # Errors
    /// The first difference that is more than layout, in words.
    pub fn by_position(promised: &SchemaRef, found: &SchemaRef) -> Result<Self, String> {
        let (wanted, got) = (promised.fields(), found.fields());
        if wanted.len() != got.len() {
            return Err(format!("{} columns were promised, {} arrived", wanted.len(), got.len()));
        }
        for (wanted, got) in wanted.iter().zip(got) {
            if plain(wanted.data_type()) != plain(got.data_type()) {
                return Err(format!(
                    "column `{}` was promised as {}, but arrived as {}",
                    wanted.name(),
                    wanted.data_type(),
                    got.data_type()
                ));
            }
        }
        Ok(Self { schema: Arc::clone(promised), is_same: promised == found })
    }

    /// One batch in the promised schema; columns that are right are not copied.
    ///
    /// # Errors
    /// Nulls where none were promised; a value that does not fit its type.
    pub fn apply(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.is_same {
            return Ok(batch);
        }
        let rows = batch.num_rows();
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            match column.data_type() == field.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast(column, field.data_type()),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// The promise as far as the stream keeps it. A column is nullable if either says so: `NOT NULL` is often
/// promised in error, and then a null is no reason to fail. It has the stream's type where that is another
/// one: DataFusion tells in GetFlightInfo the type of `CASE … THEN 0 ELSE 1.05 END` before it has found one
/// for all branches.
pub(super) fn settled(promised: &Schema, found: &Schema) -> Schema {
    let fields = promised.fields().iter().enumerate().map(|(at, field)| {
        let Some(found) = found.fields().get(at) else { return field.as_ref().clone() };
        let data_type = match is_same_but_layout(field.data_type(), found.data_type()) {
            true => field.data_type(),
            false => found.data_type(),
        };
        let is_nullable = field.is_nullable() || found.is_nullable();
        field.as_ref().clone().with_data_type(data_type.clone()).with_nullable(is_nullable)
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), promised.metadata().clone())
}

/// Whether two types have the same values.
pub(crate) fn is_same_but_layout(one: &DataType, other: &DataType) -> bool {
    plain(one) == plain(other)
}

/// A type without its layout: string and binary widths, dictionaries, list kinds, names and nullability of
/// list items.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::new_list(plain(item.data_type()), true),
        DataType::FixedSizeList(item, size) => {
            DataType::new_fixed_size_list(plain(item.data_type()), *size, true)
        }
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|field| Field::new(field.name(), plain(field.data_type()), true)).collect(),
        ),
        DataType::Map(entries, sorted) => {
            DataType::Map(Arc::new(Field::new("entries", plain_entries(entries), true)), *sorted)
        }
        other => other.clone(),
    }
}

/// The key and value of a map, whose field names differ between implementations.
fn plain_entries(entries: &Field) -> DataType {
    match entries.data_type() {
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .zip(["key", "value"])
                .map(|(field, name)| Field::new(name, plain(field.data_type()), true))
                .collect(),
        ),
        other => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn schema(name: &str, data_type: DataType, nullable: bool) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(name, data_type, nullable)]))
    }

    #[test]
    fn layout_is_brought_to_the_promise() {
        let values: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let found = schema("s", values.data_type().clone(), true);
        let promised = schema("s", DataType::Utf8View, true);
        let batch = RecordBatch::try_new(Arc::clone(&found), vec![Arc::new(values)]).unwrap();
        let fit = Fit::try_new(&promised, &found).unwrap();
        let fitted = fit.apply(batch).unwrap();
        assert_eq!(fitted.schema(), promised);
        let plain = cast(fitted.column(0), &DataType::Utf8).unwrap();
        assert_eq!(&plain, &(Arc::new(StringArray::from(vec!["a", "b", "a"])) as ArrayRef));
    }

    #[test]
    fn any_other_difference_is_refused() {
        let promised = schema("a", DataType::Int64, true);
        let refused = |found: SchemaRef| Fit::try_new(&promised, &found).err().unwrap();
        insta::assert_snapshot!(refused(schema("a", DataType::Int32, true)),
            @"column `a` was promised as Int64, but arrived as Int32");
        insta::assert_snapshot!(refused(schema("b", DataType::Int64, true)),
            @"column `a` was promised, `b` arrived");
        insta::assert_snapshot!(refused(Arc::new(Schema::empty())), @"1 columns were promised, 0 arrived");
    }

    #[test]
    fn by_position_names_are_the_promised_ones() {
        let (promised, found) = (schema("a", DataType::Int32, true), schema("b", DataType::Int32, true));
        let batch =
            RecordBatch::try_new(Arc::clone(&found), vec![Arc::new(Int32Array::from(vec![1]))]).unwrap();
        let fitted = Fit::by_position(&promised, &found).unwrap().apply(batch).unwrap();
        assert_eq!(fitted.schema(), promised);
    }

    #[test]
    fn a_null_in_a_column_promised_without_is_kept() {
        let found = schema("a", DataType::Int32, true);
        let promised = Arc::new(settled(&schema("a", DataType::Int32, false), &found));
        let batch =
            RecordBatch::try_new(found.clone(), vec![Arc::new(Int32Array::from(vec![None]))]).unwrap();
        let fitted = Fit::try_new(&promised, &found).unwrap().apply(batch).unwrap();
        assert_eq!(fitted.column(0).null_count(), 1);
    }

    #[test]
    fn another_type_than_promised_is_the_streams() {
        let found = schema("a", DataType::Decimal128(30, 15), true);
        assert_eq!(settled(&schema("a", DataType::Int64, true), &found), *found);
        let layout = schema("a", DataType::Utf8View, true);
        assert_eq!(settled(&layout, &schema("a", DataType::LargeUtf8, true)), *layout);
    }
}
