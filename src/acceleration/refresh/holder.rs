//! What one dataset holds and what is told of it: opened and restored, given to queries, and the words for what fails.
//!
//! Both ways to keep a dataset stand on it: refreshes, and following an append stream. It starts nothing by itself.

use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use chrono::Utc;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use tokio::time::{Instant, sleep};

use crate::acceleration::disk::{self, Folder, Opened, Residence, Restored, Settings};
use crate::acceleration::store::{Budget, Layout, OrSource};
use crate::config::SchemaChange;
use crate::federation::Federation;
use crate::name::DatasetName;
use crate::proto::stream::Position;

use super::definition::Definition;
use super::error::RefreshError;
use super::fetch::Fetch;
use super::filed::Filed;
use super::resident::Resident;
use super::rows::{Aside, Intake, Rows};
use super::source::Remote;
use super::status::{Board, Phase};

/// Between two tries to open a folder that cannot be had.
pub(super) const REOPEN_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Holder {
    pub definition: Definition,
    pub board: Arc<Board>,
    pub budget: Budget,
    pub rows: Rows,
    pub retention_due: Option<Instant>,
    /// Queries are refused although a table is held: `on_schema_change: fail`.
    is_refused: bool,
    /// The layout of the table that queries read.
    adopted: Option<Arc<Layout>>,
    /// What is wrong with the files, until the next refresh has mended it.
    findings: Option<String>,
    /// Of what kind the last failure was, until something succeeds.
    failing: Option<Discriminant<RefreshError>>,
}

impl Holder {
    pub(super) fn new(definition: Definition, board: Arc<Board>) -> Self {
        let budget = Budget::new(definition.name.clone(), &board.home.federation().memory_pool());
        // In files once the folder is open.
        let publication = Arc::clone(&board.publication);
        let rows = Resident::new(definition.name.clone(), budget.clone(), None, publication);
        let rows = Rows::Resident(rows);
        Self {
            definition,
            board,
            budget,
            rows,
            retention_due: None,
            is_refused: false,
            adopted: None,
            findings: None,
            failing: None,
        }
    }

    pub(super) fn name(&self) -> &DatasetName {
        &self.definition.name
    }

    /// Of the configuration of now.
    pub(super) fn federation(&self) -> Arc<Federation> {
        self.board.home.federation()
    }

    /// Opens the folder, where there is one, however often that has to be tried. Whether a generation was restored.
    pub(super) async fn open(&mut self) -> bool {
        loop {
            match self.open_folder().await {
                Ok(restored) => return restored,
                Err(error) => self.fails(&error),
            }
            self.board.enter(Phase::Error);
            sleep(REOPEN_INTERVAL).await;
        }
    }

    async fn open_folder(&mut self) -> Result<bool, RefreshError> {
        let Some(settings) = self.definition.disk.clone() else { return Ok(false) };
        let settings = Settings { memory_bytes_max: self.memory_left(), ..settings };
        let (residence, mode) = (settings.residence, settings.mode);
        let (name, budget) = (self.definition.name.clone(), self.budget.clone());
        // A try before this one may hold the folder.
        self.rows.forget();
        self.rows = Rows::Resident(Resident::new(name, budget, None, Arc::clone(&self.board.publication)));
        let opened = Folder::open(settings).await.map_err(RefreshError::disk(&self.definition.name))?;
        self.found(opened, residence, mode).await
    }

    /// Takes an open folder and what it held. Whether a generation was restored.
    ///
    /// # Errors
    /// Rows that cannot be served, where they may not be fetched anew.
    pub(super) async fn found(
        &mut self,
        opened: Opened,
        residence: Residence,
        mode: disk::Mode,
    ) -> Result<bool, RefreshError> {
        let (name, budget) = (self.definition.name.clone(), self.budget.clone());
        let publication = Arc::clone(&self.board.publication);
        if !opened.findings.is_empty() {
            let dataset = &self.definition.name;
            tracing::warn!(%dataset, findings = %opened.findings, "the stored generation is not what it was");
            self.board.explain(opened.findings.to_string());
            self.findings = Some(opened.findings.to_string());
            // What is served is not the last generation.
            self.definition.rules.refreshes_restored = true;
        }
        self.rows = match residence {
            Residence::Memory => {
                Rows::Resident(Resident::new(name, budget, Some(opened.folder), publication))
            }
            Residence::Files => {
                Rows::Filed(Filed::new(name, budget, opened.folder, self.reading(), publication))
            }
        };
        let Some(held) = opened.restored else { return Ok(false) };
        match self.restore(held).await {
            // The upstream has the rows too.
            Err(error) if mode != disk::Mode::FileUpdate && !self.definition.is_written => {
                self.rows.forget();
                self.fails(&error);
                Ok(false)
            }
            restored => restored.map(|()| true),
        }
    }

    async fn restore(&mut self, held: Restored) -> Result<(), RefreshError> {
        tracing::info!(dataset = %self.definition.name, rows = held.rows, generation = held.number, "found on disk");
        let layout = self.definition.layout(&held.schema)?;
        let is_last = self.findings.is_none();
        self.rows.restore(layout, held, is_last).await?;
        self.board.restored();
        self.adopt().await?;
        // Rows may have grown too old meanwhile.
        self.retention_due = self.definition.retention.as_ref().map(|_| Instant::now());
        Ok(())
    }

