//! What runs and what ran: a statement is entered when it comes, and its end is written when it is known.
//!
//! Bounded: so many queries may run ([`super::admission`]), so many that have ended are remembered, and of each statement
//! only its first bytes. An entry that is dropped without an end was left by its client.
//!
//! The batches of an answer stand in the book too, so that a query ends at once when it is cancelled, or when its client
//! has taken nothing for too long: a client that does not read never asks its stream whether it should go on.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::told::{Counters, Told};
use super::{Cached, Caller, Parts, Principal, QueryError, Request};
use crate::name::QueryId;
use crate::telemetry::{Context as TraceContext, Span, Tracer, shortened};
use crate::wire::Part;

/// Queries that have ended are remembered up to this many.
const ENDED_MAX: usize = 256;
/// Of each statement this much is remembered, in bytes.
const SQL_BYTES_MAX: usize = 4 << 10;

/// Which front end a statement came through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Flight,
    FlightSql,
    Mcp,
    /// Asked by the program itself.
    #[default]
    Internal,
}

/// Where a statement was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// From rows that are kept here.
    Local,
    /// By one upstream, which was sent the whole statement.
    Pushed,
    /// Here, over rows of upstreams, and perhaps of here.
    Federated,
    /// By the results cache, or with an equal statement that ran.
    Cache,
}

/// How a query ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// With this error's text.
    Failed(String),
    /// Somebody asked for its end.
    Cancelled,
    /// Its client took nothing for too long.
    Stalled,
    /// Its client went away, or had enough, before the end.
    Left,
}

/// One query, running or ended.
#[derive(Debug, Clone)]
pub struct QueryRecord {
    pub id: QueryId,
    /// The statement, cut where it is long.
    pub sql: Arc<str>,
    pub principal: Principal,
    pub protocol: Protocol,
    /// When it came.
    pub started: SystemTime,
    /// Its waiting included; until its last row was taken.
    pub elapsed: Duration,
    /// Taken by its client.
    pub rows: u64,
    /// None until it is planned.
    pub place: Option<Place>,
    /// None while it runs.
    pub outcome: Option<Outcome>,
}

/// What names a query that is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryRef {
    Id(QueryId),
    /// The number of the ticket that it was asked with.
    Ticket(u128),
}

/// Why a query was not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CancelError {
    #[error("no such query runs")]
    Unknown,
    #[error("the query belongs to another caller: only a key with `:rw` cancels those")]
    Forbidden,
}

/// The book of queries. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Records {
    inner: Arc<Inner>,
    tracer: Tracer,
}

#[derive(Default)]
struct Inner {
    running: Mutex<HashMap<QueryId, Arc<Running>>>,
    /// The last one that ended is the last.
    ended: Mutex<VecDeque<QueryRecord>>,
    counters: Counters,
}

struct Running {
    id: QueryId,
    sql: Arc<str>,
    principal: Principal,
    protocol: Protocol,
    ticket: Option<u128>,
    started: SystemTime,
    begun: Instant,
    rows: AtomicU64,
    place: AtomicU8,
    cancelled: CancellationToken,
    answer: Mutex<Answering>,
}

/// The rows of a query on their way to its client.
#[derive(Default)]
enum Answering {
    /// There are none yet.
    #[default]
    Not,
    /// `idle` is when the last batch was handed over, until the next one is asked for.
    Parts { parts: Parts, idle: Option<Instant> },
    /// Somebody else has ended it, for this reason.
    Ended(QueryError),
}

/// A query that was entered; its end is written when this is dropped.
pub(super) struct Tracked {
    records: Records,
    running: Arc<Running>,
    outcome: Outcome,
    /// What went wrong, for the metrics; none while nothing has.
    code: Option<&'static str>,
    told: Told,
    /// Recorded when the rest of this has been told.
    span: Span,
}

impl Records {
    /// An empty book; what is entered becomes a task of `tracer`.
    pub fn new(tracer: Tracer) -> Self {
        Self { inner: Arc::default(), tracer }
    }

    /// Enters a statement.
    pub fn enter(&self, id: QueryId, request: &Request) -> Tracked {
        let running = Arc::new(Running {
            id,
            sql: shortened(&request.sql, SQL_BYTES_MAX).into(),
            principal: request.principal.clone(),
            protocol: request.protocol,
            ticket: request.ticket,
            started: SystemTime::now(),
            begun: Instant::now(),
            rows: AtomicU64::new(0),
            place: AtomicU8::new(0),
            cancelled: CancellationToken::new(),
            answer: Mutex::default(),
        });
        self.inner.running().insert(id, Arc::clone(&running));
        let span = self.tracer.start("sql_query", &request.sql, request.caller.as_ref());
        let told = Told::begin(&self.inner.counters, request, id, span.context());
        Tracked { records: self.clone(), running, outcome: Outcome::Left, code: None, told, span }
    }

