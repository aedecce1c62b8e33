//! Datasets as streams: the parts of a name enter, what subscribers follow leaves.

use std::sync::Arc;

use thiserror::Error;

use crate::acceleration::Publication;
use crate::name::DatasetName;

use super::Engine;

/// Why a dataset cannot be subscribed to. The text is for the client.
#[derive(Debug, Clone, Error)]
pub enum SubscribeError {
    #[error("Unknown dataset: \"{0}\"")]
    Unknown(String),
    /// Its rows are the upstream's: nobody here knows which of them are new.
    #[error(
        "dataset {dataset} cannot be subscribed to: it is answered by its upstream{}; subscribe there, or add \
         `acceleration` to the dataset in the spicepod",
        .endpoint.as_ref().map(|endpoint| format!(" {endpoint}")).unwrap_or_default()
    )]
    NotKept { dataset: DatasetName, endpoint: Option<String> },
    #[error("{view} cannot be subscribed to: it is a view; subscribe to the datasets that it reads")]
    View { view: DatasetName },
}

impl Engine {
    /// What subscribers of a dataset follow, by the parts of its name as for [`Engine::table_schema`].
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        let Some(status) = self.find(path) else { return Err(SubscribeError::Unknown(path.join("."))) };
        let (name, endpoint) = (status.name, status.endpoint);
        match self.acceleration.publication(&name) {
            Some(publication) => Ok(publication),
            None if status.is_view => Err(SubscribeError::View { view: name }),
            None => Err(SubscribeError::NotKept { dataset: name, endpoint }),
        }
    }
}
