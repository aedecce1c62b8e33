//! Flight SQL's commands: SQL and table names enter, command bytes leave; and the answer to
//! CommandGetTables read.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_ipc::convert::try_schema_from_ipc_buffer;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

use super::table::RemoteTableName;

/// The statement as `CommandStatementQuery`.
pub(super) fn statement(sql: &str) -> Bytes {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    command.as_any().encode_to_vec().into()
}

/// `CommandGetTables` with schemas; its patterns match the table and perhaps more.
pub(super) fn get_tables(table: &RemoteTableName) -> Bytes {
    let mut parts = table.parts.iter().rev().cloned();
    let table_name = parts.next();
    let command = CommandGetTables {
        table_name_filter_pattern: table_name,
        db_schema_filter_pattern: parts.next(),
        catalog: parts.next(),
        table_types: Vec::new(),
        include_schema: true,
    };
    command.as_any().encode_to_vec().into()
}

/// The schema of exactly that table; `None` when it is not there, or there in several shapes.
pub(super) fn find_schema(batches: &[RecordBatch], table: &RemoteTableName) -> Option<SchemaRef> {
    let mut found: Option<Schema> = None;
    for batch in batches {
        for row in 0..batch.num_rows() {
            if !is_table(batch, row, table) {
                continue;
            }
            let schema = schema_at(batch, row)?;
            match &found {
                Some(other) if *other != schema => return None,
                _ => found = Some(schema),
            }
        }
    }
    found.map(Arc::new)
}

/// Compares from the table's own name outwards, as many parts as the name has.
fn is_table(batch: &RecordBatch, row: usize, table: &RemoteTableName) -> bool {
    ["table_name", "db_schema_name", "catalog_name"]
        .iter()
        .zip(table.parts.iter().rev())
        .all(|(column, part)| text_at(batch, column, row).as_deref() == Some(part))
}

fn text_at(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column)?;
    let column = arrow::compute::cast(&column.slice(row, 1), &arrow::datatypes::DataType::Utf8).ok()?;
    let column = column.as_string_opt::<i32>()?;
    column.is_valid(0).then(|| column.value(0).to_owned())
}

fn schema_at(batch: &RecordBatch, row: usize) -> Option<Schema> {
    let column = batch.column_by_name("table_schema")?.as_binary_opt::<i32>()?;
    try_schema_from_ipc_buffer(column.value(row)).ok()
}