    /// The queries that run, oldest first, of those that the caller may see.
    pub fn running(&self, caller: &Caller) -> Vec<QueryRecord> {
        let mut running: Vec<QueryRecord> = self
            .inner
            .running()
            .values()
            .filter(|query| caller.commands(&query.principal))
            .map(|query| query.record(None))
            .collect();
        running.sort_by_key(|query| query.started);
        running
    }

    /// The queries that have ended, last first, of those that the caller may see.
    pub fn ended(&self, caller: &Caller) -> Vec<QueryRecord> {
        let ended = self.inner.ended();
        ended.iter().rev().filter(|query| caller.commands(&query.principal)).cloned().collect()
    }

    /// Asks a query to end.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        let running = self.inner.running();
        let found = match which {
            QueryRef::Id(id) => running.get(&id),
            QueryRef::Ticket(ticket) => running.values().find(|query| query.ticket == Some(ticket)),
        };
        let query = found.ok_or(CancelError::Unknown)?;
        if !caller.commands(&query.principal) {
            return Err(CancelError::Forbidden);
        }
        let query = Arc::clone(query);
        // Ending it takes whatever it holds apart: not under the lock of all.
        drop(running);
        query.end(QueryError::Cancelled);
        Ok(())
    }

    /// Ends the queries whose clients have taken nothing for `limit`.
    pub fn end_stalled(&self, limit: Duration) {
        let running: Vec<Arc<Running>> = self.inner.running().values().cloned().collect();
        for query in running.iter().filter(|query| query.is_stalled(limit)) {
            tracing::warn!(query = %query.id, seconds = limit.as_secs_f64(), "its client takes nothing, ended");
            query.end(QueryError::ClientStalled { seconds: limit.as_secs_f64() });
        }
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<QueryId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<QueryRecord>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
    /// The work, unless the query is cancelled first. An error is its end.
    pub async fn until_cancelled<T>(
        &mut self,
        work: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let token = self.running.cancelled.clone();
        let done = token.run_until_cancelled(work).await.unwrap_or(Err(QueryError::Cancelled));
        done.inspect_err(|error| self.fails(error))
    }

    /// Where in a trace it runs.
    pub fn context(&self) -> TraceContext {
        self.span.context().clone()
    }

    /// Says where it is answered.
    pub fn is_answered(&self, place: Option<Place>, cached: Option<&Cached>) {
        self.running.place.store(place.map_or(0, Place::number), Ordering::Relaxed);
        self.told.answered(self.span.context(), place, cached);
    }

    fn fails(&mut self, error: &QueryError) {
        self.outcome = Outcome::of(error);
        self.code = Some(error.code(self.span.context().executing_since().is_some()));
        self.span.fail(&error.to_string());
    }

    /// The same rows, of this schema, counted, until the query is cancelled; the query ends with them.
    pub fn follow(self, parts: Parts, schema: SchemaRef) -> Parts {
        let mut answer = self.running.answer();
        // It may have been cancelled before there was anything to end.
        if matches!(*answer, Answering::Not) {
            *answer = Answering::Parts { parts, idle: Some(Instant::now()) };
        }
        drop(answer);
        let cancelled = Box::pin(self.running.cancelled.clone().cancelled_owned());
        Followed { tracked: Some(self), schema, cancelled }.boxed()
    }
}

/// The rows of a query as its client takes them.
struct Followed {
    /// None after the end.
    tracked: Option<Tracked>,
    schema: SchemaRef,
    /// Wakes a client that waits for rows when there will be none.
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream for Followed {
    type Item = Result<Part, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(tracked) = &mut this.tracked else { return Poll::Ready(None) };
        let next = match tracked.running.poll(cx) {
            // Only to be woken: what was ended is found in its place.
            Poll::Pending => {
                ready!(this.cancelled.as_mut().poll(cx));
                ready!(tracked.running.poll(cx))
            }
            Poll::Ready(next) => next,
        };
        match &next {
            Some(Ok(part)) => {
                tracked.running.rows.fetch_add(part.rows() as u64, Ordering::Relaxed);
                tracked.told.gives(part, &this.schema, tracked.span.context());
                return Poll::Ready(next);
            }
            Some(Err(error)) => tracked.fails(error),
            None => tracked.outcome = Outcome::Done,
        }
        this.tracked = None;
        Poll::Ready(next)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Left);
        self.records.inner.running().remove(&self.running.id);
        let record = self.running.record(Some(outcome));
        self.told.ended(&record, self.code, &self.span);
        let mut ended = self.records.inner.ended();
        if ended.len() == ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(record);
    }
}

