//! Statements through the results cache: found there, shared with an equal one that runs, or run.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt};

use super::admission::Turn;
use super::cache::{Case, Entry, Flight, Found, Joined, Look, Outcome, ResultsCache};
use super::deadline::{Deadline, within};
use super::engine::{Engine, Started, guarded};
use super::parts::{self, Form, Items};
use super::plan::Planned;
use super::{CacheStatus, Cached, Parts, Place, Protocol, QueryError, Request};
use crate::telemetry::Context;
use crate::wire::Part;

/// An answer on its way out.
pub(super) struct Reply {
    pub schema: SchemaRef,
    pub parts: Parts,
    pub cached: Option<Cached>,
    /// Where it was answered.
    pub place: Option<Place>,
}

impl Engine {
    /// Answers a request that was planned before, where its result is there: without planning, and without a turn.
    pub(super) fn recall(&self, cache: &ResultsCache, request: &Request) -> Option<Reply> {
        let (case, entry) = cache.recall(request, self.federation.catalog_version())?;
        Some(Told { cache, case: &case, protocol: request.protocol }.held(&entry, CacheStatus::Hit))
    }

    /// Answers from the cache where it may, else runs the statement. The turn is given back as soon as it is not
    /// needed: a cached answer needs none, and who waits for another's run has the other's.
    pub(super) async fn consult(
        &self,
        cache: &ResultsCache,
        request: &Request,
        deadline: Option<Deadline>,
        turn: Turn,
    ) -> Result<Reply, QueryError> {
        let version = self.federation.catalog_version();
        let planned = within(deadline, self.plan(request)).await?;
        let Some(case) = self.case(cache, request, version, &planned) else {
            refuse_run(request)?;
            return self.run_alone(planned, deadline, turn, Some(Cached::bypass())).await;
        };
        let told = Told { cache, case: &case, protocol: request.protocol };
        if !case.may_read() {
            refuse_run(request)?;
            return self.run_shared(&told, planned, deadline, turn).await;
        }
        match cache.look(&case) {
            Look::Hit(entry) => Ok(told.held(&entry, CacheStatus::Hit)),
            Look::Stale { entry, revalidate } => {
                if revalidate {
                    self.revalidate(cache, &case, planned, deadline, turn);
                }
                Ok(told.held(&entry, CacheStatus::Stale))
            }
            Look::Miss { instead } => {
                refuse_run(request).inspect_err(|_| cache.count(Found::Miss))?;
                let ran = self.run_shared(&told, planned, deadline, turn).await;
                match (ran, instead) {
                    (Err(error), Some(entry)) if is_of_the_surroundings(&error) => {
                        tracing::debug!(%error, "answered with a stale result instead");
                        Ok(told.held(&entry, CacheStatus::Stale))
                    }
                    (ran, _) => ran,
                }
            }
        }
    }

    fn case(&self, cache: &ResultsCache, request: &Request, version: u64, planned: &Planned) -> Option<Case> {
        if planned.explain.is_some() {
            return None;
        }
        cache.case(request, version, &planned.plan.plan, &|scan| self.is_dataset(scan))
    }

    /// Runs a statement for one client.
    pub(super) async fn run_alone(
        &self,
        planned: Planned,
        deadline: Option<Deadline>,
        turn: Turn,
        cached: Option<Cached>,
    ) -> Result<Reply, QueryError> {
        let place = Some(Self::place(&planned));
        let Started { schema, parts, .. } = within(deadline, self.start(planned)).await?;
        Ok(Reply { schema, parts: guarded(holding(parts, turn), deadline), cached, place })
    }

    /// Runs a statement for all who ask it now, or waits for such a run.
    async fn run_shared(
        &self,
        told: &Told<'_>,
        planned: Planned,
        deadline: Option<Deadline>,
        turn: Turn,
    ) -> Result<Reply, QueryError> {
        match told.cache.join(told.case, deadline.map(|deadline| deadline.timeout)) {
            Joined::Hit(entry) => {
                told.count(Found::Hit);
                Ok(told.held(&entry, CacheStatus::Hit))
            }
            Joined::Lead(lead) => {
                told.count(Found::Miss);
                let place = Some(Self::place(&planned));
                let flight = lead.launch(self.work(planned, turn).boxed());
                if let Some(context) = Context::current() {
                    context.executes();
                }
                let (schema, batches) = within(deadline, flight.stream()).await?;
                let parts = guarded(parts::of_batches(batches), deadline);
                Ok(Reply { schema, parts, cached: told.ran(), place })
            }
            Joined::Follow(flight) => {
                drop(turn);
                self.follow(told, flight, planned, deadline).await
            }
            Joined::Alone => {
                told.count(Found::Miss);
                self.run_alone(planned, deadline, turn, told.ran()).await
            }
        }
    }

