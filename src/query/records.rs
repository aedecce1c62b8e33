//! What runs and what ran: a statement is entered when it comes, and its end is written when it is known.
//!
//! Bounded: so many queries may run ([`super::admission`]), so many that have ended are remembered, and of each statement
//! only its first bytes. An entry that is dropped without an end was left by its client.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Batches, Caller, Principal, QueryError, Request};
use crate::name::QueryId;

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
pub(super) struct Records(Arc<Inner>);

#[derive(Default)]
struct Inner {
    running: Mutex<HashMap<QueryId, Arc<Running>>>,
    /// The last one that ended is the last.
    ended: Mutex<VecDeque<QueryRecord>>,
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
}

/// A query that was entered; its end is written when this is dropped.
pub(super) struct Tracked {
    records: Records,
    running: Arc<Running>,
    outcome: Outcome,
}

impl Records {
    /// Enters a statement.
    pub fn enter(&self, id: QueryId, request: &Request) -> Tracked {
        let running = Arc::new(Running {
            id,
            sql: shortened(&request.sql).into(),
            principal: request.principal.clone(),
            protocol: request.protocol,
            ticket: request.ticket,
            started: SystemTime::now(),
            begun: Instant::now(),
            rows: AtomicU64::new(0),
            place: AtomicU8::new(0),
            cancelled: CancellationToken::new(),
        });
        self.0.running().insert(id, Arc::clone(&running));
        Tracked { records: self.clone(), running, outcome: Outcome::Left }
    }

    /// The queries that run, oldest first, of those that the caller may see.
    pub fn running(&self, caller: &Caller) -> Vec<QueryRecord> {
        let mut running: Vec<QueryRecord> = self
            .0
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
        let ended = self.0.ended();
        ended.iter().rev().filter(|query| caller.commands(&query.principal)).cloned().collect()
    }

    /// Asks a query to end.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        let running = self.0.running();
        let found = match which {
            QueryRef::Id(id) => running.get(&id),
            QueryRef::Ticket(ticket) => running.values().find(|query| query.ticket == Some(ticket)),
        };
        let query = found.ok_or(CancelError::Unknown)?;
        match caller.commands(&query.principal) {
            true => query.cancelled.cancel(),
            false => return Err(CancelError::Forbidden),
        }
        Ok(())
    }
}

impl Inner {
    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<QueryId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, VecDeque<QueryRecord>> {
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
        done.inspect_err(|error| self.outcome = Outcome::of(error))
    }

    /// Says where it is answered.
    pub fn is_answered(&self, place: Option<Place>) {
        self.running.place.store(place.map_or(0, Place::number), Ordering::Relaxed);
    }

    /// The same batches, counted, until the query is cancelled; the query ends with them.
    pub fn follow(self, batches: Batches) -> Batches {
        futures::stream::unfold(Some((batches, self)), |state| async move {
            let (mut batches, mut tracked) = state?;
            let token = tracked.running.cancelled.clone();
            match token.run_until_cancelled(batches.next()).await.unwrap_or(Some(Err(QueryError::Cancelled)))
            {
                Some(Ok(batch)) => {
                    tracked.running.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    Some((Ok(batch), Some((batches, tracked))))
                }
                Some(Err(error)) => {
                    tracked.outcome = Outcome::of(&error);
                    Some((Err(error), None))
                }
                None => {
                    tracked.outcome = Outcome::Done;
                    None
                }
            }
        })
        .boxed()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Left);
        self.records.0.running().remove(&self.running.id);
        let record = self.running.record(Some(outcome));
        let mut ended = self.records.0.ended();
        if ended.len() == ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(record);
    }
}

impl Running {
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

fn shortened(sql: &str) -> String {
    let end = sql.floor_char_boundary(SQL_BYTES_MAX);
    match sql.len() > end {
        true => format!("{}…", &sql[..end]),
        false => sql.to_owned(),
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

    fn batches(count: usize) -> Batches {
        let column = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("a", column as _)]).unwrap();
        futures::stream::iter(vec![Ok(batch); count]).boxed()
    }

    #[tokio::test]
    async fn a_query_is_seen_while_it_runs_and_afterwards() {
        let (records, me) = (Records::default(), caller("a", Rights::Read));
        let tracked = records.enter(QueryId::random(), &asked_by("a", None));
        tracked.is_answered(Some(Place::Pushed));
        let mut batches = tracked.follow(batches(2));
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
        let mut endless = tracked.follow(futures::stream::pending().boxed());
        records.cancel(QueryRef::Ticket(7), &me).unwrap();
        assert!(matches!(endless.next().await, Some(Err(QueryError::Cancelled))));
        assert!(endless.next().await.is_none());
        drop(records.enter(QueryId::random(), &asked_by("a", None)).follow(batches(1)));
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
