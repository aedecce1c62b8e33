//! How a table is kept: its columns, its time, its keys. Plain data, checked once.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::row::{RowConverter, SortField};

use crate::name::DatasetName;

use super::StoreError;

/// A checked description; the columns of its parts are positions in `schema`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    name: DatasetName,
    schema: SchemaRef,
    time: Option<Time>,
    keys: Vec<Key>,
}

/// The column that orders rows in time, and how its values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub column: usize,
    pub format: TimeFormat,
}

/// `time_format` of a spicepod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    Timestamp,
    TimestampTz,
    UnixSeconds,
    UnixMillis,
    Iso8601,
    Date,
}

/// Columns that rows are found by: a primary key or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub columns: Vec<usize>,
    pub role: Role,
}

/// What a key promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One row per key, no NULL in it.
    Primary { on_conflict: Option<OnConflict> },
    /// One row per key, except that a key with a NULL equals no other, as in SQL.
    Unique { on_conflict: Option<OnConflict> },
    /// Any number of rows per key.
    Plain,
}

/// Which of two rows with one key stays; without it, two that differ fail the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConflict {
    /// The earlier one by the time column, where there is one; among equals, and without, the one that is there. A
    /// row that comes late is no other than one that came in time: a load finds what appends have found.
    Drop,
    /// The later one by the time column, where there is one; among equals, and without, the one that arrived last.
    Upsert,
}

impl Layout {
    /// # Errors
    /// [`StoreError::Schema`] names the first part that the schema does not allow.
    pub(crate) fn try_new(
        name: DatasetName,
        schema: SchemaRef,
        time: Option<Time>,
        keys: Vec<Key>,
    ) -> Result<Self, StoreError> {
        let layout = Self { name, schema, time, keys };
        match layout.problem() {
            None => Ok(layout),
            Some(reason) => Err(layout.mismatch(reason)),
        }
    }

    pub(crate) fn name(&self) -> &DatasetName {
        &self.name
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn time(&self) -> Option<Time> {
        self.time
    }

    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// `(a, b)`: the names of a key's columns.
    pub(super) fn key_words(&self, key: &Key) -> String {
        let names: Vec<&str> =
            key.columns.iter().map(|column| self.schema.field(*column).name().as_str()).collect();
        format!("({})", names.join(", "))
    }

    pub(super) fn mismatch(&self, reason: String) -> StoreError {
        StoreError::Schema { table: self.name.clone(), reason }
    }

    fn problem(&self) -> Option<String> {
        if self.schema.fields().is_empty() {
            return Some("a table without columns cannot be accelerated".to_owned());
        }
        let unkept = self.schema.fields().iter().find(|field| !encodable([field.data_type()]));
        if let Some(field) = unkept {
            return Some(format!(
                "column `{}` is of type {}, which cannot be accelerated",
                field.name(),
                field.data_type()
            ));
        }
        let time = self.time.and_then(|time| self.time_problem(time));
        time.or_else(|| self.keys.iter().find_map(|key| self.key_problem(key))).or_else(|| {
            let primaries = self.keys.iter().filter(|key| matches!(key.role, Role::Primary { .. })).count();
            (primaries > 1).then(|| "more than one primary key".to_owned())
        })
    }

    fn time_problem(&self, time: Time) -> Option<String> {
        let Some(field) = self.schema.fields().get(time.column) else {
            return Some(format!(
                "the time column has position {} of {}",
                time.column,
                self.schema.fields().len()
            ));
        };
        let fits = time.format.reads(field.data_type());
        (!fits).then(|| {
            let (name, kind) = (field.name(), field.data_type());
            format!("column `{name}` of type {kind} cannot be read with the time format {}", time.format)
        })
    }

    fn key_problem(&self, key: &Key) -> Option<String> {
        if key.columns.is_empty() {
            return Some("a key without columns".to_owned());
        }
        let distinct: BTreeSet<usize> = key.columns.iter().copied().collect();
        if distinct.len() != key.columns.len() {
            return Some(format!("a column stands twice in the key {:?}", key.columns));
        }
        let beyond = key.columns.iter().find(|column| **column >= self.schema.fields().len())?;
        Some(format!("a key names position {beyond} of {} columns", self.schema.fields().len()))
    }
}

impl Time {
    pub(super) fn field(self, schema: &SchemaRef) -> &Field {
        schema.field(self.column)
    }
}

impl TimeFormat {
    /// As a spicepod writes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::UnixSeconds => "unix_seconds",
            Self::UnixMillis => "unix_millis",
            Self::Iso8601 => "ISO8601",
            Self::Date => "date",
        }
    }

    /// Columns that carry their meaning in their type are read by it, whatever the format says; numbers and texts
    /// need the format.
    fn reads(self, kind: &DataType) -> bool {
        let text = matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match self {
            _ if matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => true,
            Self::UnixSeconds | Self::UnixMillis => {
                // Half a float cannot tell two days apart.
                kind.is_numeric() && !matches!(kind, DataType::Decimal256(..) | DataType::Float16)
            }
            Self::Iso8601 | Self::Date | Self::Timestamp | Self::TimestampTz => text,
        }
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Key {
    /// Whether two rows with this key exclude each other.
    pub(super) fn is_unique(&self) -> bool {
        !matches!(self.role, Role::Plain)
    }

    pub(super) fn on_conflict(&self) -> Option<OnConflict> {
        match self.role {
            Role::Primary { on_conflict } | Role::Unique { on_conflict } => on_conflict,
            Role::Plain => None,
        }
    }
}

/// Whether rows of these types can be compared as bytes.
fn encodable<'a>(kinds: impl IntoIterator<Item = &'a DataType>) -> bool {
    let fields: Vec<SortField> = kinds.into_iter().map(|kind| SortField::new(kind.clone())).collect();
    RowConverter::supports_fields(&fields)
}
