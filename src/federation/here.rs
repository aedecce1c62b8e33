//! Tables that are answered here: somebody above keeps a dataset's rows and puts a table of their own into the
//! catalog, in place of the remote one.
//!
//! Federation never learns what that table is. It plans over it, and sends no statement that reads it upstream.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::name::DatasetName;

use super::Federation;
use super::registry::{Entry, Reason, State};

/// Who answers for a dataset.
#[derive(Debug, Default)]
pub(super) enum Here {
    /// Its upstream.
    #[default]
    No,
    /// Nobody yet: its rows are being fetched, and until then queries are refused, for this reason where there is a
    /// better one than the remote table's.
    Awaited(Option<String>),
    Kept(Arc<dyn TableProvider>),
}

impl Entry {
    /// How far the table has come that queries see: the one that is kept here, else the remote one.
    pub fn answering(&self) -> Arc<State> {
        match self.here.load().as_ref() {
            Here::No => self.state.load_full(),
            Here::Kept(table) => Arc::new(State::Ready { schema: table.schema() }),
            Here::Awaited(why) => {
                let state = self.state.load();
                let why = match (why, state.as_ref()) {
                    (Some(why), _) => Some(why.clone()),
                    (None, State::Error { reason, .. }) => Some(reason.to_string()),
                    (None, _) => None,
                };
                let reason = Reason::Loading { dataset: self.name.to_string(), why };
                let since = match state.as_ref() {
                    State::Error { since, .. } => *since,
                    _ => self.since,
                };
                Arc::new(State::Error { reason, schema: None, since })
            }
        }
    }

    /// Whether queries read the remote table.
    pub fn is_remote(&self) -> bool {
        matches!(self.here.load().as_ref(), Here::No)
    }
}

impl Federation {
    /// The remote tables under the names of their datasets, for those who fetch rows: what is kept here is not
    /// among them.
    #[must_use]
    pub fn sources(&self) -> &SessionContext {
        &self.inner.sources
    }

    /// Refuses queries of `name` until [`Federation::keep_here`]: before its rows were fetched once, nothing
    /// can be said of it. `reason` says why it takes so long, where that is not the upstream's fault.
    pub fn await_here(&self, name: &DatasetName, reason: Option<String>) {
        if let Some(entry) = self.entry(name) {
            entry.here.store(Arc::new(Here::Awaited(reason)));
            self.inner.catalog.add();
        }
    }

    /// The schema of the remote table, as soon as it is known for the first time.
    pub async fn source_schema(&self, name: &DatasetName) -> Option<SchemaRef> {
        let entry = self.entry(name)?;
        loop {
            // Made before the look: what changes after it wakes this.
            let changed = self.inner.changed.notified();
            if let Some(schema) = entry.state.load().schema() {
                return Some(Arc::clone(schema));
            }
            changed.await;
        }
    }

    /// Why the remote table was never reached; none once it was, and while the first look goes on.
    pub(crate) fn never_reached(&self, name: &DatasetName) -> Option<Reason> {
        match self.entry(name)?.state.load().as_ref() {
            State::Error { reason, schema: None, .. } => Some(reason.clone()),
            _ => None,
        }
    }

    /// From now on queries of `name` read `table`; those that run go on with what they began with.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub async fn keep_here(
        &self,
        name: &DatasetName,
        table: Arc<dyn TableProvider>,
    ) -> datafusion::error::Result<()> {
        let Some(entry) = self.entry(name) else { return Ok(()) };
        // In the catalog before it is said to be ready: who hears that may ask at once.
        self.inner.context.register_table(entry.reference(), Arc::clone(&table))?;
        entry.here.store(Arc::new(Here::Kept(table)));
        // The remote table may have come in between.
        self.restore_here(entry)?;
        // A view holds the tables that it was planned over.
        self.plan_views().await;
        Ok(())
    }

    /// Puts the table that is kept here back into the catalog, where there is one.
    pub(super) fn restore_here(&self, entry: &Entry) -> datafusion::error::Result<()> {
        if let Here::Kept(table) = entry.here.load().as_ref() {
            self.inner.context.register_table(entry.reference(), Arc::clone(table))?;
        }
        Ok(())
    }

    fn entry(&self, name: &DatasetName) -> Option<&Entry> {
        self.inner.entries.iter().find(|entry| entry.name == *name)
    }
}
