//! Where in a trace something happens: what calls to other processes carry, and what new spans hang on.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::history::Tracer;
use super::ids::{Ids, TraceState, Traceparent};
use super::labels::Labels;
use super::span::{Span, Task};

/// Of the tasks below one that runs, this many are kept until it ends.
const CHILDREN_MAX: usize = 256;

tokio::task_local! {
    static CURRENT: Context;
}

/// A place in a trace. Cheap to clone.
#[derive(Clone)]
pub struct Context(pub(super) Arc<Place>);

pub(super) struct Place {
    pub tracer: Tracer,
    /// Of the span that is open here. Where none is, `span` is the caller's, or 0 where there is no caller.
    pub ids: Ids,
    pub is_sampled: bool,
    pub state: Option<TraceState>,
    /// None where no span is open here.
    pub open: Option<Mutex<Open>>,
}

/// What is known of an open span. Everything below it that ends before it waits for its end: whether it is recorded is
/// known only then.
#[derive(Default)]
pub(super) struct Open {
    pub labels: Labels,
    pub error: Option<String>,
    pub output: Option<String>,
    pub is_hushed: bool,
    pub executing_since: Option<Instant>,
    pub owner: Option<Owner>,
    pub children: Vec<Task>,
    /// Whether it was recorded; none while it runs.
    pub ended: Option<bool>,
}

/// For whom a span is, as the front ends know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: Arc<str>,
    /// Whether tasks of others are this one's to see.
    pub sees_all: bool,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({:?})", self.0.ids)
    }
}

impl Context {
    /// Without a span of its own: what happens in it hangs on the caller's, or begins a trace.
    #[must_use]
    pub fn root(tracer: &Tracer, caller: Option<&Traceparent>) -> Self {
        let new = || Ids { span: 0, ..Ids::random() };
        Self(Arc::new(Place {
            tracer: tracer.clone(),
            ids: caller.map_or_else(new, |caller| caller.ids),
            is_sampled: caller.is_none_or(|caller| caller.is_sampled),
            state: caller.and_then(|caller| caller.state.clone()),
            open: None,
        }))
    }

    /// That of the future that runs now; none outside of [`Context::scope`].
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Runs `work` here. It is boxed: a query's future is large, and each that wraps it would hold it once more.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, Box::pin(work))
    }

    /// Runs `work` in `context`, where there is one.
    pub fn scope_in<F: Future>(context: Option<Self>, work: F) -> impl Future<Output = F::Output> {
        let work = Box::pin(work);
        async move {
            match context {
                Some(context) => CURRENT.scope(context, work).await,
                None => work.await,
            }
        }
    }

    /// Opens a span below this place.
    #[must_use]
    pub fn child(&self, task: &'static str, input: &str) -> Span {
        Span::open(self, task, input)
    }

    /// What a call to another process says of this place; none where there is nothing to hang on.
    #[must_use]
    pub fn traceparent(&self) -> Option<Traceparent> {
        let Place { ids, is_sampled, state, .. } = self.0.as_ref();
        let caller = Traceparent { ids: *ids, is_sampled: *is_sampled, state: state.clone() };
        (ids.span != 0).then_some(caller)
    }

    #[must_use]
    pub fn ids(&self) -> Ids {
        self.0.ids
    }

    /// Says something of the open span; the last word of a kind holds.
    pub fn label(&self, key: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(mut open) = self.open() {
            open.labels.set(key, value.into());
        }
    }

    /// Whose task the open span is, with all that hangs on it.
    pub fn owned_by(&self, owner: Owner) {
        if let Some(mut open) = self.open() {
            open.owner = Some(owner);
        }
    }

    /// Whether who asks here may see a task: everybody sees their own and those of nobody.
    #[must_use]
    pub fn may_see(&self, task: &Task) -> bool {
        let owner = self.open().and_then(|open| open.owner.clone());
        let is_own =
            |owner: &Owner| owner.sees_all || task.owner.as_ref().is_none_or(|name| *name == owner.name);
        owner.as_ref().is_none_or(is_own)
    }

    /// The open span is not recorded, nor what hangs on it.
    pub fn hush(&self) {
        if let Some(mut open) = self.open() {
            open.is_hushed = true;
        }
    }

    /// What the span is for begins now, if it has not already: what went before was waiting and planning.
    pub fn executes(&self) {
        if let Some(mut open) = self.open() {
            open.executing_since.get_or_insert_with(Instant::now);
        }
    }

    /// Since when, if ever.
    #[must_use]
    pub fn executing_since(&self) -> Option<Instant> {
        self.open()?.executing_since
    }

    /// Whether the beginning of an answer is to be kept.
    #[must_use]
    pub fn captures(&self) -> bool {
        self.open().is_some() && self.0.tracer.captures()
    }

    /// The beginning of the answer.
    pub fn output(&self, output: String) {
        if let Some(mut open) = self.open() {
            open.output = Some(output);
        }
    }

    pub(super) fn open(&self) -> Option<MutexGuard<'_, Open>> {
        let open = self.0.open.as_ref()?;
        Some(open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A task that ended below this place.
    pub(super) fn take(&self, task: Task) {
        let Some(mut open) = self.open() else { return self.0.tracer.record(task) };
        match open.ended {
            None if open.children.len() < CHILDREN_MAX => open.children.push(task),
            None | Some(false) => {}
            Some(true) => {
                drop(open);
                self.0.tracer.record(task);
            }
        }
    }
}
