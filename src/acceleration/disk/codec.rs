//! One chunk's rows as Parquet bytes, and back, exactly.
//!
//! Arrow's own schema is embedded in each file, so that dictionaries, views and zones come back as they were. What
//! Parquet cannot hold is refused by the column's name before anything is written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, RecordBatchReader, new_empty_array,
    new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{
    FooterTail, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::acceleration::texts;
use crate::task::words_of;

use super::error::DiskError;

/// Rows of a row group, the unit that a scan prunes and reads in parallel; pages inside are pruned finer.
const ROW_GROUP_ROWS: usize = 256 << 10;

/// Parquet bytes of `batch`: lightly compressed, with statistics and a page index.
///
/// # Errors
/// A value that Parquet cannot hold; [`check`] refuses the known ones earlier.
pub(super) fn encode(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        properties = written_as(properties, field, column);
        if is_flat(field.data_type()) && !has_nan(column) {
            let path = ColumnPath::new(vec![field.name().clone()]);
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Page);
        }
    }
    let properties = properties.build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.into_inner()
}

/// A dictionary of values of which most are different costs time and space. Whole numbers mostly follow each other
/// closely: their differences are small.
fn written_as(
    properties: WriterPropertiesBuilder,
    field: &Field,
    column: &ArrayRef,
) -> WriterPropertiesBuilder {
    let path = || ColumnPath::new(vec![field.name().clone()]);
    match field.data_type() {
        DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64 | DataType::Timestamp(..) => {
            properties
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED)
        }
        DataType::Float32 | DataType::Float64 => properties.set_column_dictionary_enabled(path(), false),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            if !texts::repeat(slice::from_ref(column)) =>
        {
            properties.set_column_dictionary_enabled(path(), false)
        }
        _ => properties,
    }
}

/// Statistics of nested columns are of no use to a scan.
fn is_flat(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_flat(values),
        data_type => !data_type.is_nested(),
    }
}

/// Parquet's minimum and maximum leave NaN out, to SQL it is the largest number: such a column goes without, or a scan
/// would prune rows that it has to find.
fn has_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float16 => {
            column.as_primitive::<Float16Type>().iter().flatten().any(|value| value.is_nan())
        }
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        DataType::Dictionary(_, values) if values.is_floating() => {
            column.as_any_dictionary_opt().is_some_and(|column| has_nan(column.values()))
        }
        _ => false,
    }
}

/// What a footer says of a file's rows: their number, and minimum, maximum and null count of the columns for which all
/// row groups have them.
pub(super) fn statistics(footer: &ParquetMetaData, schema: &SchemaRef) -> Statistics {
    let Ok(mut statistics) = DFParquetMetadata::statistics_from_parquet_metadata(footer, schema) else {
        return Statistics::new_unknown(schema);
    };
    let groups = footer.row_groups();
    for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
        let of_column = |group: &RowGroupMetaData| {
            group.columns().iter().any(|leaf| {
                leaf.column_path().parts() == [field.name().as_str()] && leaf.statistics().is_some()
            })
        };
        if !groups.iter().all(of_column) {
            *column = ColumnStatistics::new_unknown();
        }
        // A column of nulls has no minimum; merged with others', NULL would pass for one.
        for bound in [&mut column.min_value, &mut column.max_value] {
            if bound.get_value().is_none_or(ScalarValue::is_null) {
                *bound = Precision::Absent;
            }
        }
    }
    statistics
}

