//! What is told of an accelerated dataset, and what is asked of it: shared between its keeper and everybody else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::acceleration::publish::Publication;
use crate::name::DatasetName;

use super::asks::{Ask, AskError, Asks, Refreshes};
use super::definition::Definition;
use super::home::Home;
use super::progress::{Progress, Underway};
use super::puts::{PutError, Puts, Writer};
use super::rows::Figures;
use super::stream::{StreamStatus, Told};

/// Where a dataset is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Initializing,
    Ready,
    Refreshing,
    /// The last refresh failed; what was held before is still answered.
    Error,
    Disabled,
    ShuttingDown,
}

/// An accelerated dataset as `/v1/datasets?status=true` tells it.
#[derive(Debug, Clone)]
pub struct Status {
    pub phase: Phase,
    /// Of an error, or what was found on disk.
    pub reason: Option<String>,
    /// When the phase began.
    pub since: SystemTime,
    pub rows: usize,
    pub bytes: usize,
    /// None before the first load.
    pub generation: Option<u64>,
    /// This process began with rows that it found on disk.
    pub is_restored: bool,
    /// The end of the last refresh that succeeded in this process.
    pub last_refresh: Option<SystemTime>,
    /// How long that took.
    pub last_refresh_took: Option<Duration>,
    /// The latest moment of the time column.
    pub watermark: Option<SystemTime>,
    /// The same before the last refresh that succeeded.
    pub watermark_before: Option<SystemTime>,
    /// Of the refresh that runs.
    pub progress: Option<Progress>,
    /// Those that somebody asked for.
    pub refreshes: Refreshes,
    /// Of a dataset that follows an append stream.
    pub stream: Option<StreamStatus>,
}

/// The board of one dataset: its keeper writes the state, others write what they want.
pub(super) struct Board {
    pub name: DatasetName,
    /// Where queries find it.
    pub home: Home,
    /// What it is now, and was last told to be.
    definition: ArcSwap<Definition>,
    /// The definition is another one than its keeper knows.
    is_redefined: AtomicBool,
    /// Its keeper is to end, with the process or before it.
    stop: OnceLock<CancellationToken>,
    /// Cancelled when another board takes the place of this one, or none.
    pub retired: CancellationToken,
    /// There is a time column, without which nothing can be appended.
    pub has_time: bool,
    /// Its columns; none where none is declared.
    pub primary_key: Vec<String>,
    told: Mutex<Words>,
    figures: ArcSwapOption<Figures>,
    asks: Mutex<Asks>,
    /// `refresh_sql` until the restart, where it was changed.
    sql: Mutex<Option<String>>,
    pub rung: Notify,
    /// What clients write; none where nobody may.
    pub puts: Option<Arc<Puts>>,
    /// How its append stream is; none where it follows none.
    pub stream: Option<Arc<Told>>,
    /// The refresh that takes rows now.
    pub underway: Arc<Underway>,
    /// What subscribers follow.
    pub publication: Arc<Publication>,
}

struct Words {
    phase: Phase,
    reason: Option<String>,
    since: SystemTime,
    is_restored: bool,
    last_refresh: Option<(SystemTime, Duration)>,
    /// The watermark as the refresh that runs, or ran last, began.
    watermark_at_begin: Option<SystemTime>,
    watermark_before: Option<SystemTime>,
}

impl Phase {
    /// As the public runtime writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Initializing => "Initializing",
            Self::Ready => "Ready",
            Self::Refreshing => "Refreshing",
            Self::Error => "Error",
            Self::Disabled => "Disabled",
            Self::ShuttingDown => "ShuttingDown",
        }
    }
}

impl Status {
    /// Nothing held yet.
    #[must_use]
    pub fn new(since: SystemTime) -> Self {
        Self {
            phase: Phase::Initializing,
            reason: None,
            since,
            rows: 0,
            bytes: 0,
            generation: None,
            is_restored: false,
            last_refresh: None,
            last_refresh_took: None,
            watermark: None,
            watermark_before: None,
            progress: None,
            refreshes: Refreshes::default(),
            stream: None,
        }
    }

    /// Since an append stream was last known to be whole, or how far the newest row is behind now; none without either.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        if let Some(stream) = &self.stream {
            return Some(stream.lag);
        }
        self.watermark.map(|watermark| watermark.elapsed().unwrap_or(Duration::ZERO))
    }
}

impl Board {
    pub(super) fn new(definition: &Definition, home: Home, publication: Arc<Publication>) -> Arc<Self> {
        let name = definition.name.clone();
        let puts = definition.is_written.then(|| Puts::new(name.clone()));
        let has_time = definition.time.is_some();
        let stream = definition.stream.map(|stream| Arc::new(Told::new(name.clone(), stream.acceptable_lag)));
        let told = Words {
            phase: Phase::Initializing,
            reason: None,
            since: SystemTime::now(),
            is_restored: false,
            last_refresh: None,
            watermark_at_begin: None,
            watermark_before: None,
        };
        Arc::new(Self {
            name,
            home,
            definition: ArcSwap::from_pointee(definition.clone()),
            is_redefined: AtomicBool::new(false),
            stop: OnceLock::new(),
            retired: CancellationToken::new(),
            has_time,
            primary_key: definition.primary_key(),
            told: Mutex::new(told),
            figures: ArcSwapOption::empty(),
            asks: Mutex::default(),
            sql: Mutex::default(),
            rung: Notify::new(),
            puts,
            stream,
            underway: Arc::default(),
            publication,
        })
    }

