//! Primary keys as spicepods declare them (`acceleration.primary_key`), and foreign keys, of which there are none.

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::Result;
use arrow_flight::sql::CommandGetPrimaryKeys;

use super::parts;
use crate::serve::Door;

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| Field::new(*name, kind.clone(), *nullable);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// Of `CommandGetPrimaryKeys` in FlightSql.proto.
pub(super) fn primary_schema() -> SchemaRef {
    use DataType::{Int32, Utf8};
    schema(&[
        ("catalog_name", Utf8, true),
        ("db_schema_name", Utf8, true),
        ("table_name", Utf8, false),
        ("column_name", Utf8, false),
        ("key_name", Utf8, true),
        ("key_sequence", Int32, false),
    ])
}

/// Of `CommandGetExportedKeys`, `CommandGetImportedKeys` and `CommandGetCrossReference`.
pub(super) fn foreign_schema() -> SchemaRef {
    use DataType::{Int32, UInt8, Utf8};
    schema(&[
        ("pk_catalog_name", Utf8, true),
        ("pk_db_schema_name", Utf8, true),
        ("pk_table_name", Utf8, false),
        ("pk_column_name", Utf8, false),
        ("fk_catalog_name", Utf8, true),
        ("fk_db_schema_name", Utf8, true),
        ("fk_table_name", Utf8, false),
        ("fk_column_name", Utf8, false),
        ("key_sequence", Int32, false),
        ("fk_key_name", Utf8, true),
        ("pk_key_name", Utf8, true),
        ("update_rule", UInt8, false),
        ("delete_rule", UInt8, false),
    ])
}

pub(super) fn primary(door: &impl Door, asked: &CommandGetPrimaryKeys) -> Result<RecordBatch> {
    let is_asked = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| asked == name);
    let datasets = door.datasets();
    let mut rows: Vec<([&str; 3], String, i32)> = Vec::new();
    for dataset in &datasets {
        let [catalog, db_schema, table] = parts(dataset);
        if table != asked.table
            || !is_asked(&asked.catalog, catalog)
            || !is_asked(&asked.db_schema, db_schema)
        {
            continue;
        }
        let path = [db_schema.to_owned(), table.to_owned()];
        let columns = (1..).zip(door.primary_key(&path));
        rows.extend(columns.map(|(number, column)| ([catalog, db_schema, table], column, number)));
    }
    let named = |at: usize| Arc::new(StringArray::from_iter_values(rows.iter().map(|(parts, ..)| parts[at])));
    let columns = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, column, _)| column)));
    let numbers = Arc::new(Int32Array::from_iter_values(rows.iter().map(|(.., number)| *number)));
    let unnamed = new_null_array(&DataType::Utf8, rows.len());
    let arrays = vec![named(0) as _, named(1) as _, named(2) as _, columns as _, unnamed, numbers as _];
    Ok(RecordBatch::try_new(primary_schema(), arrays)?)
}
