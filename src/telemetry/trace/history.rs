//! Who is told of tasks that have ended: the ring of this process and the exporter. Neither is ever waited for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::context::Context;
use super::ids::Traceparent;
use super::ring::History;
use super::span::{Span, Task};

/// How much of answers is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    #[default]
    None,
    /// The first rows.
    Truncated,
}

/// `runtime.task_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryOptions {
    pub is_enabled: bool,
    pub output: Output,
    pub retention: Duration,
    pub check_interval: Duration,
    /// Shorter statements are not recorded.
    pub sql_duration_min: Duration,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            is_enabled: true,
            output: Output::None,
            retention: Duration::from_secs(8 * 3_600),
            check_interval: Duration::from_secs(15 * 60),
            sql_duration_min: Duration::ZERO,
        }
    }
}

/// Opens spans, and takes those that have ended. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    options: HistoryOptions,
    history: History,
    /// Set when an exporter begins.
    export: OnceLock<Sender<Task>>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self::new(HistoryOptions::default())
    }
}

impl Tracer {
    #[must_use]
    pub fn new(options: HistoryOptions) -> Self {
        let history = History::new(options.retention);
        Self(Arc::new(Inner { options, history, export: OnceLock::new() }))
    }

    /// Opens a span below the caller's, or the first one of a trace.
    #[must_use]
    pub fn start(&self, task: &'static str, input: &str, caller: Option<&Traceparent>) -> Span {
        Context::root(self, caller).child(task, input)
    }

    /// The tasks that have ended.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Lets old tasks go, again and again, until it is dropped.
    pub async fn keep(self) {
        let mut looks = tokio::time::interval(self.0.options.check_interval);
        loop {
            looks.tick().await;
            self.0.history.expire();
        }
    }

    /// From now on tasks are also sent there; the first exporter stays.
    pub(in crate::telemetry) fn export_to(&self, sender: Sender<Task>) {
        let _ = self.0.export.set(sender);
    }

    pub(super) fn captures(&self) -> bool {
        self.0.options.is_enabled && self.0.options.output == Output::Truncated
    }

    /// Whether a task of its own is long enough to be told of.
    pub(super) fn wants(&self, task: &Task) -> bool {
        task.task != "sql_query" || task.took >= self.0.options.sql_duration_min
    }

    pub(super) fn record(&self, task: Task) {
        if let Some(sender) = self.0.export.get().filter(|_| task.is_sampled)
            && sender.try_send(task.clone()).is_err()
        {
            metrics::counter!("otel_export_dropped", "signal" => "traces").increment(1);
        }
        if self.0.options.is_enabled {
            self.0.history.push(task);
        }
    }
}