    pub(super) fn status(&self) -> Status {
        let held = self.figures.load_full();
        let refreshes = lock(&self.asks).told();
        let told = lock(&self.told);
        Status {
            phase: told.phase,
            reason: told.reason.clone(),
            since: told.since,
            rows: held.as_ref().map_or(0, |held| held.rows),
            bytes: held.as_ref().map_or(0, |held| held.bytes),
            generation: held.as_ref().map(|held| held.generation),
            is_restored: told.is_restored,
            last_refresh: told.last_refresh.map(|(ended, _)| ended),
            last_refresh_took: told.last_refresh.map(|(_, took)| took),
            watermark: held.and_then(|held| held.watermark).map(moment),
            watermark_before: told.watermark_before,
            progress: self.underway.progress(),
            refreshes,
            stream: self.stream.as_ref().map(|stream| stream.status()),
        }
    }

    fn watermark(&self) -> Option<SystemTime> {
        self.figures.load().as_ref().and_then(|held| held.watermark).map(moment)
    }

    /// A new phase; its reason stays until another is told, or all is well.
    pub(super) fn enter(&self, phase: Phase) {
        let watermark = self.watermark();
        let mut told = lock(&self.told);
        if told.phase != phase {
            (told.phase, told.since) = (phase, SystemTime::now());
        }
        if phase == Phase::Refreshing {
            told.watermark_at_begin = watermark;
        }
        if phase == Phase::Ready {
            told.reason = None;
        }
    }

    pub(super) fn explain(&self, reason: String) {
        lock(&self.told).reason = Some(reason);
    }

    /// Rows were found on disk.
    pub(super) fn restored(&self) {
        lock(&self.told).is_restored = true;
    }

    /// A refresh has succeeded, and took so long.
    pub(super) fn refreshed(&self, took: Duration) {
        let mut told = lock(&self.told);
        told.last_refresh = Some((SystemTime::now(), took));
        told.watermark_before = told.watermark_at_begin;
    }

    /// What queries read from now on.
    pub(super) fn shows(&self, figures: Option<Figures>) {
        self.figures.store(figures.map(Arc::new));
    }

    /// Joins an equal one that waits, or queues. Its number.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn ask(&self, ask: Ask) -> Result<u64, AskError> {
        let number = lock(&self.asks).ask(&self.name, ask)?;
        self.rung.notify_one();
        Ok(number)
    }

    pub(super) fn is_asked(&self) -> bool {
        !lock(&self.asks).is_empty()
    }

    /// What was asked for, with its number.
    pub(super) fn next_ask(&self) -> Option<(u64, Ask)> {
        lock(&self.asks).next()
    }

    /// The refresh of this number, if somebody asked for it, has ended; badly where there is a reason.
    pub(super) fn ended(&self, number: Option<u64>, failure: Option<String>) {
        if let Some(number) = number {
            lock(&self.asks).end(number, failure);
        }
    }

    /// `upstream` is what keeps its columns from being known, where something does.
    ///
    /// # Errors
    /// [`PutError::NotReady`] before the table is here, [`PutError::Stopped`].
    pub(super) fn writer(&self, upstream: Option<String>) -> Result<Writer, PutError> {
        let opened = self.puts.as_ref().map(Puts::writer).transpose()?.flatten();
        opened.ok_or_else(|| {
            let reason = lock(&self.told).reason.clone();
            let reason = reason.or(upstream).unwrap_or_else(|| "its table is not here yet".to_owned());
            PutError::NotReady { dataset: self.name.clone(), reason }
        })
    }

    /// Tells its keeper to end: when `process` does, or the board is retired.
    pub(super) fn stop_with(&self, process: &CancellationToken) -> CancellationToken {
        let stop = self.stop.get_or_init(|| process.child_token()).clone();
        if self.retired.is_cancelled() {
            stop.cancel();
        }
        stop
    }

    /// Another board takes the place of this one, or none.
    pub(super) fn retire(&self) {
        self.retired.cancel();
        if let Some(stop) = self.stop.get() {
            stop.cancel();
        }
        self.publication.close();
    }

    /// What it is now.
    pub(super) fn definition(&self) -> Arc<Definition> {
        self.definition.load_full()
    }

    /// Its keeper goes on by another definition of the same rows.
    pub(super) fn redefine(&self, definition: Definition) {
        self.definition.store(Arc::new(definition));
        self.is_redefined.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    /// The definition, where it has become another one since this was last asked.
    pub(super) fn redefined(&self) -> Option<Definition> {
        let is_redefined = self.is_redefined.swap(false, Ordering::Acquire);
        is_redefined.then(|| self.definition().as_ref().clone())
    }

    pub(super) fn is_redefined(&self) -> bool {
        self.is_redefined.load(Ordering::Acquire)
    }

    pub(super) fn set_sql(&self, sql: Option<String>) {
        *lock(&self.sql) = sql;
    }

    pub(super) fn sql(&self) -> Option<String> {
        lock(&self.sql).clone()
    }
}

/// A lock whose holder panicked still guards plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since the epoch as a moment.
fn moment(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds >= 0 {
        true => SystemTime::UNIX_EPOCH + distance,
        false => SystemTime::UNIX_EPOCH - distance,
    }
}
