//! Moves one subscription into one answer, as fast as the client takes it.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use arrow::error::ArrowError;
use arrow_flight::FlightData;
use chrono::Utc;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::changes::Changes;
use super::frames::{Frames, Times};
use crate::query::{Publication, StreamEnd, StreamEvent, Subscription};

/// A sidewing hears something at least this often.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Further messages of a client that are read and ignored; then its own window holds it back.
const IGNORED_MAX: usize = 1024;

/// How the client is spoken to.
pub(super) enum Form {
    Frames(Frames),
    Changes(Changes),
}

type Out = mpsc::Sender<Result<FlightData, Status>>;

/// Why the answer ends.
enum End {
    /// Told to the client.
    Said(Status),
    /// Nobody reads any more.
    Unheard,
}

/// Until the subscription ends, or the client.
pub(super) async fn pump(
    mut subscription: Subscription,
    mut form: Form,
    inbound: Streaming<FlightData>,
    out: Out,
) {
    let end = tokio::select! {
        Err(end) = follow(&mut subscription, &mut form, &out) => end,
        status = failure(inbound) => End::Said(status),
    };
    // The client may take long to hear it: nothing is held for it meanwhile.
    drop((subscription, form));
    if let End::Said(status) = end {
        tracing::debug!(%status, "a subscriber is cut off");
        // A client that is gone has nothing to be told.
        let _ = out.send(Err(status)).await;
    }
}

async fn follow(subscription: &mut Subscription, form: &mut Form, out: &Out) -> Result<Infallible, End> {
    loop {
        match timeout(HEARTBEAT_INTERVAL, subscription.next()).await {
            Ok(Ok(event)) => form.take(event, subscription).map_err(broken)?,
            Ok(Err(end)) => return Err(End::Said(told(&end))),
            Err(_elapsed) => form.heartbeat(subscription, out).await?,
        }
        loop {
            let room = room(subscription, out).await?;
            let Some((message, rows)) = form.next(subscription).map_err(broken)? else { break };
            subscription.sent(rows, message.encoded_len() as u64);
            room.send(Ok(message));
        }
    }
}

/// Waits until the client takes more; not for longer than rows are held for it.
async fn room<'a>(
    subscription: &mut Subscription,
    out: &'a Out,
) -> Result<mpsc::Permit<'a, Result<FlightData, Status>>, End> {
    tokio::select! {
        biased;
        room = out.reserve() => room.map_err(|_| End::Unheard),
        end = subscription.overdue() => Err(End::Said(told(&end))),
    }
}

/// Resolves when the client's side fails. It may end well, or say more.
async fn failure(mut inbound: Streaming<FlightData>) -> Status {
    for _ in 0..IGNORED_MAX {
        match inbound.message().await {
            Ok(Some(_ignored)) => {}
            Ok(None) => break,
            Err(status) => return status,
        }
    }
    // Dropped, it would end what has not ended.
    let _inbound = inbound;
    pending().await
}

impl Form {
    fn take(&mut self, event: StreamEvent, subscription: &Subscription) -> Result<(), ArrowError> {
        let Some(schema) = subscription.schema() else { return Ok(()) };
        match self {
            Self::Frames(frames) => frames.take(event, schema),
            Self::Changes(changes) => changes.take(event, schema, subscription.primary_key()),
        }
    }

    fn next(&mut self, subscription: &Subscription) -> Result<Option<(FlightData, u64)>, ArrowError> {
        match self {
            Self::Frames(frames) => frames.next(times(subscription.publication())),
            Self::Changes(changes) => changes.next(),
        }
    }

    async fn heartbeat(&self, subscription: &mut Subscription, out: &Out) -> Result<(), End> {
        let Self::Frames(frames) = self else { return Ok(()) };
        let room = room(subscription, out).await?;
        let times = times(subscription.publication());
        if let Some(message) = frames.heartbeat(subscription.standing(), times) {
            subscription.sent(0, message.encoded_len() as u64);
            room.send(Ok(message));
        }
        Ok(())
    }
}

fn times(publication: &Publication) -> Times {
    let sent = Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
    Times { sent, whole: publication.whole_at(sent) }
}

fn told(end: &StreamEnd) -> Status {
    match end {
        StreamEnd::FellBehind { .. } => Status::data_loss(end.to_string()),
        StreamEnd::SchemaChanged { .. } => Status::aborted(end.to_string()),
        StreamEnd::Reconfigured { .. } => Status::unavailable(end.to_string()),
        StreamEnd::Unreadable { .. } => {
            tracing::error!(error = %end, "rows cannot be read for a subscriber");
            Status::internal(end.to_string())
        }
    }
}

fn broken(error: ArrowError) -> End {
    End::Said(Status::internal(format!("the rows cannot be encoded: {error}")))
}
