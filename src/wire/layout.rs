//! How an answer travels: string and binary views as plain strings and binaries, slices without what
//! they do not show.
//!
//! A view costs 16 bytes beside its text where a plain string costs 4, and older clients (Java,
//! JavaScript, pyarrow before 16) cannot read views at all. So schemas and batches are mapped here, at
//! every depth, before they are promised or sent. Nothing else of a type changes: a dictionary stays one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray, UInt64Array, make_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UnionFields};
use arrow::error::ArrowError;

/// A dictionary up to this size goes out whole, once for all batches that share it.
const SHARED_DICTIONARY_BYTES_MAX: usize = 256 * 1024;
/// What the 32-bit offsets of one plain array reach.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// The schema that clients are promised for an answer of this one.
pub fn schema(schema: &Schema) -> Schema {
    Schema::new_with_metadata(fields(schema.fields()), schema.metadata().clone())
}

fn fields(of: &Fields) -> Fields {
    of.iter().map(field).collect()
}

fn field(of: &FieldRef) -> FieldRef {
    match is_mapped(of.data_type()) {
        true => Arc::new(Field::clone(of).with_data_type(data_type(of.data_type()))),
        false => Arc::clone(of),
    }
}

fn data_type(of: &DataType) -> DataType {
    match of {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::ListView(item) => DataType::ListView(field(item)),
        DataType::LargeListView(item) => DataType::LargeListView(field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
        DataType::Map(entries, ordered) => DataType::Map(field(entries), *ordered),
        DataType::Struct(children) => DataType::Struct(fields(children)),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(data_type(value))),
        DataType::RunEndEncoded(ends, values) => DataType::RunEndEncoded(Arc::clone(ends), field(values)),
        DataType::Union(children, mode) => {
            let children = children.iter().map(|(id, child)| (id, field(child)));
            DataType::Union(UnionFields::from_iter(children), *mode)
        }
        other => other.clone(),
    }
}

/// Whether arrays of the type change on their way: views, and dictionaries that drag unused values along.
fn is_mapped(of: &DataType) -> bool {
    match of {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::RunEndEncoded(_, item)
        | DataType::Map(item, _) => is_mapped(item.data_type()),
        DataType::Struct(children) => children.iter().any(|child| is_mapped(child.data_type())),
        DataType::Union(children, _) => children.iter().any(|(_, child)| is_mapped(child.data_type())),
        _ => false,
    }
}

/// The batch as it travels; `schema` is its own, mapped.
///
/// # Errors
/// One value too long for a plain array: 2 GiB.
pub fn batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}

/// How many bytes of text the views of a batch show: what mapping it will copy. Views may show the same
/// bytes many times, so this can be far more than the batch holds.
pub fn view_text_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(text_bytes).sum()
}