/// The rows of a file that [`encode`] made, as one batch of exactly `schema`.
///
/// # Errors
/// The bytes are not such a file, or hold other columns or another number of rows.
pub(super) fn decode(file: Bytes, schema: &SchemaRef, rows: u64) -> Result<RecordBatch> {
    let metadata = ArrowReaderMetadata::load(&file, options())?;
    agrees(metadata.metadata(), metadata.schema(), schema, rows)?;
    let rows = usize::try_from(rows).map_err(|error| ParquetError::General(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let reader = reader.with_batch_size(rows.max(1)).build()?;
    let own = reader.schema();
    let batches: Vec<RecordBatch> = reader.collect::<std::result::Result<_, ArrowError>>()?;
    let whole = match batches.as_slice() {
        [one] => one.clone(),
        many => concat_batches(&own, many)?,
    };
    if whole.num_rows() != rows {
        return Err(ParquetError::General(format!("{} rows instead of {rows}", whole.num_rows())));
    }
    // The very schema, so that all chunks share it and its metadata.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), whole.columns().to_vec(), &options)?)
}

/// The footer of a file: where its row groups lie and their statistics, without the page index. `tail` is the end of
/// the file, at least [`footer_bytes`] long.
///
/// # Errors
/// The bytes are not such a file, or hold other columns or another number of rows.
pub(super) fn footer(tail: &[u8], schema: &SchemaRef, rows: u64) -> Result<Arc<ParquetMetaData>> {
    let length = footer_bytes(tail)?;
    let start =
        tail.len().checked_sub(length).ok_or_else(|| ParquetError::EOF("no whole footer".to_owned()))?;
    let metadata = ParquetMetaDataReader::decode_metadata(&tail[start..tail.len() - FOOTER_SIZE])?;
    let metadata = Arc::new(metadata);
    let own = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options())?;
    agrees(&metadata, own.schema(), schema, rows)?;
    Ok(metadata)
}

/// How long the footer of a file is that ends with `tail`, in bytes.
///
/// # Errors
/// It does not end like a Parquet file.
pub(super) fn footer_bytes(tail: &[u8]) -> Result<usize> {
    let last = tail.last_chunk().ok_or_else(|| ParquetError::EOF("no footer".to_owned()))?;
    Ok(FooterTail::try_new(last)?.metadata_length().saturating_add(FOOTER_SIZE))
}

fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip)
}

fn agrees(metadata: &ParquetMetaData, found: &Schema, schema: &Schema, rows: u64) -> Result<()> {
    let counted = metadata.file_metadata().num_rows();
    match found.fields() == schema.fields() {
        _ if u64::try_from(counted) != Ok(rows) => {
            Err(ParquetError::General(format!("{counted} rows instead of {rows}")))
        }
        false => Err(ParquetError::General(difference(schema, found))),
        true => Ok(()),
    }
}

/// How `found` differs from `expected`, by the first column that does.
pub(super) fn difference(expected: &Schema, found: &Schema) -> String {
    if expected.fields().len() != found.fields().len() {
        return format!("{} columns instead of {}", found.fields().len(), expected.fields().len());
    }
    let mut pairs = expected.fields().iter().zip(found.fields());
    match pairs.find(|(expected, found)| expected != found) {
        Some((expected, found)) => format!("column {found} instead of {expected}"),
        None => "other metadata".to_owned(),
    }
}

/// Refuses what cannot be kept: each column is written and read back as a trial, empty and with a null.
///
/// # Errors
/// [`DiskError::Type`] for the first such column, [`DiskError::NoColumns`].
pub(super) fn check(schema: &Schema) -> std::result::Result<(), DiskError> {
    if schema.fields().is_empty() {
        return Err(DiskError::NoColumns);
    }
    schema.fields().iter().try_for_each(|field| {
        // Arrow panics on types that its makers did not expect to be written.
        let tried = catch_unwind(AssertUnwindSafe(|| trial(field)));
        let tried = tried.unwrap_or_else(|panic| Err(words_of(panic.as_ref())));
        tried.map_err(|reason| DiskError::Type {
            column: field.name().clone(),
            data_type: field.data_type().to_string(),
            reason,
        })
    })
}

fn trial(field: &Arc<Field>) -> std::result::Result<(), String> {
    let schema = Arc::new(Schema::new(vec![Arc::clone(field)]));
    let mut columns = vec![new_empty_array(field.data_type())];
    if field.is_nullable() {
        columns.push(new_null_array(field.data_type(), 1));
    }
    for column in columns {
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), vec![column]).map_err(|error| error.to_string())?;
        let file = encode(&batch).map_err(|error| error.to_string())?;
        let back =
            decode(file.into(), &schema, batch.num_rows() as u64).map_err(|error| error.to_string())?;
        if back != batch {
            return Err("it does not come back as it was".to_owned());
        }
    }
    Ok(())
}
