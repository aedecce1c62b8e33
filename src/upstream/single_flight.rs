//! A value that is made once and shared: the connection, the bearer token.
//!
//! Callers that come while it is being made wait for the same attempt and hear the same error. The attempt
//! runs in a task of its own: a caller that goes away does not stop it for the others.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::task::Scope;

use super::error::UpstreamError;

type Outcome<T> = Result<T, UpstreamError>;
/// `None` when the attempt ended without an outcome: the process is going down.
type Waiting<T> = Shared<BoxFuture<'static, Option<Outcome<T>>>>;

pub(super) struct SingleFlight<T> {
    name: &'static str,
    scope: Scope,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    /// Counts values and failures: who invalidates must say what.
    generation: u64,
    slot: Slot<T>,
}

enum Slot<T> {
    Empty,
    Running(Waiting<T>),
    Ready(T),
}

/// A value and which one it is.
#[derive(Clone)]
pub(super) struct Held<T> {
    pub generation: u64,
    pub value: T,
}

enum Joined<T> {
    Ready(T),
    Waiting(Waiting<T>),
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub fn new(name: &'static str, scope: Scope) -> Self {
        let state = State { generation: 0, slot: Slot::Empty };
        Self { name, scope, state: Arc::new(Mutex::new(state)) }
    }

    /// The value, made by `start` when there is none. `None`: the process is going down.
    pub async fn get<F>(&self, start: impl FnOnce() -> F) -> Option<Outcome<Held<T>>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (generation, joined) = self.join(start);
        let outcome = match joined {
            Joined::Ready(value) => Ok(value),
            Joined::Waiting(waiting) => match waiting.await {
                Some(outcome) => outcome,
                None => {
                    self.invalidate(generation);
                    return None;
                }
            },
        };
        Some(outcome.map(|value| Held { generation, value }))
    }

    fn join<F>(&self, start: impl FnOnce() -> F) -> (u64, Joined<T>)
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let mut state = lock(&self.state);
        let generation = state.generation;
        match &state.slot {
            Slot::Ready(value) => (generation, Joined::Ready(value.clone())),
            Slot::Running(waiting) => (generation, Joined::Waiting(waiting.clone())),
            Slot::Empty => {
                let waiting = self.launch(generation, start());
                state.slot = Slot::Running(waiting.clone());
                (generation, Joined::Waiting(waiting))
            }
        }
    }

    fn launch<F>(&self, generation: u64, attempt: F) -> Waiting<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (told, hears) = oneshot::channel();
        let state = Arc::clone(&self.state);
        self.scope.spawn(self.name, async move {
            let outcome = attempt.await;
            settle(&state, generation, &outcome);
            // Nobody may be waiting any more; the value is kept all the same.
            let _ = told.send(outcome);
        });
        hears.map(Result::ok).boxed().shared()
    }

    /// The value, where there is one.
    pub fn peek(&self) -> Option<T> {
        match &lock(&self.state).slot {
            Slot::Ready(value) => Some(value.clone()),
            Slot::Empty | Slot::Running(_) => None,
        }
    }

    /// Whether there is no value, and none is being made.
    pub fn is_empty(&self) -> bool {
        matches!(lock(&self.state).slot, Slot::Empty)
    }

    /// Puts a value in place.
    pub fn preset(&self, value: T) {
        lock(&self.state).slot = Slot::Ready(value);
    }

    /// Forgets whatever there is.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        state.generation += 1;
        state.slot = Slot::Empty;
    }

    /// Forgets the value of that generation; a newer one stays.
    pub fn invalidate(&self, generation: u64) {
        let mut state = lock(&self.state);
        if state.generation == generation {
            state.generation += 1;
            state.slot = Slot::Empty;
        }
    }
}

fn settle<T: Clone>(state: &Mutex<State<T>>, generation: u64, outcome: &Outcome<T>) {
    let mut state = lock(state);
    if state.generation != generation {
        return;
    }
    match outcome {
        Ok(value) => state.slot = Slot::Ready(value.clone()),
        Err(_) => {
            state.generation += 1;
            state.slot = Slot::Empty;
        }
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
