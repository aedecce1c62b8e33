//! Where an append stream comes from: the upstream's table, asked for its columns, its rows, their number and what is new.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;

use crate::name::DatasetName;
use crate::upstream::{ExchangeMessage, UpstreamError};

use super::super::error::RefreshError;
use super::super::fetch::Fetch;
use super::super::home::Home;

/// An open stream; it ends after its first error.
pub(in super::super) type Messages = BoxStream<'static, Result<ExchangeMessage, UpstreamError>>;

/// See the module.
#[async_trait]
pub(in super::super) trait Origin: Send + Sync {
    /// The table's columns now.
    async fn schema(&self) -> Result<SchemaRef, RefreshError>;

    /// Opens a stream; `hello` goes beside the table's name.
    async fn subscribe(&self, hello: Bytes) -> Result<Messages, RefreshError>;

    /// How many rows the table has now.
    async fn count(&self) -> Result<u64, RefreshError>;

    /// All rows, as they are at one moment between this call and the first batch.
    async fn rows(&self) -> Result<SendableRecordBatchStream, RefreshError>;
}

/// A table of an upstream.
pub(in super::super) struct Remote {
    home: Home,
    name: DatasetName,
}

impl Remote {
    pub(in super::super) fn new(home: Home, name: DatasetName) -> Arc<Self> {
        Arc::new(Self { home, name })
    }

    async fn plan(&self) -> Result<Fetch, RefreshError> {
        let federation = self.home.federation();
        if let Some(reason) = federation.never_reached(&self.name) {
            return Err(RefreshError::never_reached(&self.name, reason));
        }
        Fetch::plan(&federation, &self.name, None).await.map_err(RefreshError::fetch(&self.name))
    }

    fn failed(&self, source: UpstreamError) -> RefreshError {
        RefreshError::Upstream { dataset: self.name.clone(), source }
    }
}

#[async_trait]
impl Origin for Remote {
    async fn schema(&self) -> Result<SchemaRef, RefreshError> {
        self.home.federation().look_again(&self.name).await;
        Ok(self.plan().await?.schema())
    }

    async fn subscribe(&self, hello: Bytes) -> Result<Messages, RefreshError> {
        let opened = self.home.federation().subscribe(&self.name, hello).await;
        opened.map(|subscription| subscription.messages).map_err(|error| self.failed(error))
    }

    async fn count(&self) -> Result<u64, RefreshError> {
        self.home.federation().count_rows(&self.name).await.map_err(|error| self.failed(error))
    }

    async fn rows(&self) -> Result<SendableRecordBatchStream, RefreshError> {
        let rows = self.plan().await?.rows().await.map_err(RefreshError::fetch(&self.name))?;
        Ok(super::super::holder::reported(&self.home.federation(), rows))
    }
}
