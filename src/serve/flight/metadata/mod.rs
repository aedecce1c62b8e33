//! What there is to ask, as Flight SQL asks for it: a command enters, one batch with the specification's schema leaves.
//!
//! Names are those of `information_schema`: catalog `spice`, schema `public` where a dataset has none. A dataset that is
//! not here yet is listed all the same, without columns.

mod keys;
mod sql_info;
mod tables;
mod xdbc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoDataBuilder, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    Command, CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
};
use tonic::Status;

use crate::query::DatasetStatus;
use crate::serve::Door;

/// The one catalog, and the schema of datasets whose name has none.
const CATALOG: &str = "spice";
const SCHEMA: &str = "public";
/// A pattern of names may not be longer, in bytes: no name is.
const PATTERN_BYTES_MAX: usize = 8 << 10;

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Metadata {
    Catalogs,
    DbSchemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes,
    PrimaryKeys(CommandGetPrimaryKeys),
    /// Exported, imported, and those between two tables: there are none.
    ForeignKeys,
    SqlInfo(CommandGetSqlInfo),
    XdbcTypeInfo(CommandGetXdbcTypeInfo),
}

impl Metadata {
    /// # Errors
    /// The command back, if it asks for something else.
    pub(super) fn of(command: Command) -> Result<Self, Command> {
        Ok(match command {
            Command::CommandGetCatalogs(_) => Self::Catalogs,
            Command::CommandGetDbSchemas(asked) => Self::DbSchemas(asked),
            Command::CommandGetTables(asked) => Self::Tables(asked),
            Command::CommandGetTableTypes(_) => Self::TableTypes,
            Command::CommandGetPrimaryKeys(asked) => Self::PrimaryKeys(asked),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Self::ForeignKeys,
            Command::CommandGetSqlInfo(asked) => Self::SqlInfo(asked),
            Command::CommandGetXdbcTypeInfo(asked) => Self::XdbcTypeInfo(asked),
            other => return Err(other),
        })
    }

    /// The schema of its answer.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Catalogs => CommandGetCatalogs {}.into_builder().schema(),
            Self::DbSchemas(asked) => asked.clone().into_builder().schema(),
            Self::Tables(asked) => asked.clone().into_builder().schema(),
            Self::TableTypes => CommandGetTableTypes {}.into_builder().schema(),
            Self::PrimaryKeys(_) => keys::primary_schema(),
            Self::ForeignKeys => keys::foreign_schema(),
            Self::SqlInfo(_) => SqlInfoDataBuilder::schema().clone().into(),
            Self::XdbcTypeInfo(_) => XdbcTypeInfoDataBuilder::new().schema(),
        }
    }

    /// Its answer, as things are now.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a pattern that cannot be read.
    pub(super) async fn batch(self, door: &impl Door) -> Result<RecordBatch, Status> {
        let schema = self.schema();
        let batch = match self {
            Self::Catalogs => tables::catalogs(),
            Self::DbSchemas(asked) => tables::db_schemas(door, asked),
            Self::Tables(asked) => {
                return tables::tables(door, asked).await?.with_schema(schema).map_err(failed);
            }
            Self::TableTypes => tables::table_types(),
            Self::PrimaryKeys(asked) => keys::primary(door, &asked),
            Self::ForeignKeys => Ok(RecordBatch::new_empty(keys::foreign_schema())),
            Self::SqlInfo(asked) => sql_info::batch(&door.vocabulary(), asked),
            Self::XdbcTypeInfo(asked) => xdbc::batch(asked),
        };
        batch.and_then(|batch| Ok(batch.with_schema(schema)?)).map_err(failed)
    }
}

/// Catalog, schema and table of a dataset or view.
fn parts(dataset: &DatasetStatus) -> [&str; 3] {
    [CATALOG, dataset.name.schema().unwrap_or(SCHEMA), dataset.name.table()]
}

/// # Errors
/// INVALID_ARGUMENT for one that is longer than any name.
fn bounded(pattern: Option<&String>) -> Result<(), FlightError> {
    match pattern.is_some_and(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        true => Err(FlightError::Tonic(Box::new(Status::invalid_argument(format!(
            "a pattern has more than {PATTERN_BYTES_MAX} bytes: no name is as long"
        ))))),
        false => Ok(()),
    }
}

fn failed(error: impl Into<FlightError>) -> Status {
    match error.into() {
        FlightError::Tonic(status) => *status,
        other => Status::internal(format!("the metadata cannot be told: {other}")),
    }
}

#[cfg(test)]
mod tests;
