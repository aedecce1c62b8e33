//! Why a refresh failed. The generation before stays in every case.

use datafusion::error::DataFusionError;

use crate::acceleration::disk::DiskError;
use crate::acceleration::store::StoreError;
use crate::federation::{Reason, ScanError};
use crate::name::DatasetName;
use crate::task::BlockingError;
use crate::upstream::{ErrorKind, UpstreamError};

#[derive(Debug, thiserror::Error)]
pub(super) enum RefreshError {
    #[error("dataset `{dataset}`: {source}")]
    Upstream {
        dataset: DatasetName,
        #[source]
        source: UpstreamError,
    },
    /// What the spicepod says does not fit the table.
    #[error("dataset `{dataset}`: {message}")]
    Definition { dataset: DatasetName, message: String },
    /// The upstream's table is another one now.
    #[error("dataset `{dataset}`: the upstream's schema has changed: {difference}; {consequence}")]
    Changed { dataset: DatasetName, difference: String, consequence: &'static str },
    /// An append stream that is not what it should be, or has ended.
    #[error("dataset `{dataset}`: append stream: {message}")]
    Stream { dataset: DatasetName, message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("dataset `{dataset}`: {source}")]
    Disk {
        dataset: DatasetName,
        #[source]
        source: DiskError,
    },
    /// A statement that cannot be planned or run.
    #[error("dataset `{dataset}`: {message}")]
    Plan { dataset: DatasetName, message: String },
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

impl RefreshError {
    /// What DataFusion met while `dataset` was fetched.
    pub(super) fn fetch(dataset: &DatasetName) -> impl Fn(DataFusionError) -> Self + use<> {
        let dataset = dataset.clone();
        move |error| match ScanError::find(&error) {
            Some(scan) => Self::Upstream { dataset: dataset.clone(), source: scan.source.clone() },
            None => Self::Plan { dataset: dataset.clone(), message: error.strip_backtrace() },
        }
    }

    pub(super) fn never_reached(dataset: &DatasetName, reason: Reason) -> Self {
        let dataset = dataset.clone();
        match reason {
            Reason::Upstream(source) => Self::Upstream { dataset, source },
            other @ (Reason::Loading { .. } | Reason::Unusable(_)) => {
                Self::Plan { dataset, message: other.to_string() }
            }
        }
    }

    pub(super) fn disk(dataset: &DatasetName) -> impl Fn(DiskError) -> Self + use<> {
        let dataset = dataset.clone();
        move |source| Self::Disk { dataset: dataset.clone(), source }
    }

    /// Whether the same refresh may succeed soon without anybody changing the spicepod or the data.
    pub(super) fn heals(&self) -> bool {
        match self {
            Self::Upstream { source, .. } => match source.kind {
                ErrorKind::Refused | ErrorKind::Unimplemented | ErrorKind::MessageTooLarge { .. } => false,
                ErrorKind::Dns
                | ErrorKind::Connect
                // Certificates and keys are rotated.
                | ErrorKind::Tls
                | ErrorKind::Auth
                | ErrorKind::Unavailable
                | ErrorKind::CircuitOpen
                | ErrorKind::Busy
                | ErrorKind::Passing
                | ErrorKind::Timeout
                | ErrorKind::NotFound
                | ErrorKind::Planning
                | ErrorKind::ResourceExhausted
                | ErrorKind::Cancelled
                | ErrorKind::Protocol
                | ErrorKind::Internal => true,
            },
            // Another table may become smaller; what is too large alone would be fetched for nothing again and again.
            Self::Store(StoreError::Memory { needed, limit, .. }) => {
                limit.is_none_or(|limit| *needed <= limit)
            }
            Self::Store(StoreError::Stale { .. }) => true,
            Self::Store(_) | Self::Definition { .. } | Self::Changed { .. } => false,
            // A dataset that `refresh_sql` reads beside its own may be loaded later.
            Self::Plan { .. } | Self::Stream { .. } | Self::Disk { .. } | Self::Blocking(_) => true,
        }
    }
}