    async fn follow(
        &self,
        told: &Told<'_>,
        flight: Arc<Flight>,
        planned: Planned,
        deadline: Option<Deadline>,
    ) -> Result<Reply, QueryError> {
        let outcome = within(deadline, flight.outcome().map(Ok)).await;
        told.count(if matches!(outcome, Ok(Outcome::Done(..))) { Found::Hit } else { Found::Miss });
        match outcome? {
            Outcome::Done(schema, batches) => Ok(told.shared(flight, schema, batches)),
            Outcome::Failed(error) => Err(error),
            Outcome::Unshared => {
                // What it holds is not for this one.
                drop(flight);
                let turn = self.running.enter(deadline, told.protocol).await?;
                self.run_alone(planned, deadline, turn, told.ran()).await
            }
        }
    }

    /// Fetches a stale result anew, once for all who find it stale.
    fn revalidate(
        &self,
        cache: &ResultsCache,
        case: &Case,
        planned: Planned,
        deadline: Option<Deadline>,
        turn: Turn,
    ) {
        let Some(lead) = cache.renew(case) else { return };
        metrics::counter!("results_cache_swr_background_query_count").increment(1);
        let flight = lead.launch(self.work(planned, turn).boxed());
        cache.scope().spawn("results cache refresh", async move {
            let outcome = within(deadline, flight.outcome().map(Ok)).await;
            if let Ok(Outcome::Failed(error)) | Err(error) = outcome {
                tracing::debug!(%error, "a stale result was not fetched anew");
            }
        });
    }

    /// The run of a statement, by itself: whoever began it may go away.
    fn work(
        &self,
        planned: Planned,
        turn: Turn,
    ) -> impl Future<Output = Result<Started, QueryError>> + Send + use<> {
        let (engine, asked_by) = (self.clone(), Context::current());
        // What is kept is kept for clients of every kind.
        let planned = Planned { form: Form::Batches, ..planned };
        async move {
            let started = Context::scope_in(asked_by, engine.start(planned)).await?;
            Ok(Started { parts: holding(started.parts, turn), ..started })
        }
    }
}

/// How the answers to one statement are told.
struct Told<'a> {
    cache: &'a ResultsCache,
    case: &'a Case,
    protocol: Protocol,
}

impl Told<'_> {
    /// Counts what became of the statement, if it was looked for.
    fn count(&self, found: Found) {
        if self.case.may_read() {
            self.cache.count(found);
        }
    }

    fn held(&self, entry: &Arc<Entry>, status: CacheStatus) -> Reply {
        let cached = self.cached(status, Some(entry));
        let (schema, held) = (Arc::clone(&entry.schema), Arc::clone(entry));
        // The entry is held, and its memory with it, until the last batch is taken.
        let form = Form::of(self.protocol);
        let parts = (0..).map_while(move |at| held.part(form, at).map(Ok));
        let parts = futures::stream::iter(parts).boxed();
        Reply { schema, parts, cached: Some(cached), place: Some(Place::Cache) }
    }

    /// The result of another's run, which is held for its memory.
    fn shared(&self, flight: Arc<Flight>, schema: SchemaRef, batches: Vec<RecordBatch>) -> Reply {
        let parts = futures::stream::iter(batches.into_iter().map(|batch| Ok(Part::Batch(batch))));
        let parts = holding(parts.boxed(), flight);
        let cached = Some(self.cached(CacheStatus::Hit, None));
        Reply { schema, parts, cached, place: Some(Place::Cache) }
    }

    /// Of an answer that is being computed.
    fn ran(&self) -> Option<Cached> {
        let status = match self.case.may_read() {
            true => CacheStatus::Miss,
            false => CacheStatus::Bypass,
        };
        Some(self.cached(status, None))
    }

    fn cached(&self, status: CacheStatus, entry: Option<&Entry>) -> Cached {
        Cached {
            status,
            scope: Some(self.case.scope()),
            has_client_key: self.case.has_client_key(),
            freshness: self.cache.freshness(self.case, entry),
        }
    }
}

/// # Errors
/// [`QueryError::NotCached`] for a request that wants no run.
pub(super) fn refuse_run(request: &Request) -> Result<(), QueryError> {
    match request.cache.only_if_cached {
        true => Err(QueryError::NotCached),
        false => Ok(()),
    }
}

/// The same rows; what is `held` for them (a turn, memory) is let go with them.
pub(super) fn holding<I: 'static, T: Send + 'static>(rows: Items<I>, held: T) -> Items<I> {
    rows.inspect(move |_| {
        let _held = &held;
    })
    .boxed()
}

/// Whether the statement might be answered at another moment: then an older answer is better than none.
fn is_of_the_surroundings(error: &QueryError) -> bool {
    match error {
        QueryError::Upstream { source, .. } => !source.is_refusal(),
        QueryError::NotReady { .. }
        | QueryError::Timeout { .. }
        | QueryError::QueueFull { .. }
        | QueryError::QueueTimeout { .. }
        | QueryError::ResourcesExhausted { .. }
        | QueryError::Spill { .. }
        | QueryError::Internal { .. } => true,
        QueryError::Invalid { .. }
        | QueryError::NotFound { .. }
        | QueryError::ReadOnly { .. }
        | QueryError::Unsupported { .. }
        | QueryError::NotCached
        | QueryError::ClientStalled { .. }
        | QueryError::Cancelled => false,
    }
}
