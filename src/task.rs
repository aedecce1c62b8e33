//! Named, owned tasks and their end: the only place that spawns.
//!
//! A [`Scope`] owns what was spawned in it. Cancelling a scope cancels its children; dropping an
//! [`Owned`] task aborts it. Work that blocks goes through [`blocking`], to threads made for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use thiserror::Error;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// How often a shutdown says who is still pending.
const SHUTDOWN_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A group of tasks that end together. Cheap to clone.
#[derive(Clone, Default)]
pub struct Scope {
    tracker: TaskTracker,
    token: CancellationToken,
    /// Running tasks by name, counted: only for the shutdown report.
    names: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// A task that ends with its owner.
#[must_use = "dropping it aborts the task"]
pub struct Owned(AbortHandle);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Blocking work that gave no result.
#[derive(Debug, Error)]
pub enum BlockingError {
    #[error("`{name}` panicked: {message}")]
    Panicked { name: &'static str, message: String },
    #[error("`{name}` was not run: the process is ending")]
    Stopped { name: &'static str },
}

/// Runs `work`, which may block (files, compression), on a thread for such work, and waits for it. Dropping the
/// future does not stop work that has begun: it runs to its end, unheard.
///
/// # Errors
/// The work panicked, or the runtime is shutting down.
pub async fn blocking<T, F>(name: &'static str, work: F) -> Result<T, BlockingError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let span = tracing::debug_span!("blocking", name);
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => BlockingError::Panicked { name, message: words_of(panic.as_ref()) },
        Err(_) => BlockingError::Stopped { name },
    })
}

/// Stack of a thread that plans or computes, in bytes: both recurse into what was asked.
pub const STACK_SIZE: usize = 32 << 20;

/// Threads for the network, in all that is not [`computing`]: half of the cores, one at least. Where one message is
/// handed from task to task, threads that wake each other cost more than they save.
#[must_use]
pub fn network_threads() -> usize {
    (cores() / 2).max(1)
}

/// Where work goes that keeps a thread busy, as many threads as there are cores, made when the first one asks. None where
/// the caller has a runtime of one thread by itself, as tests have, or where threads cannot be had: then it stays here.
#[must_use]
pub fn computing() -> Option<Handle> {
    static THREADS: OnceLock<Option<Runtime>> = OnceLock::new();
    if Handle::try_current().ok()?.runtime_flavor() != RuntimeFlavor::MultiThread {
        return None;
    }
    let made = || {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(cores()).thread_stack_size(STACK_SIZE).thread_name("compute").enable_all();
        threads
            .build()
            .inspect_err(|error| tracing::warn!(%error, "no threads to compute in, queries compute where they are asked"))
            .ok()
    };
    THREADS.get_or_init(made).as_ref().map(|threads| threads.handle().clone())
}

/// How many threads this process may run at once; one where that is not told.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Resolves at `due`; none is a time that never comes.
pub async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Runs `work`, which may block, without waiting: what a `drop` has to do. Outside of a runtime it runs here.
pub fn blocking_detached<F>(name: &'static str, work: F)
where
    F: FnOnce() + Send + 'static,
{
    let span = tracing::debug_span!("blocking", name);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || span.in_scope(work))),
        Err(_) => span.in_scope(work),
    }
}

/// What a panic said, where it said a text.
pub fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

/// Takes a task's name off the list when the task ends, however it ends.
struct NameGuard {
    name: &'static str,
    names: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Scope {
    /// An empty scope.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope that is cancelled with this one, and can be cancelled before it; its tasks count as this
    /// one's.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), ..self.clone() }
    }

    /// Resolves when the scope is cancelled.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks every task of the scope to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Runs `task` until it ends or the scope is cancelled.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = self.start(name, self.until_cancelled(task));
    }

    /// Runs `task` to its own end: it is told of the cancellation through [`Scope::token`].
    pub fn spawn_draining<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = self.start(name, Box::pin(task));
    }

    /// Runs `task` until it ends, the scope is cancelled or the returned owner is dropped.
    pub fn spawn_owned<F>(&self, name: &'static str, task: F) -> Owned
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Owned(self.start(name, self.until_cancelled(task)))
    }

    fn until_cancelled<F>(&self, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.token.clone().run_until_cancelled_owned(Box::pin(task)).map(Option::unwrap_or_default)
    }

    fn start<F>(&self, name: &'static str, task: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = NameGuard::new(name, Arc::clone(&self.names));
        // No async block: it would keep room for the task twice. Callers put it on the heap: it is wrapped five times here and
        // below, and large ones (an answer's is thousands of bytes) were copied each time.
        let task = task.map(move |()| drop(guard));
        self.tracker.spawn(task.instrument(tracing::debug_span!("task", name))).abort_handle()
    }

    /// Cancels the scope and waits for its tasks, at most `limit`, saying every 5 s who is pending.
    ///
    /// # Errors
    /// The names of the tasks that did not end in time.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), Vec<&'static str>> {
        self.cancel();
        self.tracker.close();
        let started = tokio::time::Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let wait = left.min(SHUTDOWN_REPORT_INTERVAL);
            if tokio::time::timeout(wait, self.tracker.wait()).await.is_ok() {
                return Ok(());
            }
            let pending = self.pending();
            if left <= SHUTDOWN_REPORT_INTERVAL {
                return Err(pending);
            }
            tracing::info!(?pending, "waiting for tasks to end");
        }
    }

    fn pending(&self) -> Vec<&'static str> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl NameGuard {
    fn new(name: &'static str, names: Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        *names.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { name, names }
    }
}

impl Drop for NameGuard {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shutdown_ends_tasks_and_names_those_that_stay() {
        let scope = Scope::new();
        scope.spawn("sleeper", std::future::pending());
        assert_eq!(scope.shutdown(Duration::from_secs(1)).await, Ok(()));

        let scope = Scope::new();
        scope.spawn_draining("stubborn", std::future::pending());
        assert_eq!(scope.shutdown(Duration::from_millis(20)).await, Err(vec!["stubborn"]));
    }

    #[tokio::test]
    async fn dropping_the_owner_ends_the_task() {
        let scope = Scope::new();
        let owned = scope.spawn_owned("owned", std::future::pending());
        assert_eq!(scope.pending(), ["owned"]);
        drop(owned);
        assert_eq!(scope.shutdown(Duration::from_secs(1)).await, Ok(()));
        assert!(scope.pending().is_empty());
    }

    #[tokio::test]
    async fn blocking_work_answers_or_says_why_not() {
        assert_eq!(blocking("sum", || 1 + 1).await.unwrap(), 2);
        let panicked = blocking("bad", || panic!("no {}", "way")).await.map(|(): ()| ()).unwrap_err();
        assert_eq!(panicked.to_string(), "`bad` panicked: no way");
    }

    #[test]
    fn detached_work_runs_without_a_runtime() {
        let (said, heard) = std::sync::mpsc::channel();
        blocking_detached("say", move || said.send(7).unwrap());
        assert_eq!(heard.recv(), Ok(7));
    }
}
