//! One dataset's keeper: restores it, refreshes it when its schedule says so, and publishes each generation.
//!
//! It works on one thing at a time: refreshes, retention, compaction and writing to disk never meet.

use std::future::pending;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use chrono::Utc;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::logical_expr::{Expr, ident};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::acceleration::disk::{self, Folder, Residence, Restored, Settings};
use crate::acceleration::store::{Budget, Layout, OrSource};
use crate::config::SchemaChange;
use crate::federation::Federation;

use super::asks::{Ask, AskMode};
use super::definition::{Definition, Mode};
use super::error::RefreshError;
use super::fetch::Fetch;
use super::filed::Filed;
use super::resident::Resident;
use super::retention::nanoseconds;
use super::rows::{Intake, Rows};
use super::schedule::{Action, Event, State, Until, next};
use super::since::at_or_after;
use super::source::Remote;
use super::status::{Board, Phase};

/// Between two tries to open a folder that cannot be had.
const REOPEN_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    definition: Definition,
    federation: Federation,
    board: Arc<Board>,
    budget: Budget,
    /// First loads take turns.
    loads: Arc<Semaphore>,
    rows: Rows,
    /// What failed and is to be tried again.
    pending: Option<Ask>,
    retention_due: Option<Instant>,
    /// Queries are refused although a table is held: `on_schema_change: fail`.
    is_refused: bool,
    /// The layout of the table that queries read.
    adopted: Option<Arc<Layout>>,
    /// What is wrong with the files, until the next refresh has mended it.
    findings: Option<String>,
    /// Of what kind the last failure was, until a refresh succeeds.
    failing: Option<Discriminant<RefreshError>>,
}

impl Keeper {
    pub(super) fn new(
        definition: Definition,
        federation: Federation,
        board: Arc<Board>,
        loads: Arc<Semaphore>,
    ) -> Self {
        let pool = &federation.context().runtime_env().memory_pool;
        let budget = Budget::new(definition.name.clone(), pool);
        // In files once the folder is open.
        let rows = Rows::Resident(Resident::new(definition.name.clone(), budget.clone(), None));
        Self {
            definition,
            federation,
            board,
            budget,
            loads,
            rows,
            pending: None,
            retention_due: None,
            is_refused: false,
            adopted: None,
            findings: None,
            failing: None,
        }
    }

