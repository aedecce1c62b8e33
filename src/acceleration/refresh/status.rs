//! What is told of an accelerated dataset, and what is asked of it: shared between its keeper and everybody else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::name::DatasetName;

use super::rows::Figures;

/// So many different refreshes may wait behind one that runs.
const ASKED_MAX: usize = 8;

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
    /// The end of the last refresh that succeeded in this process.
    pub last_refresh: Option<SystemTime>,
    /// The latest moment of the time column.
    pub watermark: Option<SystemTime>,
}

/// A refresh that somebody asks for; what is not said is as the spicepod says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    pub sql: Option<String>,
    pub mode: Option<AskMode>,
    /// It begins after a random part of this.
    pub jitter_max: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskMode {
    Full,
    Append,
}

/// Why a refresh is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("Dataset {0} not found")]
    NotFound(String),
    #[error("Dataset {0} does not have acceleration enabled")]
    NotAccelerated(String),
    #[error("{0}")]
    Invalid(String),
    #[error("Dataset {0} has {ASKED_MAX} refreshes waiting already")]
    Busy(String),
}

/// The board of one dataset: its keeper writes the state, others write what they want.
pub(super) struct Board {
    pub name: DatasetName,
    told: Mutex<Told>,
    figures: ArcSwapOption<Figures>,
    asked: Mutex<VecDeque<Ask>>,
    /// `refresh_sql` until the restart, where it was changed.
    sql: Mutex<Option<String>>,
    pub rung: Notify,
}

struct Told {
    phase: Phase,
    reason: Option<String>,
    since: SystemTime,
    last_refresh: Option<SystemTime>,
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

    /// The number that `dataset_load_state` shows.
    fn gauge(self) -> f64 {
        match self {
            Self::Initializing => 0.0,
            Self::Ready => 1.0,
            Self::Disabled => 2.0,
            Self::Error => 3.0,
            Self::Refreshing => 4.0,
            Self::ShuttingDown => 5.0,
        }
    }
}

impl Status {
    /// How far the newest row is behind now; none without a time column.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.watermark.map(|watermark| watermark.elapsed().unwrap_or(Duration::ZERO))
    }
}

impl Board {
    pub(super) fn new(name: DatasetName) -> Arc<Self> {
        let told =
            Told { phase: Phase::Initializing, reason: None, since: SystemTime::now(), last_refresh: None };
        Arc::new(Self {
            name,
            told: Mutex::new(told),
            figures: ArcSwapOption::empty(),
            asked: Mutex::default(),
            sql: Mutex::default(),
            rung: Notify::new(),
        })
    }

    pub(super) fn status(&self) -> Status {
        let held = self.figures.load_full();
        let told = lock(&self.told);
        Status {
            phase: told.phase,
            reason: told.reason.clone(),
            since: told.since,
            rows: held.as_ref().map_or(0, |held| held.rows),
            bytes: held.as_ref().map_or(0, |held| held.bytes),
            generation: held.as_ref().map(|held| held.generation),
            last_refresh: told.last_refresh,
            watermark: held.and_then(|held| held.watermark).map(moment),
        }
    }

    /// A new phase; its reason stays until another is told, or all is well.
    pub(super) fn enter(&self, phase: Phase) {
        let mut told = lock(&self.told);
        if told.phase != phase {
            (told.phase, told.since) = (phase, SystemTime::now());
        }
        if phase == Phase::Ready {
            told.reason = None;
        }
        metrics::gauge!("dataset_load_state", "dataset" => self.name.to_string()).set(phase.gauge());
    }

    pub(super) fn explain(&self, reason: String) {
        lock(&self.told).reason = Some(reason);
    }

    pub(super) fn refreshed(&self) {
        lock(&self.told).last_refresh = Some(SystemTime::now());
    }

    /// What queries read from now on.
    pub(super) fn shows(&self, figures: Option<Figures>) {
        self.figures.store(figures.map(Arc::new));
        let dataset = self.name.to_string();
        let Figures { rows, bytes, .. } = figures.unwrap_or_default();
        metrics::gauge!("dataset_acceleration_size_bytes", "dataset" => dataset.clone()).set(bytes as f64);
        metrics::gauge!("dataset_acceleration_rows", "dataset" => dataset).set(rows as f64);
    }

    /// Joins an equal one that waits, or queues.
    pub(super) fn ask(&self, ask: Ask) -> Result<(), AskError> {
        let mut asked = lock(&self.asked);
        if !asked.contains(&ask) {
            if asked.len() >= ASKED_MAX {
                return Err(AskError::Busy(self.name.to_string()));
            }
            asked.push_back(ask);
        }
        self.rung.notify_one();
        Ok(())
    }

    pub(super) fn is_asked(&self) -> bool {
        !lock(&self.asked).is_empty()
    }

    pub(super) fn next_ask(&self) -> Option<Ask> {
        lock(&self.asked).pop_front()
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
