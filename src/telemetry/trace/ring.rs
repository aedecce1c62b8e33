//! The tasks that have ended, the last so many of the last so long: bounded in number, in bytes and in age.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::span::Task;

const TASKS_MAX: usize = 50_000;
const BYTES_MAX: usize = 32 << 20;

/// Read by whoever asks; written as tasks end. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    ring: Mutex<Ring>,
    retention: Duration,
}

#[derive(Default)]
struct Ring {
    /// In the order in which they ended.
    tasks: VecDeque<Arc<Task>>,
    bytes: usize,
}

impl History {
    pub(super) fn new(retention: Duration) -> Self {
        Self(Arc::new(Inner { ring: Mutex::default(), retention }))
    }

    /// Everything that is not too old, in the order in which it ended.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        let since = self.since();
        let ring = self.ring();
        ring.tasks.iter().filter(|task| task.ended() >= since).cloned().collect()
    }

    pub(super) fn expire(&self) {
        let since = self.since();
        let mut ring = self.ring();
        while ring.tasks.front().is_some_and(|task| task.ended() < since) {
            ring.pop();
        }
    }

    pub(super) fn push(&self, task: Task) {
        let mut ring = self.ring();
        ring.bytes += task.bytes();
        ring.tasks.push_back(Arc::new(task));
        let mut dropped = 0;
        while ring.tasks.len() > TASKS_MAX || ring.bytes > BYTES_MAX {
            ring.pop();
            dropped += 1;
        }
        drop(ring);
        if dropped > 0 {
            metrics::counter!("task_history_dropped").increment(dropped);
        }
    }

    fn since(&self) -> SystemTime {
        SystemTime::now().checked_sub(self.0.retention).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn pop(&mut self) {
        if let Some(task) = self.tasks.pop_front() {
            self.bytes -= task.bytes();
        }
    }
}

impl Task {
    #[must_use]
    pub fn ended(&self) -> SystemTime {
        self.started + self.took
    }

    /// About what it takes.
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.input.len() + text(&self.output) + text(&self.error) + self.labels.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::Ids;
    use super::super::labels::Labels;
    use super::*;
    use crate::telemetry::Registry;

    fn task(input: &str, ended: SystemTime) -> Task {
        Task {
            ids: Ids::random(),
            parent: None,
            task: "sql_query",
            input: input.into(),
            output: None,
            started: ended,
            took: Duration::ZERO,
            error: None,
            owner: None,
            labels: Labels::default(),
            is_sampled: true,
            state: None,
        }
    }

    #[test]
    fn old_tasks_are_not_shown_and_leave() {
        let history = History::new(Duration::from_secs(60));
        let now = SystemTime::now();
        history.push(task("old", now - Duration::from_secs(61)));
        history.push(task("new", now));
        let shown: Vec<String> = history.tasks().iter().map(|task| task.input.to_string()).collect();
        assert_eq!(shown, ["new"]);
        assert_eq!(history.ring().tasks.len(), 2);
        history.expire();
        assert_eq!(history.ring().tasks.len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let (history, registry) = (History::new(Duration::MAX), Registry::default());
        metrics::with_local_recorder(&registry, || {
            for _ in 0..=TASKS_MAX {
                history.push(task("", SystemTime::now()));
            }
        });
        assert!(registry.render().contains("task_history_dropped 1\n"));
        assert_eq!(history.ring().tasks.len(), TASKS_MAX);
        let large = "x".repeat(1 << 20);
        for _ in 0..40 {
            history.push(task(&large, SystemTime::now()));
        }
        let ring = history.ring();
        assert!(ring.bytes <= BYTES_MAX && ring.tasks.len() < 40, "{}", ring.tasks.len());
        assert_eq!(ring.bytes, ring.tasks.iter().map(|task| task.bytes()).sum::<usize>());
    }
}
