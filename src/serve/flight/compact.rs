//! Slices made small: views keep only the bytes they show, large dictionaries only the values in use.
//!
//! A sliced view array still holds all of its buffers, and the IPC writer sends them all; so does a
//! dictionary. Types never change here: the schema is a promise.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::builder::GenericByteViewBuilder;
use arrow::array::types::ByteViewType;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericByteViewArray, GenericListArray, MapArray,
    OffsetSizeTrait, RecordBatch, RecordBatchOptions, StructArray, UInt64Array, make_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{BinaryViewType, DataType, StringViewType};
use arrow::error::ArrowError;

/// A dictionary up to this size goes out whole, once for all batches that share it.
const SHARED_DICTIONARY_BYTES_MAX: usize = 256 * 1024;
/// Texts up to this length live in the view itself (Arrow columnar format, "Variable-size Binary View").
const INLINE_BYTES_MAX: usize = 12;
/// How many long texts are looked at to guess whether many are equal.
const SAMPLE: usize = 256;

/// The batch with nothing in its buffers that it does not show.
pub(super) fn batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if !batch.schema_ref().fields().iter().any(|field| is_wasteful(field.data_type())) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(array).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// Whether slices of the type drag along more than they show.
fn is_wasteful(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_wasteful(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| is_wasteful(field.data_type())),
        _ => false,
    }
}

fn array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !is_wasteful(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(views::<StringViewType>(array.as_byte_view())),
        DataType::BinaryView => Arc::new(views::<BinaryViewType>(array.as_byte_view())),
        DataType::Dictionary(key, _) => dictionary(array, key)?,
        DataType::List(_) => Arc::new(list::<i32>(array.as_list())?),
        DataType::LargeList(_) => Arc::new(list::<i64>(array.as_list())?),
        DataType::FixedSizeList(field, size) => {
            let list = array.as_fixed_size_list();
            let values = self::array(list.values())?;
            let nulls = list.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new_with_length(
                Arc::clone(field),
                *size,
                values,
                nulls,
                list.len(),
            )?)
        }
        DataType::Map(field, ordered) => {
            let map = array.as_map();
            let (offsets, start, end) = rebased(map.offsets());
            let entries: ArrayRef = Arc::new(map.entries().slice(start, end - start));
            let entries = self::array(&entries)?.as_struct().clone();
            let nulls = map.nulls().cloned();
            Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *ordered)?)
        }
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let columns = parent.columns().iter().map(self::array).collect::<Result<Vec<_>, _>>()?;
            let nulls = parent.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, parent.len())?)
        }
        _ => Arc::clone(array),
    })
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<GenericListArray<O>, ArrowError> {
    let (offsets, start, end) = rebased(list.offsets());
    let values = array(&list.values().slice(start, end - start))?;
    let (field, _, _, nulls) = list.clone().into_parts();
    GenericListArray::try_new(field, offsets, values, nulls)
}

/// Offsets that begin at zero, and the range of values that they meant.
fn rebased<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (OffsetBuffer<O>, usize, usize) {
    // An offset buffer is never empty.
    let (start, end) = (offsets[0], offsets[offsets.len() - 1]);
    let moved = offsets.iter().map(|offset| *offset - start).collect::<Vec<_>>();
    (OffsetBuffer::new(moved.into()), start.as_usize(), end.as_usize())
}

/// Copies the long texts that are shown; equal ones once, where that seems to pay.
fn views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> GenericByteViewArray<T> {
    match repeats(array) {
        false => array.gc(),
        true => {
            let mut builder =
                GenericByteViewBuilder::<T>::with_capacity(array.len()).with_deduplicate_strings();
            array.iter().for_each(|text| builder.append_option(text));
            builder.finish()
        }
    }
}

/// Whether at least half of the first long texts were seen before.
fn repeats<T: ByteViewType>(array: &GenericByteViewArray<T>) -> bool {
    let long = |text: &&T::Native| AsRef::<[u8]>::as_ref(*text).len() > INLINE_BYTES_MAX;
    let mut seen = 0;
    let mut distinct: HashSet<&[u8]> = HashSet::with_capacity(SAMPLE);
    for text in array.iter().flatten().filter(long).take(SAMPLE) {
        seen += 1;
        distinct.insert(text.as_ref());
    }
    distinct.len() * 2 < seen
}

/// A large dictionary loses the values that no key names; a small one stays shared.
fn dictionary(array: &ArrayRef, key: &DataType) -> Result<ArrayRef, ArrowError> {
    let any = array.as_any_dictionary();
    if any.values().get_buffer_memory_size() <= SHARED_DICTIONARY_BYTES_MAX {
        return Ok(Arc::clone(array));
    }
    if any.values().is_empty() {
        return Ok(Arc::clone(array));
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
    let data = keys.data_type(array.data_type().clone()).child_data(vec![values.to_data()]).build()?;
    Ok(make_array(data))
}
