//! DoExchange: a client names a dataset once, its rows leave as they come for as long as the client stays.
//!
//! A pump of its own follows the dataset for each subscriber and waits for it, so that one that does not read holds up
//! nobody and is still given up in time. A client that says that it is a sidewing is spoken to in `frames`, any other
//! in the public runtime's `changes`.

mod changes;
mod first;
mod frames;
mod pump;

use std::sync::Arc;

use arrow_flight::FlightData;
use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::service::{Messages, Reply};
use crate::query::SubscribeError;
use crate::serve::Door;
use crate::serve::listen::Endless;
use crate::task::Scope;
use changes::Changes;
use first::Asked;
use frames::Frames;
use pump::{Form, pump};

/// Subscribers of one listener. Each may hold a piece of a table, some tens of MB at most.
const SUBSCRIBERS_MAX: usize = 1024;
/// Messages that wait for a slow client, each about 2 MiB at most.
const WAITING_MAX: usize = 2;

/// The subscribers of one listener.
pub(super) struct Exchanges {
    scope: Scope,
    turns: Arc<Semaphore>,
}

impl Exchanges {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, turns: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)) }
    }

    /// Answers with the stream of the dataset that the first message names, at once, however long its rows take.
    ///
    /// # Errors
    /// What the first message lacks, a dataset that cannot be subscribed to, too many subscribers.
    pub(super) async fn open(
        &self,
        door: &impl Door,
        mut inbound: Streaming<FlightData>,
    ) -> Reply<Messages<FlightData>> {
        let stop = self.scope.token();
        let first = stop.run_until_cancelled(inbound.message()).await.ok_or_else(stopping)?;
        let Asked { path, subscribe } = Asked::read(first?)?;
        let publication = door.publication(&path).map_err(|error| refusal(&error))?;
        let turn = Arc::clone(&self.turns).try_acquire_owned().map_err(|_| crowded())?;
        let (form, held) = match subscribe {
            Some(subscribe) => (Form::Frames(Frames::default()), subscribe.held),
            None => (Form::Changes(Changes::default()), None),
        };
        let (out, messages) = mpsc::channel(WAITING_MAX);
        let pump =
            self.scope.spawn_owned("append stream", pump(publication.subscribe(held), form, inbound, out));
        let messages = until_stopped(messages, stop).map(move |message| {
            let _held = (&pump, &turn);
            message
        });
        let mut response = Response::new(messages.boxed());
        response.extensions_mut().insert(Endless);
        Ok(response)
    }
}

/// What the pump sends; when the process ends, that it does.
fn until_stopped(
    messages: mpsc::Receiver<Result<FlightData, Status>>,
    stop: CancellationToken,
) -> impl stream::Stream<Item = Result<FlightData, Status>> + Send {
    stream::unfold(Some(messages), move |messages| {
        let stop = stop.clone();
        async move {
            let mut messages = messages?;
            match stop.run_until_cancelled(messages.recv()).await {
                Some(Some(Ok(message))) => Some((Ok(message), Some(messages))),
                Some(Some(Err(status))) => Some((Err(status), None)),
                // The pump ends with the process as well, perhaps first.
                Some(None) if !stop.is_cancelled() => Some((Err(broken_off()), None)),
                Some(None) | None => Some((Err(stopping()), None)),
            }
        }
    })
}

fn refusal(error: &SubscribeError) -> Status {
    match error {
        SubscribeError::Unknown(_) => Status::invalid_argument(error.to_string()),
        SubscribeError::NotKept { .. } | SubscribeError::View { .. } => {
            Status::failed_precondition(error.to_string())
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("sidewing is shutting down; subscribe again")
}

/// A pump that failed has said nothing: its stream must not look as if it had come to an end.
fn broken_off() -> Status {
    Status::internal("the stream has broken off; subscribe again")
}

fn crowded() -> Status {
    Status::resource_exhausted(format!(
        "as many subscribers as may be ({SUBSCRIBERS_MAX}) follow datasets here: try again later, or end others first"
    ))
}
