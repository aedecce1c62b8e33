//! Messages on their way to whoever applies them, bounded in bytes.
//!
//! Reading goes on while rows are applied, so that an upstream which drops what it cannot send has somebody to send to;
//! past the bound nothing is read, and HTTP/2 flow control holds the sender.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::upstream::{ExchangeMessage, UpstreamError};

use super::origin::Messages;

/// So many KiB of messages wait at most, and one message more.
const KIB_MAX: usize = 32 << 10;
/// So many messages are applied together, at most.
const GROUP_MAX: usize = 1024;

/// The end that is read from.
pub(super) struct Queue {
    arrived: mpsc::UnboundedReceiver<Item>,
}

struct Item {
    message: Result<ExchangeMessage, UpstreamError>,
    /// Its place in the queue, given back when it is applied.
    place: Option<OwnedSemaphorePermit>,
}

/// Messages that are applied together.
#[derive(Default)]
pub(super) struct Group {
    pub messages: Vec<ExchangeMessage>,
    /// What ended the stream after them.
    pub end: Option<End>,
    _places: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum End {
    /// The upstream ended the stream without a reason.
    Clean,
    Failed(UpstreamError),
}

/// The queue, and what fills it for as long as it is polled.
pub(super) fn queue(messages: Messages) -> (Queue, impl Future<Output = ()> + Send) {
    let (sender, arrived) = mpsc::unbounded_channel();
    let space = Arc::new(Semaphore::new(KIB_MAX));
    (Queue { arrived }, fill(messages, sender, space))
}

async fn fill(mut messages: Messages, sender: mpsc::UnboundedSender<Item>, space: Arc<Semaphore>) {
    while let Some(message) = messages.next().await {
        let kib = message.as_ref().map_or(0, |message| message.bytes.div_ceil(1024)).min(KIB_MAX);
        let place = Arc::clone(&space).acquire_many_owned(kib as u32).await.ok();
        if sender.send(Item { message, place }).is_err() {
            return;
        }
    }
}

impl Queue {
    /// What is there, at least one message or the end.
    pub(super) async fn next(&mut self) -> Group {
        let mut items = Vec::new();
        let mut group = Group::default();
        if self.arrived.recv_many(&mut items, GROUP_MAX).await == 0 {
            group.end = Some(End::Clean);
        }
        for item in items {
            group._places.extend(item.place);
            match item.message {
                Ok(message) => group.messages.push(message),
                Err(error) => group.end = Some(End::Failed(error)),
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;

    use super::*;

    fn message(bytes: usize) -> ExchangeMessage {
        ExchangeMessage { app_metadata: Bytes::new(), batch: None, bytes }
    }

    #[tokio::test]
    async fn past_the_bound_nothing_is_read() {
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let endless = futures::stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(message(8 << 20))
        });
        let (mut queue, fill) = queue(endless.boxed());
        let mut fill = Box::pin(fill);
        assert!((&mut fill).now_or_never().is_none());
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 5, "four are held, one waits");
        let group = queue.next().await;
        assert_eq!(group.messages.len(), 4);
        assert!((&mut fill).now_or_never().is_none());
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 5, "their places are still taken");
        drop(group);
        assert!((&mut fill).now_or_never().is_none());
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 9);
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_not_lost() {
        let (mut queue, fill) = queue(futures::stream::iter([Ok(message(1)), Ok(message(2))]).boxed());
        fill.await;
        let group = queue.next().await;
        assert_eq!((group.messages.len(), group.end.is_some()), (2, false));
        assert!(matches!(queue.next().await.end, Some(End::Clean)));
    }
}
