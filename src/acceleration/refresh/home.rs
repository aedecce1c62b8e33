//! Where an accelerated dataset is shown: its keeper says what queries read, the federation of the moment has it in its
//! catalog.
//!
//! Another configuration has another federation; a dataset that stays the same moves there with its rows.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use datafusion::catalog::TableProvider;
use datafusion::error::Result;

use crate::federation::Federation;
use crate::name::DatasetName;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Home(Arc<Inner>);

struct Inner {
    name: DatasetName,
    federation: ArcSwap<Federation>,
    /// Written before the federation hears of it: who moves in between takes it along.
    shown: Mutex<Shown>,
}

/// What queries of the dataset read.
#[derive(Clone, Default)]
enum Shown {
    /// The remote table.
    #[default]
    Remote,
    /// Nothing yet, for this reason.
    Awaited(Option<String>),
    Table(Arc<dyn TableProvider>),
}

impl Home {
    pub(super) fn new(name: DatasetName, federation: &Federation) -> Self {
        let (federation, shown) = (ArcSwap::from_pointee(federation.clone()), Mutex::default());
        Self(Arc::new(Inner { name, federation, shown }))
    }

    /// The federation of now.
    pub(super) fn federation(&self) -> Arc<Federation> {
        self.0.federation.load_full()
    }

    /// Queries are refused until there is a table.
    pub(super) fn await_table(&self, reason: Option<String>) {
        self.shows(Shown::Awaited(reason.clone()));
        self.federation().await_here(&self.0.name, reason);
    }

    /// Queries planned from now on read `table`.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub(super) async fn keep_table(&self, table: Arc<dyn TableProvider>) -> Result<()> {
        self.shows(Shown::Table(Arc::clone(&table)));
        self.federation().keep_here(&self.0.name, table).await
    }

    /// Shows in `federation` too what is shown here.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub(super) async fn show_in(&self, federation: &Federation) -> Result<()> {
        match self.shown() {
            Shown::Remote => Ok(()),
            Shown::Awaited(reason) => {
                federation.await_here(&self.0.name, reason);
                Ok(())
            }
            Shown::Table(table) => federation.keep_here(&self.0.name, table).await,
        }
    }

    /// From now on what is shown is shown in `federation`.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub(super) async fn move_to(&self, federation: &Federation) -> Result<()> {
        self.0.federation.store(Arc::new(federation.clone()));
        // What was shown in the former one meanwhile.
        self.show_in(federation).await
    }

    fn shows(&self, shown: Shown) {
        *self.0.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn shown(&self) -> Shown {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
