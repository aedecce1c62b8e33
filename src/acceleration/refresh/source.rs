//! The remote table behind an accelerated one, for queries that find no row here.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::error::Result;

use crate::acceleration::store::Source;
use crate::name::DatasetName;

use super::fetch::reference;
use super::home::Home;

/// Looked up for each query: what was restored from disk is served before the upstream was ever reached, and a remote
/// table is another one after its columns have changed.
pub(super) struct Remote {
    pub home: Home,
    pub name: DatasetName,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.name)
    }
}

#[async_trait]
impl Source for Remote {
    async fn table(&self) -> Result<Arc<dyn TableProvider>> {
        self.home.federation().sources().table_provider(reference(&self.name)).await
    }
}
