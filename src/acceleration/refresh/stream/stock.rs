//! The stream of a stock upstream, in both of its forms.
//!
//! That of 2024 replays the whole table when anybody subscribes, and marks nothing; that of 2026 begins with `t`, the
//! rows of the table, and then those that were written meanwhile, which may be among the former. Either may lose rows.
//! See the module above for the rule that holds throughout.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::acceleration::store::StoreError;
use crate::task::blocking;

use super::super::error::RefreshError;
use super::changes::{Change, changes};
use super::confirm::{APART, Confirm};
use super::counter::{self, Counter};
use super::desk::Desk;
use super::ledger::{Asked, Ledger};
use super::origin::Origin;
use super::reconcile::{Counted, QUIET, Verdict, judge};

/// Rows that come one after the other are counted together.
const DEBOUNCE: Duration = Duration::from_millis(30);
/// When an upstream that says nothing is counted first.
const FIRST_COUNT: Duration = Duration::from_millis(200);
/// A generation aside that rows keep coming for is completed by a query after so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often the counts agree before no copy of a row that a query brought is expected any more.
const AGREEMENTS: u32 = 2;
/// Between two queries of all rows, beside five times what the last one took.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// So many batches of a query are compared together.
const GROUP_MAX: usize = 16;

pub(super) struct Stock {
    origin: Arc<dyn Origin>,
    dice: StdRng,
    /// The stream of this connection begins with `t`: it repeats nothing later on.
    truncates: bool,
    /// Of the rows that are being filled up; none where that has to be made first.
    ledger: Option<Ledger>,
    /// A count has proved that what is held is all there was, since this stream began.
    is_proven: bool,
    /// A row that is newer than that has come.
    is_past: bool,
    /// New rows are taken unseen.
    trusts: bool,
    counter: Counter,
    repair: Option<Repair>,
    repair_after: Instant,
    confirm: Confirm,
    /// The generation aside may have fewer rows than are held: that was confirmed.
    may_shrink: bool,
    last_row: Instant,
    /// Since when the counts differ.
    apart: Option<Instant>,
    agreements: u32,
    /// Queries of all rows that have ended.
    compares: u64,
}

/// A query of all rows.
struct Repair {
    rows: Rows,
    asked: Asked,
    begun: Instant,
    /// What was held and unsettled as it began.
    held: u64,
    unsettled: u64,
    /// New rows that the stream brought since.
    brought: u64,
}