    /// Until `stop` is cancelled; what runs then is dropped, and the last generation stays.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        let mut state = State::FIRST;
        let mut event = tokio::select! {
            () = stop.cancelled() => Event::Stopped,
            restored = self.open() => Event::Opened { restored },
        };
        loop {
            let (after, action) = next(state, event, &self.definition.rules);
            (state, event) = (after, Event::Stopped);
            self.board.enter(state.phase);
            let done = match action {
                Action::Refresh => tokio::select! {
                    () = stop.cancelled() => continue,
                    done = self.refresh() => done,
                },
                Action::Wait(until) => tokio::select! {
                    () = stop.cancelled() => continue,
                    due = self.wait(until) => due,
                },
                // Events come here only when nothing runs.
                Action::GoOn | Action::End => return,
            };
            if state.phase == Phase::Refreshing && self.board.is_asked() {
                state = next(state, Event::Asked, &self.definition.rules).0;
            }
            event = done;
        }
    }

    /// Whether a generation was restored from disk.
    async fn open(&mut self) -> bool {
        let restored = match &self.definition.disk {
            None => false,
            Some(_) => loop {
                match self.open_folder().await {
                    Ok(restored) => break restored,
                    Err(error) => self.fails(&error).await,
                }
                self.board.enter(Phase::Error);
                sleep(REOPEN_INTERVAL).await;
            },
        };
        if self.definition.rules.is_disabled && !restored {
            while let Err(error) = self.hold_nothing().await {
                self.fails(&error).await;
                self.board.enter(Phase::Error);
                sleep(REOPEN_INTERVAL).await;
            }
        }
        if !restored {
            let jitter = self.definition.cadence.jitter(&mut rand::rng());
            sleep(jitter).await;
        }
        restored
    }

    async fn open_folder(&mut self) -> Result<bool, RefreshError> {
        let Some(settings) = self.definition.disk.clone() else { return Ok(false) };
        let settings = Settings { memory_bytes_max: self.memory_left(), ..settings };
        let (residence, mode) = (settings.residence, settings.mode);
        let (name, budget) = (self.definition.name.clone(), self.budget.clone());
        // A try before this one may hold the folder.
        self.rows = Rows::Resident(Resident::new(name.clone(), budget.clone(), None));
        let opened = Folder::open(settings).await.map_err(RefreshError::disk(&self.definition.name))?;
        if !opened.findings.is_empty() {
            let dataset = &self.definition.name;
            tracing::warn!(%dataset, findings = %opened.findings, "the stored generation is not what it was");
            self.board.explain(opened.findings.to_string());
            self.findings = Some(opened.findings.to_string());
            // What is served is not the last generation.
            self.definition.rules.refreshes_restored = true;
        }
        self.rows = match residence {
            Residence::Memory => Rows::Resident(Resident::new(name, budget, Some(opened.folder))),
            Residence::Files => Rows::Filed(Filed::new(name, budget, opened.folder, self.reading())),
        };
        let Some(held) = opened.restored else { return Ok(false) };
        match self.restore(held).await {
            // The upstream has the rows too.
            Err(error) if mode != disk::Mode::FileUpdate => {
                self.rows.forget();
                self.fails(&error).await;
                Ok(false)
            }
            restored => restored.map(|()| true),
        }
    }

    async fn restore(&mut self, held: Restored) -> Result<(), RefreshError> {
        tracing::info!(dataset = %self.definition.name, rows = held.rows, generation = held.number, "found on disk");
        let layout = self.definition.layout(&held.schema)?;
        self.rows.restore(layout, held).await?;
        self.board.restored();
        self.adopt().await?;
        // Rows may have grown too old meanwhile.
        self.retention_due = self.definition.retention.as_ref().map(|_| Instant::now());
        Ok(())
    }

    /// What the memory that all share has left, in bytes; none without a limit.
    fn memory_left(&self) -> Option<u64> {
        let pool = self.federation.memory_pool();
        match pool.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit.saturating_sub(pool.reserved()) as u64),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        }
    }

    /// A session for reading files, with the memory that all share.
    fn reading(&self) -> SessionContext {
        SessionContext::new_with_config_rt(SessionConfig::new(), self.federation.context().runtime_env())
    }

    /// `refresh_mode: disabled` without anything on disk: an empty table, until somebody asks.
    async fn hold_nothing(&mut self) -> Result<(), RefreshError> {
        let fetch = self.plan(&Ask::default()).await?;
        let layout = self.layout_for(&fetch.schema())?;
        let rows = RecordBatchStreamAdapter::new(fetch.schema(), futures::stream::empty());
        let intake = Intake { layout, newer: None, rows: Box::pin(rows), dropped: Vec::new() };
        self.rows.take(intake).await?;
        self.adopt().await
    }

    async fn wait(&mut self, until: Until) -> Event {
        if !matches!(until, Until::Retry { .. }) {
            // What is due next is the spicepod's refresh.
            self.pending = None;
        }
        let wait = self.definition.cadence.wait(until, Utc::now(), &mut rand::rng());
        let due = wait.map(|wait| Instant::now() + wait);
        let board = Arc::clone(&self.board);
        loop {
            if board.is_asked() {
                return Event::Asked;
            }
            tokio::select! {
                () = board.rung.notified() => {}
                () = at(due) => return Event::Tick,
                () = at(self.retention_due) => self.retain().await,
            }
        }
    }

    async fn refresh(&mut self) -> Event {
        // Somebody who asks now wants something newer than what failed.
        let failed = self.pending.take();
        let (number, ask) = match self.board.next_ask() {
            Some((number, ask)) => (Some(number), ask),
            None => (None, failed.unwrap_or_default()),
        };
        if let Some(most) = ask.jitter_max {
            let jitter = most.mul_f64(rand::random());
            sleep(jitter).await;
        }
        let begun = Instant::now();
        let done = self.run(&ask).await;
        let dataset = &self.definition.name;
        let elapsed_ms = begun.elapsed().as_secs_f64() * 1e3;
        match done {
            Ok(mode) => {
                let labels = [("dataset", dataset.to_string()), ("mode", mode.word().to_owned())];
                metrics::histogram!("dataset_acceleration_refresh_duration_ms", &labels).record(elapsed_ms);
                (self.findings, self.failing) = (None, None);
                self.board.refreshed(begun.elapsed());
                self.board.ended(number, None);
                let status = self.board.status();
                tracing::info!(%dataset, rows = status.rows, generation = status.generation, elapsed_ms, "refreshed");
                Event::Loaded
            }
            Err(error) => {
                let heals = error.heals();
                if heals {
                    self.pending = Some(Ask { jitter_max: None, ..ask });
                }
                self.fails(&error).await;
                self.board.ended(number, Some(error.to_string()));
                Event::Failed { heals }
            }
        }
    }

    /// Tells why; queries go on with what they had.
    async fn fails(&mut self, error: &RefreshError) {
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
            self.federation.await_here(dataset, Some(reason));
        }
    }

    /// One refresh; the mode that it turned out to be.
    async fn run(&mut self, ask: &Ask) -> Result<Mode, RefreshError> {
        if self.rows.layout().is_some() {
            self.federation.look_again(&self.definition.name).await;
        }
        let fetch = self.plan(ask).await?;
        let loads = Arc::clone(&self.loads);
        // What was restored takes its turn as well: many processes may start at once.
        let _turn = match self.board.status().last_refresh {
            None => loads.acquire().await.ok(),
            Some(_) => None,
        };
        let layout = self.layout_for(&fetch.schema())?;
        let newer = self.newer(ask, &layout).map_err(self.failed())?;
        let mode = if newer.is_some() { Mode::Append } else { Mode::Full };
        let filter = match &newer {
            Some(newer) => Some(newer.clone()),
            None => self.window(layout.schema()).map_err(self.failed())?,
        };
        let fetch = match filter {
            Some(filter) => fetch.filtered(filter).map_err(self.failed())?,
            None => fetch,
        };
        let counted = self.board.underway.begin();
        let rows = self.reported(fetch.rows().await.map_err(self.failed())?);
        let rows = counted.rows(self.definition.name.clone(), rows);
        let dropped = self.dropped(&layout)?;
        self.rows.take(Intake { layout, newer, rows, dropped }).await?;
        self.board.shows(self.rows.figures());
        let was_refused = std::mem::take(&mut self.is_refused);
        if was_refused || self.rows.layout() != self.adopted {
            self.adopt().await?;
        }
        if let (None, Some(retention)) = (self.retention_due, &self.definition.retention) {
            self.retention_due = Some(Instant::now() + retention.check_interval);
        }
        Ok(mode)
    }

    async fn plan(&self, ask: &Ask) -> Result<Fetch, RefreshError> {
        let name = &self.definition.name;
        // Rows are here: nobody waits for the upstream, and retention must not.
        if let Some(reason) = self.federation.never_reached(name).filter(|_| self.rows.layout().is_some()) {
            return Err(RefreshError::never_reached(name, reason));
        }
        self.federation.source_schema(name).await;
        let sql = ask.sql.clone().or_else(|| self.board.sql()).or_else(|| self.definition.sql.clone());
        Fetch::plan(&self.federation, name, sql.as_deref()).await.map_err(self.failed())
    }

    /// Failures among the rows are told to the upstream's keeper too.
    fn reported(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let federation = self.federation.clone();
        let schema = rows.schema();
        let rows = rows.inspect_err(move |error| federation.report_scan(error));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }

    fn failed(&self) -> impl Fn(DataFusionError) -> RefreshError + use<> {
        RefreshError::fetch(&self.definition.name)
    }

    /// Rows from the watermark less the overlap on, where rows are to stand on top of those of `layout`; none for a
    /// full load. A row without a time may be new whenever it comes: those are asked for each time, and counted out
    /// when they are here.
    fn newer(&self, ask: &Ask, layout: &Arc<Layout>) -> datafusion::error::Result<Option<Expr>> {
        let appends = match ask.mode {
            Some(mode) => mode == AskMode::Append,
            None => self.definition.mode == Mode::Append,
        };
        let same = self.rows.layout().is_some_and(|held| held == *layout);
        let watermark = self.rows.figures().and_then(|held| held.watermark);
        let (true, true, Some(watermark)) = (appends, same, watermark) else { return Ok(None) };
        let from = watermark.saturating_sub(nanoseconds(self.definition.append_overlap));
        let schema = layout.schema();
        let Some(newer) = self.from(schema, from)? else { return Ok(None) };
        let Some((column, _)) = &self.definition.time else { return Ok(None) };
        let may_be_null =
            self.definition.data_window.is_none() && schema.field_with_name(column)?.is_nullable();
        Ok(Some(if may_be_null { newer.or(ident(column).is_null()) } else { newer }))
    }

    /// The rows that a full load asks for: all, or those of `refresh_data_window`.
    fn window(&self, schema: &SchemaRef) -> datafusion::error::Result<Option<Expr>> {
        match self.definition.data_window {
            Some(window) => self.from(schema, now().saturating_sub(nanoseconds(window))),
            None => Ok(None),
        }
    }

    fn from(&self, schema: &SchemaRef, from: i64) -> datafusion::error::Result<Option<Expr>> {
        let Some((column, format)) = &self.definition.time else { return Ok(None) };
        at_or_after(schema.field_with_name(column)?, *format, from).map(Some)
    }

    /// The layout of rows of `schema`: the one that is held, or another where that is followed.
    fn layout_for(&mut self, schema: &SchemaRef) -> Result<Arc<Layout>, RefreshError> {
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
            self.federation.await_here(&self.definition.name, None);
        }
        Ok(layout)
    }

    /// Queries planned from now on read what is held.
    async fn adopt(&mut self) -> Result<(), RefreshError> {
        let name = &self.definition.name;
        let Some(mut provider) = self.rows.provider() else { return Ok(()) };
        if self.definition.uses_source {
            let source = Remote { federation: self.federation.clone(), name: name.clone() };
            provider = Arc::new(OrSource::new(provider, Arc::new(source)));
        }
        self.board.shows(self.rows.figures());
        self.federation.keep_here(name, provider).await.map_err(self.failed())?;
        self.adopted = self.rows.layout();
        Ok(())
    }

    /// True for the rows that are kept no longer.
    fn dropped(&self, layout: &Layout) -> Result<Vec<Arc<dyn PhysicalExpr>>, RefreshError> {
        let Some(retention) = &self.definition.retention else { return Ok(Vec::new()) };
        let state = self.federation.sources().state();
        retention.predicates(layout, &state, now()).map_err(self.failed())
    }

    async fn retain(&mut self) {
        self.retention_due = self.definition.retention.as_ref().map(|it| Instant::now() + it.check_interval);
        let Some(layout) = self.rows.layout() else { return };
        let done = match self.dropped(&layout) {
            Ok(dropped) => self.rows.retain(dropped).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.board.shows(self.rows.figures()),
            Err(error) => self.fails(&error).await,
        }
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
