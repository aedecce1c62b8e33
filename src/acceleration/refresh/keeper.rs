//! One dataset's keeper: restores it, refreshes it when its schedule says so, and publishes each generation.
//!
//! It works on one thing at a time: refreshes, retention, compaction and writing to disk never meet.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use chrono::Utc;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ident};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::acceleration::disk::{self, Chunks, Commit, Folder, Restored};
use crate::acceleration::store::{
    AcceleratedTable, Append, Budget, Generation, Load, Source, Table, compacted, restored, without,
};
use crate::federation::Federation;
use crate::task::blocking;

use super::build::Build;
use super::definition::{Definition, Mode, OnChange};
use super::error::RefreshError;
use super::fetch::Fetch;
use super::retention::{Retention, nanoseconds};
use super::schedule::{Action, Event, State, Until, next};
use super::since::at_or_after;
use super::source::Remote;
use super::status::{Ask, AskMode, Board, Phase};

/// Between two tries to open a folder that cannot be had.
const REOPEN_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    definition: Definition,
    federation: Federation,
    board: Arc<Board>,
    budget: Budget,
    /// First loads take turns.
    loads: Arc<Semaphore>,
    folder: Option<Folder>,
    /// What queries read; none before the first generation.
    table: Option<Arc<Table>>,
    /// What failed and is to be tried again.
    pending: Option<Ask>,
    retention_due: Option<Instant>,
    /// Queries are refused although a table is held: `on_schema_change: fail`.
    is_refused: bool,
    /// What is wrong with the files, until the next refresh has mended it.
    findings: Option<String>,
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
        let (folder, table, pending, retention_due) = (None, None, None, None);
        let (is_refused, findings) = (false, None);
        Self {
            definition,
            federation,
            board,
            budget,
            loads,
            folder,
            table,
            pending,
            retention_due,
            is_refused,
            findings,
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
        let must_restore = settings.mode == disk::Mode::FileUpdate;
        // A try before this one may hold it.
        self.folder = None;
        let opened = Folder::open(settings).await.map_err(RefreshError::disk(&self.definition.name))?;
        self.folder = Some(opened.folder);
        if !opened.findings.is_empty() {
            let dataset = &self.definition.name;
            tracing::warn!(%dataset, findings = %opened.findings, "the stored generation is not what it was");
            self.board.explain(opened.findings.to_string());
            self.findings = Some(opened.findings.to_string());
            // What is served is not the last generation.
            self.definition.rules.refreshes_restored = true;
        }
        let Some(held) = opened.restored else { return Ok(false) };
        match self.restore(held).await {
            Err(error) if !must_restore => {
                self.table = None;
                self.fails(&error).await;
                Ok(false)
            }
            restored => restored,
        }
    }

    async fn restore(&mut self, held: Restored) -> Result<bool, RefreshError> {
        let Chunks::Memory(batches) = held.chunks else { return Ok(false) };
        let layout = Arc::new(self.definition.layout(&held.schema)?);
        let table = Arc::new(Table::new(Arc::clone(&layout)));
        let budget = self.budget.clone();
        let (number, watermark) = (held.number, held.watermark);
        let generation =
            blocking("restore table", move || restored(&layout, batches, number, watermark, &budget));
        table.publish(generation.await??)?;
        self.adopt(table).await?;
        // Rows have grown older while nobody looked.
        self.retention_due = self.definition.retention.as_ref().map(|_| Instant::now());
        Ok(true)
    }

    /// `refresh_mode: disabled` without anything on disk: an empty table, until somebody asks.
    async fn hold_nothing(&mut self) -> Result<(), RefreshError> {
        let fetch = self.plan(&Ask::default()).await?;
        let table = self.table_for(&fetch.schema()).await?;
        let empty = Load::begin(Arc::clone(table.layout()), None, self.budget.clone()).finish()?;
        self.publish(&table, empty).await
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
        let ask = self.board.next_ask().or(failed).unwrap_or_default();
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
                self.findings = None;
                self.board.refreshed();
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
                Event::Failed { heals }
            }
        }
    }

    /// Tells why; queries go on with what they had.
    async fn fails(&mut self, error: &RefreshError) {
        let dataset = &self.definition.name;
        tracing::warn!(%dataset, %error, "refresh failed");
        metrics::counter!("dataset_acceleration_refresh_errors", "dataset" => dataset.to_string())
            .increment(1);
        let reason = match &self.findings {
            Some(findings) => format!("{error}; {findings}"),
            None => error.to_string(),
        };
        self.board.explain(reason.clone());
        let is_refused =
            matches!(error, RefreshError::Changed { .. }) && self.definition.on_change == OnChange::Fail;
        self.is_refused |= is_refused;
        if (self.table.is_none() && self.definition.is_awaited) || is_refused {
            self.federation.await_here(dataset, Some(reason));
        }
    }

    /// One refresh; the mode that it turned out to be.
    async fn run(&mut self, ask: &Ask) -> Result<Mode, RefreshError> {
        if self.table.is_some() {
            self.federation.look_again(&self.definition.name).await;
        }
        let fetch = self.plan(ask).await?;
        let loads = Arc::clone(&self.loads);
        let _turn = match self.board.status().last_refresh {
            None => loads.acquire().await.ok(),
            Some(_) => None,
        };
        let table = self.table_for(&fetch.schema()).await?;
        let mode = match ask.mode {
            Some(AskMode::Full) => Mode::Full,
            Some(AskMode::Append) => Mode::Append,
            None => self.definition.mode,
        };
        let since = table.pin().and_then(|previous| Some((previous.watermark()?, previous)));
        let (mode, build, filter) = match (mode, since) {
            (Mode::Append, Some((watermark, previous))) => {
                let filter = self.newer(&fetch.schema(), watermark).map_err(self.failed())?;
                (Mode::Append, Build::Append(Append::begin(previous, self.budget.clone())), filter)
            }
            _ => {
                let filter = self.window(&fetch.schema()).map_err(self.failed())?;
                let load = Load::begin(Arc::clone(table.layout()), self.pin(), self.budget.clone());
                (Mode::Full, Build::Load(load), filter)
            }
        };
        let fetch = match filter {
            Some(filter) => fetch.filtered(filter).map_err(self.failed())?,
            None => fetch,
        };
        let rows = fetch.rows().await.map_err(self.failed())?;
        if let Some(generation) = build.take(&self.definition.name, self.reported(rows)).await? {
            let generation = self.retained(generation).await?;
            self.publish(&table, generation).await?;
            self.compact(&table).await?;
        }
        if std::mem::take(&mut self.is_refused) {
            self.adopt(table).await?;
        }
        Ok(mode)
    }

    async fn plan(&self, ask: &Ask) -> Result<Fetch, RefreshError> {
        let name = &self.definition.name;
        // Rows are here: nobody waits for the upstream, and retention must not.
        if let Some(reason) = self.federation.never_reached(name).filter(|_| self.table.is_some()) {
            return Err(RefreshError::never_reached(name, reason));
        }
        self.federation.source_schema(name).await;
        let sql = ask.sql.clone().or_else(|| self.board.sql()).or_else(|| self.definition.sql.clone());
        Fetch::plan(&self.federation, name, sql.as_deref()).await.map_err(self.failed())
    }

    /// Failures among the rows are told to the upstream's keeper too.
    fn reported(
        &self,
        rows: datafusion::execution::SendableRecordBatchStream,
    ) -> datafusion::execution::SendableRecordBatchStream {
        use futures::TryStreamExt;
        let federation = self.federation.clone();
        let schema = rows.schema();
        let rows = rows.inspect_err(move |error| federation.report_scan(error));
        Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, rows))
    }

    fn failed(&self) -> impl Fn(DataFusionError) -> RefreshError + use<> {
        RefreshError::fetch(&self.definition.name)
    }

    fn pin(&self) -> Option<Arc<Generation>> {
        self.table.as_ref().and_then(|table| table.pin())
    }

    /// Rows from the watermark less the overlap on. A row without a time may be new whenever it comes: those are
    /// asked for each time, and counted out when they are here.
    fn newer(&self, schema: &SchemaRef, watermark: i64) -> datafusion::error::Result<Option<Expr>> {
        let from = watermark.saturating_sub(nanoseconds(self.definition.append_overlap));
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

    /// The table that rows of `schema` go to: the one that is there, or a new one.
    async fn table_for(&mut self, schema: &SchemaRef) -> Result<Arc<Table>, RefreshError> {
        let layout = self.definition.layout(schema)?;
        let Some(table) = &self.table else { return Ok(Arc::new(Table::new(Arc::new(layout)))) };
        if **table.layout() == layout {
            return Ok(Arc::clone(table));
        }
        let changed = self.definition.change(table.layout().schema(), schema);
        match changed {
            Err(error) => Err(error),
            Ok(drops) => {
                if drops {
                    self.table = None;
                    self.federation.await_here(&self.definition.name, None);
                }
                Ok(Arc::new(Table::new(Arc::new(layout))))
            }
        }
    }

    /// Queries planned from now on read `generation`; then it goes to disk.
    async fn publish(&mut self, table: &Arc<Table>, generation: Arc<Generation>) -> Result<(), RefreshError> {
        table.publish(Arc::clone(&generation))?;
        if self.table.as_ref().is_none_or(|held| !Arc::ptr_eq(held, table)) {
            self.adopt(Arc::clone(table)).await?;
        }
        self.measure(&generation);
        self.commit(&generation).await
    }

    async fn adopt(&mut self, table: Arc<Table>) -> Result<(), RefreshError> {
        let name = &self.definition.name;
        let remote = || Remote { federation: self.federation.clone(), name: name.clone() };
        let source = self.definition.uses_source.then(|| Arc::new(remote()) as Arc<dyn Source>);
        let provider = Arc::new(AcceleratedTable::new(Arc::clone(&table), source));
        self.board.shows(Arc::clone(&table));
        self.table = Some(table);
        self.federation.keep_here(name, provider).await.map_err(self.failed())
    }

    fn measure(&self, generation: &Generation) {
        let dataset = self.definition.name.to_string();
        metrics::gauge!("dataset_acceleration_size_bytes", "dataset" => dataset.clone())
            .set(generation.bytes() as f64);
        metrics::gauge!("dataset_acceleration_rows", "dataset" => dataset).set(generation.rows() as f64);
    }

    async fn commit(&mut self, generation: &Generation) -> Result<(), RefreshError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let chunks = generation.chunks().iter().map(|chunk| (chunk.id(), chunk.batch().clone())).collect();
        let commit = Commit {
            number: generation.number(),
            schema: Arc::clone(generation.layout().schema()),
            watermark: generation.watermark(),
            resume: None,
        };
        folder.commit(commit, chunks).await.map_err(RefreshError::disk(&self.definition.name))
    }

    async fn compact(&mut self, table: &Arc<Table>) -> Result<(), RefreshError> {
        let Some(generation) = table.pin() else { return Ok(()) };
        let budget = self.budget.clone();
        match blocking("compact table", move || compacted(&generation, &budget)).await?? {
            Some(joined) => self.publish(table, joined).await,
            None => Ok(()),
        }
    }

    /// `generation` without the rows that are kept no longer.
    async fn retained(&mut self, generation: Arc<Generation>) -> Result<Arc<Generation>, RefreshError> {
        let Some(retention) = self.definition.retention.clone() else { return Ok(generation) };
        self.retention_due = Some(Instant::now() + retention.check_interval);
        let predicates = self.predicates(&retention, &generation)?;
        let budget = self.budget.clone();
        let kept = blocking("retention", move || {
            predicates.iter().try_fold(generation, |generation, predicate| {
                Ok::<_, RefreshError>(without(&generation, predicate, &budget)?.unwrap_or(generation))
            })
        });
        kept.await?
    }

    fn predicates(
        &self,
        retention: &Retention,
        generation: &Generation,
    ) -> Result<Vec<Arc<dyn datafusion::physical_plan::PhysicalExpr>>, RefreshError> {
        let state = self.federation.sources().state();
        retention.predicates(generation.layout(), &state, now()).map_err(self.failed())
    }

    async fn retain(&mut self) {
        self.retention_due = self.definition.retention.as_ref().map(|it| Instant::now() + it.check_interval);
        let (Some(table), Some(generation)) = (self.table.clone(), self.pin()) else { return };
        let number = generation.number();
        let done = match self.retained(generation).await {
            Ok(kept) if kept.number() == number => Ok(()),
            Ok(kept) => self.publish(&table, kept).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.fails(&error).await;
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
