//! How far a refresh is: who takes the rows counts them, everybody may look, and nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

/// A refresh on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Taken so far.
    pub rows: usize,
    /// As they came, in memory.
    pub bytes: usize,
    /// Since the upstream was asked.
    pub elapsed: Duration,
}

/// The refresh of one dataset that runs now, if one does.
#[derive(Default)]
pub(super) struct Underway(ArcSwapOption<Count>);

struct Count {
    begun: Instant,
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

/// Counts one refresh; dropping it ends what is told of it.
pub(super) struct Counter<'a> {
    underway: &'a Underway,
    count: Arc<Count>,
}

impl Underway {
    /// Begins to count, at zero.
    pub(super) fn begin(&self) -> Counter<'_> {
        let count = Arc::new(Count {
            begun: Instant::now(),
            rows: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
        });
        self.0.store(Some(Arc::clone(&count)));
        Counter { underway: self, count }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.0.load().as_ref().map(|count| count.progress())
    }
}

impl Count {
    fn progress(&self) -> Progress {
        let (rows, bytes) = (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        Progress { rows, bytes, elapsed: self.begun.elapsed() }
    }
}

impl Counter<'_> {
    pub(super) fn add(&self, rows: usize, bytes: usize) {
        self.count.rows.fetch_add(rows, Ordering::Relaxed);
        self.count.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> Progress {
        self.count.progress()
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        self.underway.0.store(None);
    }
}

impl Progress {
    /// Megabytes (10^6) a second on the average.
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        // Nothing is measured in less than a millisecond.
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_told_while_it_runs() {
        let underway = Underway::default();
        assert_eq!(underway.progress(), None);
        let counter = underway.begin();
        counter.add(3, 1_000_000);
        counter.add(4, 2_000_000);
        let told = underway.progress().unwrap();
        assert_eq!((told.rows, told.bytes), (7, 3_000_000));
        assert!(counter.progress().elapsed >= told.elapsed);
        let told = Progress { elapsed: Duration::from_secs(2), ..told };
        assert!((told.mb_per_s() - 1.5).abs() < 1e-9);
        drop(counter);
        assert_eq!(underway.progress(), None);
    }
}
