//! Who may run now: so many at a time, the others in the order in which they came.
//!
//! A bounded queue: who finds it full is told so at once, who waits too long as well. A [`Turn`] is held for as long
//! as its query may use anything, to the end of its answer; dropping it, or the future that waits for it, gives the
//! place to the next. Every statement counts, forwarded ones too: they hold a connection's window and a client.
//!
//! The queue itself knows no clock; [`Admission::enter`] puts the limits of time around it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::deadline::Deadline;
use super::{Protocol, QueryError};

/// How many may wait, and how long, where nothing else is set.
const WAITING_MAX: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How many queries run at a time, and what happens to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// `runtime.query.max_concurrent_queries`; `None` is no bound.
    pub running_max: Option<NonZeroUsize>,
    /// `runtime.params.query_queue_max`.
    pub waiting_max: usize,
    /// `runtime.params.query_queue_timeout`.
    pub wait_max: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { running_max: None, waiting_max: WAITING_MAX, wait_max: WAIT_MAX }
    }
}

/// What the metrics call the queries behind one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// As `query_active_count` and `query_waiting_count`.
    Queries,
    /// Not at all: their plans are not queries.
    Nothing,
}

/// The door of queries. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    /// `None` without a bound.
    queue: Option<Arc<Queue>>,
    wait_max: Duration,
    counted: Counted,
    /// The gauges of those that run, by their protocols: each is looked up once.
    active: Arc<[OnceLock<metrics::Gauge>; Protocol::COUNT]>,
}

/// Places, and those who wait for one.
#[derive(Debug)]
struct Queue {
    /// Fair: first come, first served; a place that becomes free goes to the first who waits, to nobody else.
    places: Arc<Semaphore>,
    running_max: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
    counted: Counted,
}

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: Option<OwnedSemaphorePermit>,
    _active: Option<Gauge>,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Full;

impl Admission {
    pub fn new(options: QueueOptions, counted: Counted) -> Self {
        let queue = options.running_max.map(|max| Arc::new(Queue::new(max, options.waiting_max, counted)));
        Self { queue, wait_max: options.wait_max, counted, active: Arc::default() }
    }

    /// Waits for a turn, at most until the deadline.
    ///
    /// # Errors
    /// [`QueryError::QueueFull`] at once, [`QueryError::QueueTimeout`] after the wait.
    pub async fn enter(&self, deadline: Option<Deadline>, protocol: Protocol) -> Result<Turn, QueryError> {
        let Some(queue) = &self.queue else { return Ok(self.turn(None, protocol)) };
        let until = Patience::of(self.wait_max, deadline);
        let place = match timeout_at(until.at, Arc::clone(queue).place()).await {
            Ok(Ok(place)) => place,
            Ok(Err(Full)) => return Err(self.refused("queue_full", queue.full())),
            Err(_) => return Err(self.refused("queue_timeout", until.error(queue.running_max))),
        };
        Ok(self.turn(Some(place), protocol))
    }

    fn turn(&self, place: Option<OwnedSemaphorePermit>, protocol: Protocol) -> Turn {
        let gauge = || metrics::gauge!("query_active_count", "protocol" => protocol.word());
        let active = self.counted.shown(|| self.active[protocol as usize].get_or_init(gauge).clone());
        Turn { _place: place, _active: active }
    }

    fn refused(&self, reason: &'static str, error: QueryError) -> QueryError {
        metrics::counter!("query_rejections", "reason" => reason).increment(1);
        error
    }
}

impl Queue {
    fn new(running_max: NonZeroUsize, waiting_max: usize, counted: Counted) -> Self {
        let running_max = running_max.get().min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(running_max));
        Self { places, running_max, waiting: AtomicUsize::new(0), waiting_max, counted }
    }

    /// A place, when it is this caller's turn. Dropping the future leaves the queue.
    async fn place(self: Arc<Self>) -> Result<OwnedSemaphorePermit, Full> {
        // A place is free here only when nobody waits: the semaphore hands places on.
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::join(&self)?;
        // It is never closed; were it, nobody could enter.
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| Full)
    }

    fn full(&self) -> QueryError {
        QueryError::QueueFull { running: self.running_max, waiting: self.waiting_max }
    }
}

/// One of those who wait.
struct Waiting<'a> {
    queue: &'a Queue,
    _shown: Option<Gauge>,
}

impl<'a> Waiting<'a> {
    fn join(queue: &'a Queue) -> Result<Self, Full> {
        let one_more = |waiting| (waiting < queue.waiting_max).then_some(waiting + 1);
        let joined = queue.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        joined.map_err(|_| Full)?;
        Ok(Self { queue, _shown: queue.counted.waiting() })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a query waits for its turn, and what sets the end.
struct Patience {
    at: Instant,
    seconds: f64,
    setting: &'static str,
}

impl Patience {
    fn of(wait_max: Duration, deadline: Option<Deadline>) -> Self {
        let at = Instant::now() + wait_max;
        match deadline {
            Some(deadline) if deadline.at < at => Self {
                at: deadline.at,
                seconds: deadline.timeout.as_secs_f64(),
                setting: "runtime.query.timeout",
            },
            _ => Self { at, seconds: wait_max.as_secs_f64(), setting: "runtime.params.query_queue_timeout" },
        }
    }

    fn error(&self, running: usize) -> QueryError {
        QueryError::QueueTimeout { seconds: self.seconds, setting: self.setting, running }
    }
}

/// One more in a gauge of the metrics, until it is dropped.
#[derive(Debug)]
struct Gauge(metrics::Gauge);

impl Counted {
    fn waiting(self) -> Option<Gauge> {
        self.shown(|| metrics::gauge!("query_waiting_count"))
    }

    fn shown(self, gauge: impl FnOnce() -> metrics::Gauge) -> Option<Gauge> {
        match self {
            Self::Queries => Some(Gauge::up(gauge())),
            Self::Nothing => None,
        }
    }
}

impl Gauge {
    fn up(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
