//! What can keep a generation from being built. The one before it stays whole in every case.

use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::human_readable_size;
use datafusion::error::DataFusionError;

use crate::name::DatasetName;

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// Two rows that differ under one key, and no `on_conflict` that says which of them stays.
    #[error("dataset `{table}`: two different rows have {key}")]
    DuplicateKey { table: DatasetName, key: String },
    /// A primary key identifies a row, NULL identifies nothing.
    #[error("dataset `{table}`: NULL in the primary key {key}")]
    NullKey { table: DatasetName, key: String },
    /// The pool refused.
    #[error(
        "dataset `{table}` does not fit into memory: at least {} are needed{}; raise runtime.query.memory_limit, leave \
         columns or rows out with refresh_sql, or read it from files (mode: file, params.resident: false)",
        human_readable_size(*needed), limit_words(*limit, *in_use)
    )]
    Memory {
        table: DatasetName,
        /// What this dataset holds in all its generations, and what was asked for on top, in bytes.
        needed: usize,
        /// The pool's limit in bytes, where it has one.
        limit: Option<usize>,
        /// What all users of the pool hold, in bytes.
        in_use: usize,
    },
    /// Rows that are not of the table's schema, or a layout that its schema does not allow.
    #[error("dataset `{table}`: {reason}")]
    Schema { table: DatasetName, reason: String },
    /// A value of the time column that is no time.
    #[error("dataset `{table}`: `{value}` in column `{column}` is not of the time format {format}")]
    Time { table: DatasetName, column: String, format: &'static str, value: String },
    /// A generation that does not follow the one that is published: two builders worked at once.
    #[error("dataset `{table}`: generation {offered} does not follow generation {current}")]
    Stale { table: DatasetName, offered: u64, current: u64 },
    /// A query before the first load; the words are those of the public runtime.
    #[error("Acceleration not ready; loading initial data for {table}")]
    NotReady { table: DatasetName },
    /// A kernel failed, or an expression.
    #[error("dataset `{table}`: {source}")]
    Compute {
        table: DatasetName,
        #[source]
        source: Arc<DataFusionError>,
    },
}

impl StoreError {
    /// A kernel's or an expression's failure while `table` was built.
    pub(super) fn compute(table: &DatasetName) -> impl Fn(DataFusionError) -> Self {
        let table = table.clone();
        move |source| Self::Compute { table: table.clone(), source: Arc::new(source) }
    }

    /// The same for a failure of Arrow's.
    pub(super) fn arrow(table: &DatasetName) -> impl Fn(ArrowError) -> Self {
        let compute = Self::compute(table);
        move |source| compute(source.into())
    }
}

fn limit_words(limit: Option<usize>, in_use: usize) -> String {
    match limit {
        Some(limit) => {
            let (in_use, limit) = (human_readable_size(in_use), human_readable_size(limit));
            format!(", and of {limit} {in_use} are in use")
        }
        None => String::new(),
    }
}
