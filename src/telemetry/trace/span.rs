//! One task from its beginning to its end, and what is left of it then.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::context::{Context, Open, Place};
use super::ids::{Ids, TraceState};
use super::labels::Labels;

/// Of each input, error and output this much is kept, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// A task that runs. It ends, and is recorded, when this is dropped.
pub struct Span {
    context: Context,
    parent: Context,
    task: &'static str,
    input: Arc<str>,
    started: SystemTime,
    begun: Instant,
}

/// A task that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub ids: Ids,
    /// The span that it hangs on, here or in the caller's process.
    pub parent: Option<u64>,
    /// `sql_query`, `accelerated_refresh` or `flight_request`.
    pub task: &'static str,
    /// The statement or the dataset, cut where it is long.
    pub input: Arc<str>,
    /// The first rows of the answer, where that is asked for.
    pub output: Option<String>,
    pub started: SystemTime,
    pub took: Duration,
    pub error: Option<String>,
    pub labels: Labels,
    /// Who may see it, besides those who see all; everybody where it is nobody's.
    pub owner: Option<Arc<str>>,
    pub is_sampled: bool,
    pub state: Option<TraceState>,
}

impl Span {
    pub(super) fn open(parent: &Context, task: &'static str, input: &str) -> Self {
        let Place { tracer, ids, is_sampled, state, .. } = parent.0.as_ref();
        let place = Place {
            tracer: tracer.clone(),
            ids: ids.sibling(),
            is_sampled: *is_sampled,
            state: state.clone(),
            open: Some(Mutex::new(Open::default())),
        };
        Self {
            context: Context(Arc::new(place)),
            parent: parent.clone(),
            task,
            input: shortened(input, TEXT_BYTES_MAX).into(),
            started: SystemTime::now(),
            begun: Instant::now(),
        }
    }

    /// Where what this task causes happens.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Why it has failed. The text is for everybody who may read the history: no secret.
    pub fn fail(&self, error: &str) {
        if let Some(mut open) = self.context.open() {
            open.error = Some(shortened(error, TEXT_BYTES_MAX));
        }
    }

    /// How long it has run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn owner(&self, open: &Open) -> Option<Arc<str>> {
        let own = open.owner.as_ref().map(|owner| Arc::clone(&owner.name));
        own.or_else(|| self.parent.open()?.owner.as_ref().map(|owner| Arc::clone(&owner.name)))
    }

    fn task(&self, open: &mut Open) -> Task {
        let Place { ids, is_sampled, state, .. } = self.context.0.as_ref();
        Task {
            ids: *ids,
            parent: Some(self.parent.ids().span).filter(|span| *span != 0),
            task: self.task,
            input: Arc::clone(&self.input),
            output: open.output.take().map(|output| shortened(&output, TEXT_BYTES_MAX)),
            started: self.started,
            took: self.begun.elapsed(),
            error: open.error.take(),
            owner: self.owner(open),
            labels: std::mem::take(&mut open.labels).sorted(),
            is_sampled: *is_sampled,
            state: state.clone(),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(mut open) = self.context.open() else { return };
        let task = self.task(&mut open);
        let is_recorded = !open.is_hushed && self.context.0.tracer.wants(&task);
        open.ended = Some(is_recorded);
        let children = std::mem::take(&mut open.children);
        drop(open);
        if is_recorded {
            children.into_iter().for_each(|child| self.parent.take(child));
            self.parent.take(task);
        }
    }
}

/// The first bytes of a text, whole characters alone; with a sign where it was longer.
#[must_use]
pub fn shortened(text: &str, bytes_max: usize) -> String {
    match text.len() > bytes_max {
        true => format!("{}…", &text[..text.floor_char_boundary(bytes_max)]),
        false => text.to_owned(),
    }
}