fn text_bytes(array: &ArrayRef) -> usize {
    let shown = |list: &ArrayRef, (start, end): (usize, usize)| text_bytes(&list.slice(start, end - start));
    match array.data_type() {
        other if !is_mapped(other) => 0,
        DataType::Utf8View => array.as_string_view().lengths().map(|length| length as usize).sum(),
        DataType::BinaryView => array.as_binary_view().lengths().map(|length| length as usize).sum(),
        DataType::List(_) => shown(array.as_list::<i32>().values(), range(array.as_list::<i32>().offsets())),
        DataType::LargeList(_) => {
            shown(array.as_list::<i64>().values(), range(array.as_list::<i64>().offsets()))
        }
        DataType::FixedSizeList(..) => text_bytes(array.as_fixed_size_list().values()),
        DataType::Map(..) => {
            let (start, end) = range(array.as_map().offsets());
            array.as_map().entries().columns().iter().map(|column| shown(column, (start, end))).sum()
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(text_bytes).sum(),
        // The values of a dictionary go out once, however many rows show them; the rest is rare.
        _ => 0,
    }
}

fn array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let to = data_type(array.data_type());
    Ok(match &to {
        _ if !is_mapped(array.data_type()) => Arc::clone(array),
        DataType::Utf8 | DataType::Binary => plain(array, &to)?,
        DataType::Dictionary(key, _) => dictionary(array, key, &to)?,
        DataType::List(item) => Arc::new(list::<i32>(array.as_list(), item)?),
        DataType::LargeList(item) => Arc::new(list::<i64>(array.as_list(), item)?),
        DataType::FixedSizeList(item, size) => {
            let list = array.as_fixed_size_list();
            let (values, nulls) = (self::array(list.values())?, list.nulls().cloned());
            let item = Arc::clone(item);
            Arc::new(FixedSizeListArray::try_new_with_length(item, *size, values, nulls, list.len())?)
        }
        DataType::Map(entries, ordered) => {
            let map = array.as_map();
            let (start, end) = range(map.offsets());
            let shown: ArrayRef = Arc::new(map.entries().slice(start, end - start));
            let shown = self::array(&shown)?.as_struct().clone();
            let (offsets, nulls) = (rebased(map.offsets()), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, shown, nulls, *ordered)?)
        }
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let columns = parent.columns().iter().map(self::array).collect::<Result<Vec<_>, _>>()?;
            let nulls = parent.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, parent.len())?)
        }
        _ => with_mapped_children(array, &to)?,
    })
}

/// Views as a plain array.
fn plain(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let bytes = text_bytes(array);
    if bytes > TEXT_BYTES_MAX {
        return Err(ArrowError::ComputeError(format!(
            "one row holds {bytes} bytes of text, more than a client can be sent at once"
        )));
    }
    cast(array, to)
}

fn list<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    item: &FieldRef,
) -> Result<GenericListArray<O>, ArrowError> {
    let (start, end) = range(list.offsets());
    let values = array(&list.values().slice(start, end - start))?;
    GenericListArray::try_new(Arc::clone(item), rebased(list.offsets()), values, list.nulls().cloned())
}

/// The values that offsets mean.
fn range<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    // An offset buffer is never empty.
    (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize())
}

/// The same offsets, beginning at zero.
fn rebased<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> OffsetBuffer<O> {
    let start = offsets[0];
    match start == O::zero() {
        true => offsets.clone(),
        false => OffsetBuffer::new(offsets.iter().map(|offset| *offset - start).collect::<Vec<_>>().into()),
    }
}

/// A large dictionary loses the values that no key names; a small one stays shared.
fn dictionary(array: &ArrayRef, key: &DataType, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let any = array.as_any_dictionary();
    let is_small = any.values().get_buffer_memory_size() <= SHARED_DICTIONARY_BYTES_MAX;
    if is_small || any.values().is_empty() {
        return Ok(any.with_values(self::array(any.values())?));
    }
    let mut places = vec![None; any.values().len()];
    let mut used = Vec::new();
    let old = any.normalized_keys();
    let keys: UInt64Array = old
        .iter()
        .enumerate()
        .map(|(row, key)| {
            any.keys().is_valid(row).then(|| {
                *places[*key].get_or_insert_with(|| {
                    used.push(*key as u64);
                    used.len() as u64 - 1
                })
            })
        })
        .collect();
    let values = self::array(&take(any.values(), &UInt64Array::from(used), None)?)?;
    let keys = cast(&keys, key)?.to_data().into_builder();
    Ok(make_array(keys.data_type(to.clone()).child_data(vec![values.to_data()]).build()?))
}

/// List views, runs and unions: their children mapped whole, their own buffers as they are.
fn with_mapped_children(from: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let data = from.to_data();
    let children = data.child_data().iter().map(|child| {
        let child = array(&make_array(child.clone()))?;
        Ok(child.to_data())
    });
    let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(make_array(data.into_builder().data_type(to.clone()).child_data(children).build()?))
}