impl Running {
    fn answer(&self) -> MutexGuard<'_, Answering> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, QueryError>>> {
        match &mut *self.answer() {
            Answering::Not => Poll::Ready(None),
            Answering::Ended(error) => Poll::Ready(Some(Err(error.clone()))),
            Answering::Parts { parts, idle } => {
                // While it waits for rows nobody may say that it takes none.
                *idle = None;
                let next = ready!(parts.as_mut().poll_next(cx));
                *idle = Some(Instant::now());
                Poll::Ready(next)
            }
        }
    }

    /// Lets go of whatever the query holds, and tells its client why when it asks.
    fn end(&self, error: QueryError) {
        let ended = std::mem::replace(&mut *self.answer(), Answering::Ended(error));
        self.cancelled.cancel();
        drop(ended);
    }

    /// Whether its client was handed rows, and has not asked for more since `limit` ago.
    fn is_stalled(&self, limit: Duration) -> bool {
        // Who holds the lock asks for more now.
        let Ok(answer) = self.answer.try_lock() else { return false };
        matches!(*answer, Answering::Parts { idle: Some(since), .. } if since.elapsed() >= limit)
    }

    fn record(&self, outcome: Option<Outcome>) -> QueryRecord {
        QueryRecord {
            id: self.id,
            sql: Arc::clone(&self.sql),
            principal: self.principal.clone(),
            protocol: self.protocol,
            started: self.started,
            elapsed: self.begun.elapsed(),
            rows: self.rows.load(Ordering::Relaxed),
            place: Place::of_number(self.place.load(Ordering::Relaxed)),
            outcome,
        }
    }
}

impl Outcome {
    fn of(error: &QueryError) -> Self {
        match error {
            QueryError::Cancelled => Self::Cancelled,
            QueryError::ClientStalled { .. } => Self::Stalled,
            other => Self::Failed(other.to_string()),
        }
    }

    /// The word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Stalled => "stalled",
            Self::Left => "left",
        }
    }
}

impl Place {
    const ALL: [Self; 4] = [Self::Local, Self::Pushed, Self::Federated, Self::Cache];

    /// Zero is for none.
    fn number(self) -> u8 {
        self as u8 + 1
    }

    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.number() == number)
    }

    /// The word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Pushed => "pushed",
            Self::Federated => "federated",
            Self::Cache => "cache",
        }
    }
}

impl Protocol {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Internal as usize + 1;