    /// What the memory that all share has left, in bytes; none without a limit.
    fn memory_left(&self) -> Option<u64> {
        let pool = self.federation().memory_pool();
        match pool.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit.saturating_sub(pool.reserved()) as u64),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        }
    }

    /// A session for reading what is held, with the memory that all share.
    pub(super) fn reading(&self) -> SessionContext {
        SessionContext::new_with_config_rt(SessionConfig::new(), self.federation().context().runtime_env())
    }

    /// What the upstream has, or what `sql` makes of it.
    pub(super) async fn plan(&self, sql: Option<&str>) -> Result<Fetch, RefreshError> {
        let name = &self.definition.name;
        // Rows are here: nobody waits for the upstream, and retention must not.
        let federation = self.federation();
        if let Some(reason) = federation.never_reached(name).filter(|_| self.rows.layout().is_some()) {
            return Err(RefreshError::never_reached(name, reason));
        }
        federation.source_schema(name).await;
        Fetch::plan(&federation, name, sql).await.map_err(self.failed())
    }

    pub(super) fn failed(&self) -> impl Fn(DataFusionError) -> RefreshError + use<> {
        RefreshError::fetch(&self.definition.name)
    }

    /// The layout of rows of `schema`: the one that is held, or another where that is followed.
    pub(super) fn layout_for(&mut self, schema: &SchemaRef) -> Result<Arc<Layout>, RefreshError> {
        let layout = Arc::new(self.definition.layout(schema)?);
        let held = match self.rows.layout() {
            Some(held) if held != layout => held,
            Some(held) => return Ok(held),
            None => return Ok(layout),
        };
        let drops = self.definition.change(held.schema(), schema)?;
        if drops {
            self.rows.forget();
            self.adopted = None;
            self.board.shows(None);
            self.board.home.await_table(None);
        }
        Ok(layout)
    }

    /// Makes the next generation of `intake` and shows it.
    pub(super) async fn take(&mut self, intake: Intake) -> Result<(), RefreshError> {
        self.rows.take(intake).await?;
        self.show().await
    }

    /// Shows a generation that was made aside. Its rows end at `upstream` in the stream of their upstream.
    pub(super) async fn finish(
        &mut self,
        aside: Aside,
        upstream: Option<Position>,
    ) -> Result<(), RefreshError> {
        self.rows.finish(aside, upstream).await?;
        self.show().await
    }

    /// Queries read what is held now.
    async fn show(&mut self) -> Result<(), RefreshError> {
        self.board.shows(self.rows.figures());
        let was_refused = std::mem::take(&mut self.is_refused);
        if was_refused || self.rows.layout() != self.adopted {
            self.adopt().await?;
        }
        Ok(())
    }

    /// Queries planned from now on read what is held.
    async fn adopt(&mut self) -> Result<(), RefreshError> {
        let name = &self.definition.name;
        let Some(mut provider) = self.rows.provider() else { return Ok(()) };
        if self.definition.uses_source {
            let source = Remote { home: self.board.home.clone(), name: name.clone() };
            provider = Arc::new(OrSource::new(provider, Arc::new(source)));
        }
        self.board.shows(self.rows.figures());
        self.board.home.keep_table(provider).await.map_err(self.failed())?;
        self.adopted = self.rows.layout();
        if let (Some(puts), Some(layout)) = (&self.board.puts, &self.adopted) {
            puts.open(layout.schema(), &self.budget);
        }
        Ok(())
    }

    /// True for the rows that are kept no longer.
    pub(super) fn dropped(&self, layout: &Layout) -> Result<Vec<Arc<dyn PhysicalExpr>>, RefreshError> {
        let Some(retention) = &self.definition.retention else { return Ok(Vec::new()) };
        let state = self.federation().sources().state();
        retention.predicates(layout, &state, now()).map_err(self.failed())
    }

    pub(super) async fn retain(&mut self) {
        self.retention_due = self.definition.retention.as_ref().map(|it| Instant::now() + it.check_interval);
        let Some(layout) = self.rows.layout() else { return };
        let done = match self.dropped(&layout) {
            Ok(dropped) => self.rows.retain(dropped).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.board.shows(self.rows.figures()),
            Err(error) => self.fails(&error),
        }
    }

    /// What was wrong is mended.
    pub(super) fn heals(&mut self) {
        (self.findings, self.failing) = (None, None);
    }

    /// Tells why; queries go on with what they had.
    pub(super) fn fails(&mut self, error: &RefreshError) {
        let dataset = &self.definition.name;
        // One line for an outage, however often it is tried again.
        let kind = std::mem::discriminant(error);
        match self.failing.replace(kind) == Some(kind) {
            true => tracing::debug!(%dataset, %error, "refresh failed again"),
            false => tracing::warn!(%dataset, %error, "refresh failed"),
        }
        metrics::counter!("dataset_acceleration_refresh_errors", "dataset" => dataset.to_string())
            .increment(1);
        let reason = match &self.findings {
            Some(findings) => format!("{error}; {findings}"),
            None => error.to_string(),
        };
        self.board.explain(reason.clone());
        let is_refused =
            matches!(error, RefreshError::Changed { .. }) && self.definition.on_change == SchemaChange::Fail;
        self.is_refused |= is_refused;
        if (self.rows.layout().is_none() && self.definition.is_awaited) || is_refused {
            self.board.home.await_table(Some(reason));
        }
    }
}

/// The same rows; failures among them are told to the upstream's keeper too.
pub(super) fn reported(
    federation: &Federation,
    rows: SendableRecordBatchStream,
) -> SendableRecordBatchStream {
    let federation = federation.clone();
    let schema = rows.schema();
    let rows = rows.inspect_err(move |error| federation.report_scan(error));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}
