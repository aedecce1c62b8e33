//! One dataset's keeper: restores it, refreshes it when its schedule says so, and publishes each generation.
//!
//! It works on one thing at a time: refreshes, retention, compaction and writing to disk never meet.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::Utc;
use datafusion::logical_expr::{Expr, ident};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::acceleration::store::Layout;
use crate::task::at;
use crate::telemetry::Span;

use super::asks::{Ask, AskMode};
use super::definition::Mode;
use super::error::RefreshError;
use super::fetch::Fetch;
use super::holder::{Holder, REOPEN_INTERVAL, now, reported};
use super::puts::Puts;
use super::retention::nanoseconds;
use super::rows::{Intake, Onto, stream_of};
use super::schedule::{Action, Event, State, Until, next};
use super::since::at_or_after;
use super::status::Phase;
use super::write::settle;

/// A refresh in the history; the deployment guide knows it by another name.
const TASK: &str = "accelerated_refresh";
const TASK_ALIAS: &str = "accelerated_table_refresh";

pub(super) struct Keeper {
    held: Holder,
    /// First loads take turns.
    loads: Arc<Semaphore>,
    /// What failed and is to be tried again.
    pending: Option<Ask>,
}

impl Keeper {
    pub(super) fn new(held: Holder, loads: Arc<Semaphore>) -> Self {
        Self { held, loads, pending: None }
    }

