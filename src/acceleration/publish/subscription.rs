//! One subscriber: a cursor that follows a publication.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::acceleration::store::{Budget, Lease};
use crate::proto::stream::{Epoch, Position};
use crate::task::{at, blocking};

use super::counts::Outgoing;
use super::error::{Limit, StreamEnd};
use super::finishing::Finishing;
use super::plan::{self, Cursor, Of, Sent, Step};
use super::publication::Publication;
use super::rows::{Piece, Published};

/// Between two tries to have memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);

/// What a subscriber is told.
#[derive(Debug, Clone)]
pub enum StreamEvent {
    /// Rows of `epoch` follow, the first `from` left out. With `is_resume` they continue what the subscriber holds,
    /// else they replace it once they are whole.
    Begin { epoch: Epoch, from: u64, head: u64, is_resume: bool },
    /// At least one row; `first` and `last` count within the epoch, from one.
    Rows { batch: RecordBatch, first: u64, last: u64, head: u64 },
    /// Everything up to `last` was sent, and is a state that the table was in. Told once for each `Begin`.
    Whole { last: u64, head: u64 },
}

/// Where a subscriber is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub epoch: Epoch,
    /// The rows that it has.
    pub last: u64,
    /// The rows that there are.
    pub head: u64,
}

/// See the module. Dropping it ends it.
pub struct Subscription {
    cursor: Cursor,
    follower: Follower,
    /// The rows behind the cursor on their way, kept when [`Subscription::next`] is dropped.
    reading: Option<BoxFuture<'static, Result<Read, StreamEnd>>>,
    /// Of the rows that were given out last.
    lease: Option<Lease>,
    outgoing: Outgoing,
}

/// Rows and the memory that they were unpacked into.
struct Read {
    batch: RecordBatch,
    lease: Option<Lease>,
}

/// What is known of the publication.
struct Follower {
    publication: Arc<Publication>,
    news: watch::Receiver<Option<Arc<Published>>>,
    present: Option<Arc<Published>>,
    /// What is left to read of the epoch before.
    earlier: Option<Arc<Finishing>>,
    /// Of the rows that are sent; none before the first.
    schema: Option<SchemaRef>,
}

impl Subscription {
    pub(super) fn new(publication: Arc<Publication>, held: Option<Position>) -> Self {
        let mut news = publication.follow();
        news.mark_changed();
        publication.counts().subscribers(1.0);
        let outgoing = publication.counts().outgoing();
        let follower = Follower { publication, news, present: None, earlier: None, schema: None };
        Self { cursor: Cursor::Fresh { held }, follower, reading: None, lease: None, outgoing }
    }

    #[must_use]
    pub fn publication(&self) -> &Arc<Publication> {
        &self.follower.publication
    }

    /// Of all rows; none before the first [`StreamEvent::Begin`].
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.follower.schema.as_ref()
    }

    /// The names of the primary key's columns; none where there is no such key.
    #[must_use]
    pub fn primary_key(&self) -> Option<Arc<[String]>> {
        let key = Arc::clone(self.follower.present.as_ref()?.primary_key());
        (!key.is_empty()).then_some(key)
    }

    /// None before the first [`StreamEvent::Begin`].
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        match self.cursor {
            Cursor::Fresh { .. } => None,
            Cursor::At(Sent { position, .. }) => Some(Standing {
                epoch: position.epoch,
                last: position.sequence,
                head: self.follower.head(position),
            }),
        }
    }

    /// The next event, when there is one: the rows of the one before were made use of. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The subscription has ended.
    pub async fn next(&mut self) -> Result<StreamEvent, StreamEnd> {
        self.lease = None;
        loop {
            self.follower.look(self.cursor)?;
            let step = plan::next(self.cursor, self.follower.at(), self.follower.held());
            let event = match step {
                Step::Wait => {
                    self.follower.changed().await;
                    continue;
                }
                Step::Begin { head, from, is_resume } => self.begin(head, from, is_resume),
                Step::Read { sent, up_to, of } => self.read(sent, up_to, of).await?,
                Step::Whole { sent } => {
                    StreamEvent::Whole { last: sent.sequence, head: self.follower.head(sent) }
                }
            };
            self.cursor = self.cursor.after(step, event.last());
            return Ok(event);
        }
    }

    /// Resolves when the subscription has to end although nobody asks for its next event: whoever holds it while its
    /// client is slow waits for this as well.
    pub async fn overdue(&mut self) -> StreamEnd {
        self.follower.overdue(self.cursor).await
    }

    /// Tells what went out, for the metrics.
    pub fn sent(&self, rows: u64, bytes: u64) {
        self.outgoing.add(rows, bytes);
    }

    fn begin(&mut self, head: Position, from: u64, is_resume: bool) -> StreamEvent {
        self.follower.begin();
        self.follower.publication.counts().begun(u64::from(is_resume), u64::from(!is_resume));
        StreamEvent::Begin { epoch: head.epoch, from, head: head.sequence, is_resume }
    }

    async fn read(&mut self, sent: Position, up_to: u64, of: Of) -> Result<StreamEvent, StreamEnd> {
        let reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.follower.rows(sent.sequence, up_to, of)?,
        };
        let reading = self.reading.insert(reading);
        let Read { batch, lease } = tokio::select! {
            biased;
            read = reading => read?,
            end = self.follower.overdue(self.cursor) => return Err(end),
        };
        (self.reading, self.lease) = (None, lease);
        let last = sent.sequence + batch.num_rows() as u64;
        Ok(StreamEvent::Rows { batch, first: sent.sequence + 1, last, head: self.follower.head(sent) })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.follower.publication.counts().subscribers(-1.0);
    }
}

