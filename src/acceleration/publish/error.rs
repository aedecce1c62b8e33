//! Why a subscription has ended. It never ends well: a dataset has always more rows to come.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::name::DatasetName;

/// The texts are for the subscriber.
#[derive(Debug, Clone, Error)]
pub enum StreamEnd {
    /// What it was still reading is not held for it any more.
    #[error(
        "DoExchange subscriber fell behind and missed {missed} row(s) of an earlier state of dataset {dataset}, \
         which is held no longer ({limit}); resubscribe and reconcile state"
    )]
    FellBehind { dataset: DatasetName, missed: u64, limit: Limit },
    #[error("dataset {dataset}: the dataset's schema has changed; subscribe again")]
    SchemaChanged { dataset: DatasetName },
    #[error("dataset {dataset} is configured anew; subscribe again")]
    Reconfigured { dataset: DatasetName },
    /// The rows that come next cannot be read.
    #[error("dataset {dataset}: {message}")]
    Unreadable { dataset: DatasetName, message: String },
}

/// The bound that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Time(Duration),
    Bytes(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "stream_retention is {time:?}"),
            Self::Bytes(bytes) => write!(f, "stream_retention_bytes is {bytes} bytes"),
        }
    }
}