    /// Until `stop` is cancelled; what runs then is dropped, and the last generation stays.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        let mut state = State::FIRST;
        let mut event = tokio::select! {
            () = stop.cancelled() => Event::Stopped,
            restored = self.open() => Event::Opened { restored },
        };
        loop {
            if let Some(definition) = self.held.board.redefined() {
                self.held.definition = definition;
            }
            let (after, action) = next(state, event, &self.held.definition.rules);
            (state, event) = (after, Event::Stopped);
            self.held.board.enter(state.phase);
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
            if state.phase == Phase::Refreshing && self.held.board.is_asked() {
                state = next(state, Event::Asked, &self.held.definition.rules).0;
            }
            event = done;
        }
    }

    /// Whether a generation was restored from disk.
    async fn open(&mut self) -> bool {
        let restored = self.held.open().await;
        if self.held.definition.rules.is_disabled && !restored {
            while let Err(error) = self.hold_nothing().await {
                self.held.fails(&error);
                self.held.board.enter(Phase::Error);
                sleep(REOPEN_INTERVAL).await;
            }
        }
        if !restored {
            let jitter = self.held.definition.cadence.jitter(&mut rand::rng());
            sleep(jitter).await;
        }
        restored
    }

    /// `refresh_mode: disabled` without anything on disk: an empty table, until somebody asks.
    async fn hold_nothing(&mut self) -> Result<(), RefreshError> {
        let fetch = self.plan(&Ask::default()).await?;
        let layout = self.held.layout_for(&fetch.schema())?;
        let rows = stream_of(&layout, Vec::new());
        self.held.take(Intake::load(layout, rows)).await
    }

    async fn wait(&mut self, until: Until) -> Event {
        if !matches!(until, Until::Retry { .. }) {
            // What is due next is the spicepod's refresh.
            self.pending = None;
        }
        let wait = self.held.definition.cadence.wait(until, Utc::now(), &mut rand::rng());
        let due = wait.map(|wait| Instant::now() + wait);
        let board = Arc::clone(&self.held.board);
        loop {
            if board.is_asked() {
                return Event::Asked;
            }
            if board.is_redefined() {
                return Event::Redefined;
            }
            tokio::select! {
                puts = Puts::next(board.puts.as_deref()) => settle(&mut self.held, puts).await,
                () = board.rung.notified() => {}
                () = at(due) => return Event::Tick,
                () = at(self.held.retention_due) => self.held.retain().await,
            }
        }
    }

    async fn refresh(&mut self) -> Event {
        // Somebody who asks now wants something newer than what failed.
        let failed = self.pending.take();
        let (number, ask) = match self.held.board.next_ask() {
            Some((number, ask)) => (Some(number), ask),
            None => (None, failed.unwrap_or_default()),
        };
        if let Some(most) = ask.jitter_max {
            let jitter = most.mul_f64(rand::random());
            sleep(jitter).await;
        }
        let begun = Instant::now();
        let dataset = self.held.name().clone();
        let span = self.held.federation().tracer().start(TASK, &dataset.to_string(), None);
        let done = span.context().clone().scope(self.run(&ask)).await;
        self.tell(&span, &ask, &done);
        drop(span);
        let elapsed_ms = begun.elapsed().as_secs_f64() * 1e3;
        match done {
            Ok(mode) => {
                let labels = [("dataset", dataset.to_string()), ("mode", mode.word().to_owned())];
                metrics::histogram!("dataset_acceleration_refresh_duration_ms", &labels).record(elapsed_ms);
                self.held.heals();
                self.held.board.refreshed(begun.elapsed());
                self.held.board.ended(number, None);
                let status = self.held.board.status();
                tracing::info!(%dataset, rows = status.rows, generation = status.generation, elapsed_ms, "refreshed");
                Event::Loaded
            }
            Err(error) => {
                let heals = error.heals();
                if heals {
                    self.pending = Some(Ask { jitter_max: None, ..ask });
                }
                self.held.fails(&error);
                self.held.board.ended(number, Some(error.to_string()));
                Event::Failed { heals }
            }
        }
    }

    /// The refresh as a task of the history.
    fn tell(&self, span: &Span, ask: &Ask, done: &Result<Mode, RefreshError>) {
        let (held, context) = (&self.held, span.context());
        context.label("task_alias", TASK_ALIAS);
        if let Some(sql) = self.sql(ask) {
            context.label("sql", sql);
        }
        match done {
            Ok(mode) => {
                context.label("mode", mode.word());
                context.label("rows_kept", held.board.status().rows.to_string());
            }
            Err(error) => span.fail(&error.to_string()),
        }
    }

    /// One refresh; the mode that it turned out to be.
    async fn run(&mut self, ask: &Ask) -> Result<Mode, RefreshError> {
        let held = &mut self.held;
        if held.rows.layout().is_some() {
            held.federation().look_again(&held.definition.name).await;
        }
        let fetch = self.plan(ask).await?;
        let loads = Arc::clone(&self.loads);
        // What was restored takes its turn as well: many processes may start at once.
        let _turn = match self.held.board.status().last_refresh {
            None => loads.acquire().await.ok(),
            Some(_) => None,
        };
        let layout = self.held.layout_for(&fetch.schema())?;
        let failed = self.held.failed();
        let newer = self.newer(ask, &layout).map_err(&failed)?;
        let mode = if newer.is_some() { Mode::Append } else { Mode::Full };
        let filter = match &newer {
            Some(newer) => Some(newer.clone()),
            None => self.window(layout.schema()).map_err(&failed)?,
        };
        let fetch = match filter {
            Some(filter) => fetch.filtered(filter).map_err(&failed)?,
            None => fetch,
        };
        let held = &mut self.held;
        let counted = held.board.underway.begin();
        let rows = reported(&held.federation(), fetch.rows().await.map_err(&failed)?);
        let rows = counted.rows(held.definition.name.clone(), rows);
        let dropped = held.dropped(&layout)?;
        let onto = newer.map_or(Onto::Nothing, Onto::Asked);
        held.take(Intake { onto, dropped, ..Intake::load(layout, rows) }).await?;
        if let (None, Some(retention)) = (held.retention_due, &held.definition.retention) {
            held.retention_due = Some(Instant::now() + retention.check_interval);
        }
        Ok(mode)
    }

    async fn plan(&self, ask: &Ask) -> Result<Fetch, RefreshError> {
        self.held.plan(self.sql(ask).as_deref()).await
    }

    /// `refresh_sql`, as it is now.
    fn sql(&self, ask: &Ask) -> Option<String> {
        let held = &self.held;
        ask.sql.clone().or_else(|| held.board.sql()).or_else(|| held.definition.sql.clone())
    }

    /// Rows from the watermark less the overlap on, where rows are to stand on top of those of `layout`; none for a
    /// full load. A row without a time may be new whenever it comes: those are asked for each time, and counted out
    /// when they are here.
    fn newer(&self, ask: &Ask, layout: &Arc<Layout>) -> datafusion::error::Result<Option<Expr>> {
        let appends = match ask.mode {
            Some(mode) => mode == AskMode::Append,
            None => self.held.definition.mode == Mode::Append,
        };
        let same = self.held.rows.layout().is_some_and(|held| held == *layout);
        let watermark = self.held.rows.figures().and_then(|held| held.watermark);
        let (true, true, Some(watermark)) = (appends, same, watermark) else { return Ok(None) };
        let from = watermark.saturating_sub(nanoseconds(self.held.definition.append_overlap));
        let schema = layout.schema();
        let Some(newer) = self.from(schema, from)? else { return Ok(None) };
        let Some((column, _)) = &self.held.definition.time else { return Ok(None) };
        let may_be_null =
            self.held.definition.data_window.is_none() && schema.field_with_name(column)?.is_nullable();
        Ok(Some(if may_be_null { newer.or(ident(column).is_null()) } else { newer }))
    }

    /// The rows that a full load asks for: all, or those of `refresh_data_window`.
    fn window(&self, schema: &SchemaRef) -> datafusion::error::Result<Option<Expr>> {
        match self.held.definition.data_window {
            Some(window) => self.from(schema, now().saturating_sub(nanoseconds(window))),
            None => Ok(None),
        }
    }

    fn from(&self, schema: &SchemaRef, from: i64) -> datafusion::error::Result<Option<Expr>> {
        let Some((column, format)) = &self.held.definition.time else { return Ok(None) };
        at_or_after(schema.field_with_name(column)?, *format, from).map(Some)
    }
}