impl StreamEvent {
    fn last(&self) -> u64 {
        match self {
            Self::Begin { from, .. } => *from,
            Self::Rows { last, .. } | Self::Whole { last, .. } => *last,
        }
    }
}

impl Follower {
    fn at(&self) -> Option<Position> {
        self.present.as_ref().map(|present| present.position())
    }

    fn held(&self) -> Option<Position> {
        self.earlier.as_ref().map(|earlier| earlier.head)
    }

    /// How many rows of its epoch there are.
    fn head(&self, sent: Position) -> u64 {
        let heads = [self.at(), self.held()].into_iter().flatten();
        heads.filter(|head| head.epoch == sent.epoch).map(|head| head.sequence).max().unwrap_or(sent.sequence)
    }

    /// Takes in what was published, and holds on to what `cursor` has yet to read of what that replaces.
    fn look(&mut self, cursor: Cursor) -> Result<(), StreamEnd> {
        if !self.news.has_changed().unwrap_or(false) {
            return Ok(());
        }
        if self.publication.is_closed() {
            return Err(StreamEnd::Reconfigured { dataset: self.publication.dataset().clone() });
        }
        let next = self.news.borrow_and_update().clone();
        let is_other = |schema: &SchemaRef| next.as_ref().is_some_and(|next| next.schema() != schema);
        if self.schema.as_ref().is_some_and(is_other) {
            return Err(StreamEnd::SchemaChanged { dataset: self.publication.dataset().clone() });
        }
        let at = next.as_ref().map(|next| next.position());
        let before = std::mem::replace(&mut self.present, next);
        if let (Some(before), Cursor::At(sent)) = (before, cursor)
            && cursor.leaves_rows(before.position(), at)
        {
            let earlier = Finishing::new(&before, sent.position.sequence);
            self.publication.hold(&earlier);
            self.earlier = Some(earlier);
        }
        Ok(())
    }

    /// The epoch of now is what is read from here on.
    fn begin(&mut self) {
        self.earlier = None;
        self.schema = self.present.as_ref().map(|present| Arc::clone(present.schema()));
    }

    async fn changed(&mut self) {
        // The publication is held here, so that it does not go away.
        if self.news.changed().await.is_err() {
            pending::<()>().await;
        }
        self.news.mark_changed();
    }

    async fn overdue(&mut self, cursor: Cursor) -> StreamEnd {
        loop {
            if let Err(end) = self.look(cursor) {
                return end;
            }
            let Some(earlier) = self.earlier.clone() else {
                self.changed().await;
                continue;
            };
            let retention = self.publication.retention();
            let limit = tokio::select! {
                () = earlier.expired.cancelled() => Limit::Bytes(retention.bytes),
                () = at(earlier.since.checked_add(retention.time)) => Limit::Time(retention.time),
                () = self.changed() => continue,
            };
            return self.fell_behind(cursor, &earlier, limit);
        }
    }

    fn fell_behind(&self, cursor: Cursor, earlier: &Finishing, limit: Limit) -> StreamEnd {
        self.publication.counts().lost(1);
        let sent = match cursor {
            Cursor::Fresh { .. } => 0,
            Cursor::At(sent) => sent.position.sequence,
        };
        let missed = earlier.head.sequence.saturating_sub(sent);
        StreamEnd::FellBehind { dataset: self.publication.dataset().clone(), missed, limit }
    }

    /// The rows behind the first `sent`, of one piece and at most to `up_to`.
    fn rows(
        &self,
        sent: u64,
        up_to: u64,
        of: Of,
    ) -> Result<BoxFuture<'static, Result<Read, StreamEnd>>, StreamEnd> {
        let found: Option<(Piece, u64)> = match of {
            Of::Present => self
                .present
                .as_ref()
                .and_then(|present| present.piece_after(sent).map(|(piece, before)| (piece.clone(), before))),
            Of::Earlier => self.earlier.as_ref().and_then(|earlier| earlier.piece_after(sent)),
        };
        let dataset = self.publication.dataset().clone();
        let unreadable = move |message| StreamEnd::Unreadable { dataset: dataset.clone(), message };
        let (piece, before) = found.ok_or_else(|| unreadable(format!("row {} is not there", sent + 1)))?;
        let (from, to) = (sent - before, (up_to - before).min(piece.rows));
        let budget = self.publication.budget().cloned();
        let read = async move {
            let lease = leased(budget, piece.unpacked_bytes()).await;
            match blocking("read rows to publish", move || piece.read(from, to)).await {
                Ok(Ok(batch)) => Ok(Read { batch, lease }),
                Ok(Err(message)) => Err(unreadable(message)),
                Err(error) => Err(unreadable(error.to_string())),
            }
        };
        Ok(read.boxed())
    }
}

/// Memory for rows to be unpacked into, as soon as there is so much. A subscriber can wait, queries cannot.
async fn leased(budget: Option<Budget>, bytes: usize) -> Option<Lease> {
    let budget = budget.filter(|_| bytes > 0)?;
    let mut has_waited = false;
    loop {
        match budget.lease(bytes) {
            Ok(lease) => return Some(lease),
            Err(error) if has_waited => tracing::debug!(%error, "a subscriber still waits for memory"),
            Err(error) => tracing::warn!(%error, "a subscriber waits for memory"),
        }
        has_waited = true;
        sleep(MEMORY_INTERVAL).await;
    }
}
