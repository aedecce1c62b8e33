//! Catalogs, schemas, tables and their types. Patterns are those of LIKE.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::error::Result;
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use tonic::Status;

use super::{CATALOG, SCHEMA, bounded, failed, parts};
use crate::query::DatasetStatus;
use crate::serve::Door;
use crate::wire;

const TABLE: &str = "BASE TABLE";
const VIEW: &str = "VIEW";
/// As the public runtime lists them; nothing here is temporary.
const TABLE_TYPES: [&str; 3] = [TABLE, VIEW, "LOCAL TEMPORARY"];

pub(super) fn catalogs() -> Result<RecordBatch> {
    let mut builder = CommandGetCatalogs {}.into_builder();
    builder.append(CATALOG);
    builder.build()
}

pub(super) fn db_schemas(door: &impl Door, asked: CommandGetDbSchemas) -> Result<RecordBatch> {
    bounded(asked.db_schema_filter_pattern.as_ref())?;
    let datasets = door.datasets();
    let named = datasets.iter().map(|dataset| parts(dataset)[1]);
    let schemas: BTreeSet<&str> = named.chain([SCHEMA]).collect();
    let mut builder = asked.into_builder();
    schemas.into_iter().for_each(|schema| builder.append(CATALOG, schema));
    builder.build()
}

/// # Errors
/// INVALID_ARGUMENT for a pattern that cannot be read.
pub(super) async fn tables(
    door: &impl Door,
    mut asked: CommandGetTables,
) -> std::result::Result<RecordBatch, Status> {
    bounded(asked.db_schema_filter_pattern.as_ref()).map_err(failed)?;
    bounded(asked.table_name_filter_pattern.as_ref()).map_err(failed)?;
    shorten(&mut asked.table_types);
    let mut builder = asked.into_builder();
    for dataset in door.datasets() {
        let schema = match builder.include_schema() {
            true => schema(door, &dataset).await.map(|schema| wire::schema(&schema)),
            false => None,
        };
        let kind = if dataset.is_view { VIEW } else { TABLE };
        let [catalog, db_schema, table] = parts(&dataset);
        builder
            .append(catalog, db_schema, table, kind, &schema.unwrap_or_else(Schema::empty))
            .map_err(failed)?;
    }
    builder.build().map_err(failed)
}

/// None while it has none: its upstream was never reached.
async fn schema(door: &impl Door, dataset: &DatasetStatus) -> Option<SchemaRef> {
    let path: Vec<String> =
        dataset.name.schema().into_iter().chain([dataset.name.table()]).map(str::to_owned).collect();
    door.table_schema(&path)
        .await
        .inspect_err(|error| tracing::debug!(dataset = %dataset.name, %error, "no schema"))
        .ok()
}

/// Each type once: what is asked for is compared with every table. Unknown ones, which no table has, are one.
fn shorten(types: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    types.retain(|kind| seen.insert(TABLE_TYPES.iter().find(|known| *known == kind)));
}

pub(super) fn table_types() -> Result<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    TABLE_TYPES.into_iter().for_each(|kind| builder.append(kind));
    builder.build()
}