    /// The word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Flight => "flight",
            Self::FlightSql => "flightsql",
            Self::Mcp => "mcp",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};

    use super::*;
    use crate::query::{KeyId, Rights};

    fn caller(key: &str, rights: Rights) -> Caller {
        Caller { principal: Principal::Key(KeyId::new(key)), rights }
    }

    fn asked_by(key: &str, ticket: Option<u128>) -> Request {
        let principal = Principal::Key(KeyId::new(key));
        Request { principal, ticket, protocol: Protocol::Http, ..Request::new("SELECT 1") }
    }

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]).unwrap()
    }

    fn parts(count: usize) -> Parts {
        futures::stream::iter((0..count).map(|_| Ok(Part::Batch(batch())))).boxed()
    }

    fn follow(tracked: Tracked, parts: Parts) -> Parts {
        tracked.follow(parts, batch().schema())
    }

    #[tokio::test]
    async fn a_query_is_seen_while_it_runs_and_afterwards() {
        let (records, me) = (Records::default(), caller("a", Rights::Read));
        let tracked = records.enter(QueryId::random(), &asked_by("a", None));
        tracked.is_answered(Some(Place::Pushed), None);
        let mut batches = follow(tracked, parts(2));
        batches.next().await.unwrap().unwrap();
        let [running] = &records.running(&me)[..] else { panic!("one runs") };
        assert_eq!((running.rows, running.place, &running.outcome), (3, Some(Place::Pushed), &None));
        while batches.next().await.is_some() {}
        assert!(records.running(&me).is_empty());
        let [ended] = &records.ended(&me)[..] else { panic!("one has ended") };
        assert_eq!((ended.rows, &ended.outcome), (6, &Some(Outcome::Done)));
    }

    #[tokio::test]
    async fn a_cancelled_query_ends_and_one_that_is_dropped_was_left() {
        let (records, me) = (Records::default(), caller("a", Rights::Read));
        let tracked = records.enter(QueryId::random(), &asked_by("a", Some(7)));
        let mut endless = follow(tracked, futures::stream::pending().boxed());
        records.cancel(QueryRef::Ticket(7), &me).unwrap();
        assert!(matches!(endless.next().await, Some(Err(QueryError::Cancelled))));
        assert!(endless.next().await.is_none());
        drop(follow(records.enter(QueryId::random(), &asked_by("a", None)), parts(1)));
        let outcomes: Vec<_> = records.ended(&me).into_iter().map(|query| query.outcome).collect();
        assert_eq!(outcomes, [Some(Outcome::Left), Some(Outcome::Cancelled)]);
        assert_eq!(records.cancel(QueryRef::Ticket(7), &me), Err(CancelError::Unknown));
    }

    #[tokio::test]
    async fn a_query_that_waits_is_cancelled_too() {
        let (records, id) = (Records::default(), QueryId::random());
        let mut tracked = records.enter(id, &asked_by("a", None));
        records.cancel(QueryRef::Id(id), &Caller::anonymous()).unwrap();
        let waited = tracked.until_cancelled(std::future::pending::<Result<(), _>>()).await;
        assert!(matches!(waited, Err(QueryError::Cancelled)));
    }

    #[tokio::test]
    async fn a_query_that_nobody_reads_is_let_go_at_once() {
        let records = Records::default();
        let token = CancellationToken::new();
        let held = token.clone().drop_guard();
        let rows = parts(2).inspect(move |_| {
            let _held = &held;
        });
        let mut unread = follow(records.enter(QueryId::random(), &asked_by("a", Some(1))), rows.boxed());
        records.cancel(QueryRef::Ticket(1), &Caller::anonymous()).unwrap();
        assert!(token.is_cancelled(), "it lets go of what it holds");
        assert!(matches!(unread.next().await, Some(Err(QueryError::Cancelled))));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_takes_nothing_stalls() {
        const LIMIT: Duration = Duration::from_secs(60);
        let (records, me) = (Records::default(), Caller::anonymous());
        let mut unread = follow(records.enter(QueryId::random(), &asked_by("a", None)), parts(2));
        // This one waits for its rows, which is not its client's fault.
        let mut waiting = follow(
            records.enter(QueryId::random(), &asked_by("a", None)),
            futures::stream::pending().boxed(),
        );
        assert!(futures::poll!(waiting.next()).is_pending());
        unread.next().await.unwrap().unwrap();
        tokio::time::advance(LIMIT - Duration::from_secs(1)).await;
        records.end_stalled(LIMIT);
        assert_eq!(records.running(&me).len(), 2);
        tokio::time::advance(Duration::from_secs(2)).await;
        records.end_stalled(LIMIT);
        assert!(matches!(unread.next().await, Some(Err(QueryError::ClientStalled { .. }))));
        assert!(unread.next().await.is_none());
        assert_eq!(records.running(&me).len(), 1);
        assert_eq!(records.ended(&me)[0].outcome, Some(Outcome::Stalled));
    }

    #[test]
    fn readers_command_only_their_own() {
        let (records, id) = (Records::default(), QueryId::random());
        let _tracked = records.enter(id, &asked_by("a", None));
        let other = caller("b", Rights::Read);
        assert!(records.running(&other).is_empty());
        assert_eq!(records.cancel(QueryRef::Id(id), &other), Err(CancelError::Forbidden));
        let writer = caller("b", Rights::ReadWrite);
        assert_eq!(records.running(&writer).len(), 1);
        records.cancel(QueryRef::Id(id), &writer).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let records = Records::default();
        let long = Request::new("é".repeat(SQL_BYTES_MAX));
        for _ in 0..=ENDED_MAX {
            drop(records.enter(QueryId::random(), &long));
        }
        let ended = records.ended(&Caller::anonymous());
        assert_eq!(ended.len(), ENDED_MAX);
        assert!(ended[0].sql.len() <= SQL_BYTES_MAX + '…'.len_utf8());
    }
}