enum Rows {
    Opening(BoxFuture<'static, Result<SendableRecordBatchStream, RefreshError>>),
    Open(BoxStream<'static, Vec<Result<RecordBatch, DataFusionError>>>),
}

pub(super) enum Event {
    Counter(counter::Event),
    Opened(Result<SendableRecordBatchStream, RefreshError>),
    Fetched(Vec<Result<RecordBatch, DataFusionError>>),
    /// The query has no more rows.
    Ended,
}

impl Stock {
    pub(super) fn new(origin: Arc<dyn Origin>, dice: &mut StdRng) -> Self {
        let now = Instant::now();
        Self {
            origin,
            dice: StdRng::from_rng(dice),
            truncates: false,
            ledger: None,
            is_proven: false,
            is_past: false,
            trusts: false,
            counter: Counter::default(),
            repair: None,
            repair_after: now,
            confirm: Confirm::default(),
            may_shrink: false,
            last_row: now,
            apart: None,
            agreements: 0,
            compares: 0,
        }
    }

    pub(super) fn compares(&self) -> u64 {
        self.compares
    }

    /// A connection begins.
    pub(super) fn begin(&mut self, desk: &Desk) {
        let now = Instant::now();
        if std::mem::take(&mut self.trusts) {
            self.ledger = None;
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.begin_replay(&desk.held.budget);
        }
        self.counter.forget();
        self.counter.by(now + FIRST_COUNT);
        (self.repair, self.last_row, self.apart) = (None, now, None);
        (self.truncates, self.is_proven, self.is_past) = (false, false, false);
        self.confirm.forget();
    }

    /// What was put aside is gone, or belongs to other columns.
    pub(super) fn forget(&mut self) {
        (self.ledger, self.trusts, self.may_shrink) = (None, false, false);
    }

    /// All rows are to be compared now.
    pub(super) fn compare(&mut self, desk: &Desk) {
        if self.repair.is_none() {
            self.counter.forget();
            self.open(desk);
        }
    }

    /// A count is due: whatever is known, it is time to look.
    pub(super) fn check(&mut self) {
        self.counter.by(Instant::now());
    }

    /// Resolves when something is to be done; dropping it loses nothing.
    pub(super) async fn event(&mut self) -> Event {
        let Self { counter, repair, .. } = self;
        match repair.as_mut().map(|repair| &mut repair.rows) {
            None => Event::Counter(counter.event().await),
            Some(Rows::Opening(opening)) => Event::Opened(opening.await),
            Some(Rows::Open(rows)) => rows.next().await.map_or(Event::Ended, Event::Fetched),
        }
    }

    /// # Errors
    /// What putting rows down meets: the connection has to end. Of queries that fail only the words are returned.
    pub(super) async fn handle(
        &mut self,
        desk: &mut Desk,
        event: Event,
    ) -> Result<Option<RefreshError>, RefreshError> {
        match event {
            Event::Counter(counter::Event::Due) => {
                self.target(desk).await?;
                let (rows, unsettled) = (self.rows(desk), self.unsettled());
                self.counter.ask(&self.origin, rows, unsettled);
            }
            Event::Counter(counter::Event::Counted(asked, Ok(upstream))) => {
                self.counted(desk, asked, upstream).await?;
            }
            Event::Counter(counter::Event::Counted(_, Err(error))) => {
                self.not_counted(desk, &error);
                return Ok(Some(error));
            }
            Event::Opened(Ok(rows)) => {
                if let Some(repair) = &mut self.repair {
                    repair.rows = Rows::Open(rows.ready_chunks(GROUP_MAX).boxed());
                }
            }
            Event::Opened(Err(error)) => return Ok(Some(self.repair_failed(error))),
            Event::Fetched(batches) => match batches.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(batches) => self.fetched(desk, batches).await?,
                Err(error) => {
                    let error = RefreshError::fetch(desk.held.name())(error);
                    return Ok(Some(self.repair_failed(error)));
                }
            },
            Event::Ended => self.repaired(desk).await?,
        }
        Ok(None)
    }

    /// Takes change batches that came together.
    ///
    /// # Errors
    /// Batches of another form or of other columns, or what putting rows down meets.
    pub(super) async fn take(
        &mut self,
        desk: &mut Desk,
        batches: Vec<RecordBatch>,
    ) -> Result<(), RefreshError> {
        let mut rows = Vec::new();
        for batch in batches {
            for change in changes(&batch).map_err(|reason| desk.broken(reason))? {
                match change {
                    Change::Rows(batch) => rows.push(desk.fitted(batch)?),
                    Change::Truncate => {
                        self.take_rows(desk, std::mem::take(&mut rows)).await?;
                        self.truncate(desk).await?;
                    }
                    Change::Ignored(rows) => ignored(desk, rows),
                }
            }
        }
        self.take_rows(desk, rows).await
    }

    async fn truncate(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        self.truncates = true;
        self.start(desk).await?;
        self.last_row = Instant::now();
        self.count_soon();
        Ok(())
    }

    /// A generation begins aside, empty.
    async fn start(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        self.forget();
        (self.repair, self.apart, self.agreements) = (None, None, 0);
        (self.is_proven, self.is_past) = (false, false);
        self.confirm.forget();
        self.counter.forget();
        desk.told.apart();
        desk.begin().await?;
        self.ledger = Some(self.new_ledger(desk)?);
        Ok(())
    }

    fn new_ledger(&mut self, desk: &Desk) -> Result<Ledger, RefreshError> {
        Ok(Ledger::try_new(&desk.layout()?, &desk.held.budget, self.dice.random())?)
    }

    /// There is something to put rows on, and what it holds is known.
    async fn target(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        match desk.is_aside() {
            true if self.ledger.is_some() => Ok(()),
            false if desk.holds_same() => Ok(()),
            _ => self.start(desk).await,
        }
    }

    /// The ledger of the target, read from the rows that are held where there is none.
    async fn known(&mut self, desk: &mut Desk) -> Result<Ledger, RefreshError> {
        self.target(desk).await?;
        if let Some(ledger) = self.ledger.take() {
            return Ok(ledger);
        }
        let mut ledger = self.new_ledger(desk)?;
        let mut rows = desk.scan().await?.ready_chunks(GROUP_MAX);
        while let Some(group) = rows.next().await {
            let group: Vec<RecordBatch> =
                group.into_iter().collect::<Result<_, _>>().map_err(desk.held.failed())?;
            ledger = blocking("hash rows", move || {
                group.iter().try_for_each(|batch| ledger.hold(batch)).map(|()| ledger)
            })
            .await??;
        }
        ledger.begin_replay(&desk.held.budget);
        Ok(ledger)
    }

    async fn take_rows(&mut self, desk: &mut Desk, batches: Vec<RecordBatch>) -> Result<(), RefreshError> {
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        self.last_row = Instant::now();
        if self.trusts {
            return desk.add(batches, None).await;
        }
        let mut ledger = self.known(desk).await?;
        let compared = blocking("compare rows", move || {
            let new =
                batches.into_iter().map(|batch| ledger.take(batch)).collect::<Result<Vec<_>, StoreError>>();
            new.map(|new| (ledger, new))
        });
        let (ledger, new) = compared.await??;
        let new: Vec<RecordBatch> = new.into_iter().flatten().collect();
        self.is_past |= self.is_proven && !new.is_empty();
        if let Some(repair) = &mut self.repair {
            repair.brought += new.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        }
        desk.add(new, None).await?;
        let is_open = ledger.unsettled() > 0 || desk.is_aside();
        // Only now: had they not been put down, they would not be held.
        self.ledger = Some(ledger);
        self.trust();
        if is_open {
            desk.told.apart();
            self.count_soon();
        }
        Ok(())
    }

    fn count_soon(&mut self) {
        self.counter.by(Instant::now() + DEBOUNCE);
    }

    fn rows(&self, desk: &Desk) -> u64 {
        self.ledger.as_ref().map_or_else(|| desk.held_rows(), Ledger::rows)
    }

    fn is_covered(&self, desk: &Desk) -> bool {
        let unknown = || self.trusts || desk.held_rows() == 0;
        self.ledger.as_ref().map_or_else(unknown, Ledger::is_covered)
    }

    fn unsettled(&self) -> u64 {
        self.ledger.as_ref().map_or(0, Ledger::unsettled)
    }

    async fn counted(
        &mut self,
        desk: &mut Desk,
        asked: counter::Asked,
        upstream: u64,
    ) -> Result<(), RefreshError> {
        let now = Instant::now();
        let apart = *self.apart.get_or_insert(asked.at);
        let verdict = judge(&Counted {
            upstream,
            before: asked.rows,
            after: self.rows(desk),
            unsettled: self.unsettled(),
            is_covered: self.is_covered(desk),
            quiet: now.duration_since(self.last_row),
            apart: now.duration_since(apart),
        });
        let (dataset, held, unsettled) = (desk.held.name(), asked.rows, asked.unsettled);
        tracing::debug!(%dataset, held, upstream, unsettled, ?verdict, is_aside = desk.is_aside(), "rows counted");
        match verdict {
            Verdict::Whole => return self.agreed(desk, asked).await,
            Verdict::Fewer => return self.fewer(desk, upstream).await,
            Verdict::Following if !desk.is_aside() => {
                self.apart = None;
                self.confirm.forget();
                desk.told.whole(asked.at, Duration::ZERO);
                return Ok(());
            }
            Verdict::Following | Verdict::Wait(_) | Verdict::Missing => {}
        }
        desk.told.apart();
        self.agreements = 0;
        self.confirm.forget();
        // Rows that never stop coming would leave a generation aside for ever.
        let is_due = verdict == Verdict::Missing || now.duration_since(apart) >= PATIENCE;
        match verdict {
            _ if is_due && now >= self.repair_after => self.open(desk),
            _ if is_due => self.counter.by(self.repair_after),
            Verdict::Wait(pause) => self.counter.by(now + pause),
            _ => self.counter.by(now + DEBOUNCE),
        }
        Ok(())
    }

    /// An upstream that refuses to count is asked for all rows instead, once they have stopped coming.
    fn not_counted(&mut self, desk: &Desk, error: &RefreshError) {
        let now = Instant::now();
        let is_quiet = now.duration_since(self.last_row) >= QUIET && now >= self.repair_after;
        match is_quiet && !error.heals() {
            true => self.open(desk),
            false => self.counter.by(now + REPAIR_PAUSE),
        }
    }

    /// The count is what was held: what was left out before it was asked came twice.
    async fn agreed(&mut self, desk: &mut Desk, asked: counter::Asked) -> Result<(), RefreshError> {
        self.apart = None;
        self.agreements = self.agreements.saturating_add(1);
        if let Some(ledger) = &mut self.ledger {
            ledger.settle(asked.unsettled);
            desk.told.repeated(asked.unsettled);
            if self.agreements >= AGREEMENTS {
                ledger.forget_credits(&desk.held.budget);
            }
        }
        if self.unsettled() > 0 {
            self.count_soon();
        }
        self.whole(desk, asked.at, asked.rows).await?;
        self.is_proven = !desk.is_aside();
        self.trust();
        Ok(())
    }

    /// A stream that begins with `t` repeats only rows that were written before it was whole, and sends them in order:
    /// after a row that is newer than a proof, it repeats none.
    fn trust(&mut self) {
        if self.truncates && self.is_past && self.unsettled() == 0 {
            (self.trusts, self.ledger) = (true, None);
        }
    }

    /// All that there was at `at` is in the target, which had `rows` then.
    async fn whole(&mut self, desk: &mut Desk, at: Instant, rows: u64) -> Result<(), RefreshError> {
        let shrinks = desk.is_aside() && desk.holds_same() && rows < desk.held_rows();
        if shrinks && !self.may_shrink && !self.confirm.is_believed(rows, Instant::now()) {
            self.doubt(desk, rows);
            return Ok(());
        }
        self.confirm.forget();
        self.may_shrink = false;
        if desk.is_aside() {
            // Were it not shown, it would be gone, and this not what is held.
            let ledger = self.ledger.take();
            desk.finish(None).await?;
            self.ledger = ledger;
        }
        match self.unsettled() {
            0 => desk.told.whole(at, Duration::ZERO),
            _ => desk.told.apart(),
        }
        Ok(())
    }

    fn doubt(&mut self, desk: &mut Desk, rows: u64) {
        desk.told.apart();
        desk.doubt(rows);
        self.counter.by(Instant::now() + APART);
    }

    async fn fewer(&mut self, desk: &mut Desk, upstream: u64) -> Result<(), RefreshError> {
        self.agreements = 0;
        if !self.confirm.is_believed(upstream, Instant::now()) {
            self.doubt(desk, upstream);
            return Ok(());
        }
        desk.believe(upstream);
        self.start(desk).await?;
        self.may_shrink = true;
        self.open(desk);
        Ok(())
    }

    /// A query of all rows begins. What it brings may come by the stream as well: nothing is taken unseen before the
    /// next proof.
    fn open(&mut self, desk: &Desk) {
        (self.trusts, self.is_proven, self.is_past) = (false, false, false);
        let origin = Arc::clone(&self.origin);
        let rows = Rows::Opening(async move { origin.rows().await }.boxed());
        let (held, unsettled) = (self.rows(desk), self.unsettled());
        let asked = Asked::new(&desk.held.budget);
        self.repair = Some(Repair { rows, asked, begun: Instant::now(), held, unsettled, brought: 0 });
    }

    fn repair_failed(&mut self, error: RefreshError) -> RefreshError {
        self.repair = None;
        self.repair_after = Instant::now() + REPAIR_PAUSE;
        self.counter.by(self.repair_after);
        error
    }

    async fn fetched(&mut self, desk: &mut Desk, batches: Vec<RecordBatch>) -> Result<(), RefreshError> {
        let mut ledger = self.known(desk).await?;
        let Some(mut repair) = self.repair.take() else { return Ok(()) };
        let batches = batches.into_iter().map(|batch| desk.fitted(batch)).collect::<Result<Vec<_>, _>>()?;
        let compared = blocking("compare rows", move || {
            let missing = batches.into_iter().map(|batch| ledger.missing(&mut repair.asked, batch));
            let missing = missing.collect::<Result<Vec<_>, StoreError>>();
            missing.map(|missing| (ledger, repair, missing))
        });
        let (ledger, repair, missing) = compared.await??;
        let missing: Vec<RecordBatch> = missing.into_iter().flatten().collect();
        if !self.may_shrink {
            desk.told.repaired(missing.iter().map(|batch| batch.num_rows() as u64).sum());
        }
        desk.add(missing, None).await?;
        (self.ledger, self.repair) = (Some(ledger), Some(repair));
        Ok(())
    }

    /// The query has ended: all rows that it found are in the target.
    async fn repaired(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        let ledger = self.known(desk).await?;
        let held = ledger.rows();
        self.ledger = Some(ledger);
        let Some(repair) = self.repair.take() else { return Ok(()) };
        let now = Instant::now();
        self.repair_after = now + REPAIR_PAUSE + 5 * now.duration_since(repair.begun);
        self.compares += 1;
        let upstream = repair.asked.rows();
        if let Some(ledger) = &mut self.ledger {
            ledger.settle(repair.unsettled);
            ledger.end_replay();
        }
        desk.told.repeated(repair.unsettled);
        self.apart = None;
        if self.unsettled() > 0 {
            self.count_soon();
        }
        if upstream < repair.held {
            return self.fewer(desk, upstream).await;
        }
        if upstream + repair.brought < held {
            // Rows are held that the upstream has replaced by others: the next counts are smaller.
            self.count_soon();
            return Ok(());
        }
        self.whole(desk, repair.begun, held).await
    }
}

/// An append stream propagates no updates and no deletes.
fn ignored(desk: &Desk, rows: usize) {
    if desk.told.ignored(rows as u64) {
        let dataset = desk.held.name();
        tracing::warn!(%dataset, rows, "the upstream sent updates or deletes, which an append stream ignores");
    }
}
