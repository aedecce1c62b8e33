//! One dataset that follows an append stream: connects, for ever; takes what comes; says how far it is.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::future::{Either, select};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::name::DatasetName;
use crate::proto::stream::{Frame, Subscribe};
use crate::upstream::ExchangeMessage;

use super::super::error::RefreshError;
use super::super::holder::{Holder, now};
use super::super::status::Phase;
use super::backoff::Backoff;
use super::confirm::{APART, Confirm};
use super::counter::{self, Counter};
use super::desk::Desk;
use super::origin::Origin;
use super::queue::{End, Group, Queue, queue};
use super::resumed::{Resumed, SILENCE_MAX};
use super::stock::{self, Stock};
use super::told::Told;

/// How long an upstream may take to say that it has heard.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Another sidewing that was followed before says within this time that it still is one.
const FIRST_WORD_MAX: Duration = Duration::from_secs(10);
/// How often the state is brought up to date where nothing else does it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(in super::super) struct Follower {
    desk: Desk,
    origin: Arc<dyn Origin>,
    /// How often the upstream's rows are counted where nothing asks for it.
    check_interval: Option<Duration>,
    dice: StdRng,
    backoff: Backoff,
    resumed: Resumed,
    stock: Stock,
    /// Who speaks on this connection; none before the first message.
    speaks_frames: Option<bool>,
    /// What is known of fewer rows aside, where frames are spoken.
    confirm: Confirm,
    counter: Counter,
    last_message: Instant,
    next_check: Option<Instant>,
    /// The refresh that somebody asked for, and waits.
    asked: Option<Asked>,
    /// The next connection asks for all rows.
    afresh: bool,
    /// As it was told last.
    health: Health,
    /// What last went wrong, until all is well.
    problem: Option<String>,
}

/// A refresh that somebody asked for.
struct Asked {
    number: u64,
    /// It is done with so many comparisons; none before it has begun.
    compares: Option<u64>,
}

/// How the dataset is, for its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Nothing,
    /// Rows are held, and may not be all.
    Apart,
    Whole {
        ignored: u64,
    },
    Late,
}

impl Follower {
    pub(in super::super) fn new(
        held: Holder,
        told: Arc<Told>,
        origin: Arc<dyn Origin>,
        check_interval: Option<Duration>,
        seed: u64,
    ) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let stock = Stock::new(Arc::clone(&origin), &mut dice);
        Self {
            desk: Desk::new(held, told),
            origin,
            check_interval,
            dice,
            backoff: Backoff::default(),
            resumed: Resumed::default(),
            stock,
            speaks_frames: None,
            confirm: Confirm::default(),
            counter: Counter::default(),
            last_message: Instant::now(),
            next_check: None,
            asked: None,
            afresh: false,
            health: Health::Nothing,
            problem: None,
        }
    }

    /// Until `stop` is cancelled; what is held stays.
    pub(in super::super) async fn keep(mut self, stop: CancellationToken) {
        let board = Arc::clone(&self.desk.held.board);
        match select(pin!(self.follow()), pin!(stop.cancelled())).await {
            Either::Left((never, _)) => match never {},
            Either::Right(_) => board.enter(Phase::ShuttingDown),
        }
    }

    async fn follow(&mut self) -> Infallible {
        self.desk.told.begin();
        self.desk.held.open().await;
        self.tell();
        loop {
            let begun = Instant::now();
            let ended = self.connection().await;
            self.backoff.lived(begun.elapsed());
            self.desk.told.disconnected();
            let error = match ended {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.afresh {
                continue;
            }
            self.fails(&error);
            let until = Instant::now() + self.backoff.next(&mut self.dice);
            while Instant::now() < until && self.asked.is_none() {
                self.tell();
                self.hear();
                let next = until.min(Instant::now() + LOOK_INTERVAL);
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.desk.held.board.rung.notified() => {}
                }
            }
        }
    }

    fn fails(&mut self, error: &RefreshError) {
        self.desk.held.fails(error);
        if self.desk.held.rows.layout().is_none() {
            self.desk.held.board.enter(Phase::Error);
        }
        self.problem = Some(error.to_string());
        self.answer(Some(error.to_string()));
        self.tell();
    }

    /// One connection, to its end.
    async fn connection(&mut self) -> Result<Infallible, RefreshError> {
        let schema = answered(self.desk.held.name(), self.origin.schema()).await?;
        let before = self.desk.layout().ok();
        let layout = self.desk.expect(&schema)?;
        if before.is_some_and(|before| before != layout) {
            self.desk.give_up().await?;
            self.stock.forget();
        }
        let afresh = std::mem::take(&mut self.afresh);
        let held = self.desk.position().filter(|_| !afresh);
        let opening = self.origin.subscribe(Subscribe { held }.encode());
        let messages = answered(self.desk.held.name(), opening).await?;
        self.desk.told.connected();
        self.resumed.begin(held);
        self.stock.begin(&self.desk);
        self.confirm.forget();
        self.counter.forget();
        self.speaks_frames = None;
        self.last_message = Instant::now();
        self.plan_check();
        let (queue, fill) = queue(messages);
        let (session, fill) = (pin!(self.session(queue)), pin!(fill));
        match select(session, fill).await {
            Either::Left((ended, _)) => ended,
            // All has arrived; what is in the queue is still taken.
            Either::Right(((), session)) => session.await,
        }
    }

    async fn session(&mut self, mut queue: Queue) -> Result<Infallible, RefreshError> {
        loop {
            self.tell();
            self.hear();
            if self.asked.is_some() {
                self.compare()?;
            }
            let look = Instant::now() + LOOK_INTERVAL;
            let due = self.next_check.map_or(look, |due| due.min(look));
            let frames = self.speaks_frames == Some(true);
            let is_stock = !frames && !self.may_speak_frames();
            let Self { stock, counter, desk, .. } = &mut *self;
            tokio::select! {
                group = queue.next() => self.take(group).await?,
                event = stock.event(), if is_stock => self.stock(event).await?,
                event = counter.event(), if frames => self.confirm(event).await?,
                () = desk.held.board.rung.notified() => {}
                () = sleep_until(due) => self.look()?,
            }
        }
    }

    /// Another sidewing was followed, and this connection has not shown yet what it is.
    fn may_speak_frames(&self) -> bool {
        let was_sidewing = self.desk.reached.is_some() || self.desk.held.rows.upstream().is_some();
        self.speaks_frames.is_none() && was_sidewing && self.last_message.elapsed() < FIRST_WORD_MAX
    }

    async fn take(&mut self, group: Group) -> Result<(), RefreshError> {
        let Group { messages, end, .. } = &group;
        let arrived = Instant::now();
        if !messages.is_empty() {
            self.last_message = arrived;
            let rows = messages.iter().filter_map(|message| message.batch.as_ref());
            let rows: usize = rows.map(RecordBatch::num_rows).sum();
            let bytes: usize = messages.iter().map(|message| message.bytes).sum();
            self.desk.told.received(rows as u64, bytes as u64);
            self.messages(messages, arrived).await?;
        }
        match end {
            None => Ok(()),
            Some(End::Clean) => Err(self.desk.broken("the upstream ended it")),
            Some(End::Failed(source)) => {
                let dataset = self.desk.held.name().clone();
                Err(RefreshError::Upstream { dataset, source: source.clone() })
            }
        }
    }

    async fn messages(&mut self, messages: &[ExchangeMessage], arrived: Instant) -> Result<(), RefreshError> {
        let frames: Vec<(Option<Frame>, Option<RecordBatch>)> = messages
            .iter()
            .map(|message| (Frame::decode(&message.app_metadata), message.batch.clone()))
            .filter(|(frame, batch)| frame.is_some() || batch.is_some())
            .collect();
        if self.speaks_frames.is_none() && !frames.is_empty() {
            let speaks = frames.iter().all(|(frame, _)| frame.is_some());
            self.speaks_frames = Some(speaks);
            self.desk.told.speaks(speaks);
            if speaks {
                self.stock.forget();
            }
        }
        match self.speaks_frames {
            Some(true) => {
                let framed = frames.into_iter().map(|(frame, batch)| Some((frame?, batch)));
                let Some(framed) = framed.collect::<Option<Vec<_>>>() else {
                    return Err(self.desk.broken("rows came without their frame"));
                };
                self.resumed.take(&mut self.desk, framed, arrived).await?;
                self.show().await
            }
            _ => {
                let batches = frames.into_iter().filter_map(|(_, batch)| batch).collect();
                self.stock.take(&mut self.desk, batches).await
            }
        }
    }

    async fn stock(&mut self, event: stock::Event) -> Result<(), RefreshError> {
        // The stream lives on.
        if let Some(error) = self.stock.handle(&mut self.desk, event).await? {
            tracing::debug!(dataset = %self.desk.held.name(), %error, "the upstream could not be asked");
            self.problem = Some(error.to_string());
        }
        Ok(())
    }

    /// Shows the generation that frames made whole, unless it has fewer rows than are held and nobody confirmed that.
    async fn show(&mut self) -> Result<(), RefreshError> {
        let Some(rows) = self.resumed.whole_rows() else { return Ok(()) };
        if rows >= self.desk.held_rows() || !self.desk.holds_same() {
            return self.shows().await;
        }
        if !self.confirm.is_doubted() {
            let _ = self.confirm.is_believed(rows, Instant::now());
            self.desk.doubt(rows);
            self.counter.by(Instant::now() + APART);
        }
        Ok(())
    }

    async fn shows(&mut self) -> Result<(), RefreshError> {
        self.confirm.forget();
        self.counter.forget();
        self.resumed.show(&mut self.desk).await?;
        if self.asked.as_ref().is_some_and(|asked| asked.compares.is_some()) {
            self.answer(None);
        }
        Ok(())
    }

    async fn confirm(&mut self, event: counter::Event) -> Result<(), RefreshError> {
        let Some(rows) = self.resumed.whole_rows() else { return Ok(()) };
        let counted = match event {
            counter::Event::Due => {
                self.counter.ask(&self.origin, rows, 0);
                return Ok(());
            }
            counter::Event::Counted(_, counted) => counted,
        };
        let now = Instant::now();
        self.counter.by(now + APART);
        match counted {
            Ok(upstream) if self.confirm.is_believed(upstream, now) => {
                self.desk.believe(upstream);
                self.shows().await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.problem = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// What is due by the clock.
    fn look(&mut self) -> Result<(), RefreshError> {
        let now = Instant::now();
        if self.speaks_frames == Some(true) && now.duration_since(self.last_message) >= SILENCE_MAX {
            let silence = SILENCE_MAX.as_secs();
            return Err(self.desk.broken(format!("the upstream has said nothing for {silence} s")));
        }
        if self.next_check.is_some_and(|due| due <= now) {
            self.stock.check();
            self.plan_check();
        }
        Ok(())
    }

    fn plan_check(&mut self) {
        let jitter = self.desk.held.definition.cadence.jitter_max.unwrap_or_default();
        let part = self.dice.random_range(-1.0..=1.0f64);
        let moved = |interval: Duration| match part < 0.0 {
            true => interval.saturating_sub(jitter.mul_f64(-part)),
            false => interval.saturating_add(jitter.mul_f64(part)),
        };
        self.next_check = self.check_interval.map(|interval| Instant::now() + moved(interval));
    }

    /// A refresh that somebody asks for: all rows are compared with the upstream's.
    fn hear(&mut self) {
        if self.asked.is_none()
            && let Some((number, _)) = self.desk.held.board.next_ask()
        {
            self.asked = Some(Asked { number, compares: None });
        }
    }

    /// # Errors
    /// The connection has to end: the next one begins with all rows.
    fn compare(&mut self) -> Result<(), RefreshError> {
        let Some(asked) = &mut self.asked else { return Ok(()) };
        match (self.speaks_frames, asked.compares) {
            (Some(false), None) => {
                asked.compares = Some(self.stock.compares() + 1);
                self.stock.compare(&self.desk);
            }
            (Some(false), Some(compares)) if self.stock.compares() >= compares => self.answer(None),
            (Some(true), None) => {
                self.afresh = true;
                asked.compares = Some(0);
                return Err(self.desk.broken("all rows are asked for again"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells who asked that it is done, or why it is not.
    fn answer(&mut self, failure: Option<String>) {
        if let Some(Asked { number, .. }) = self.asked.take() {
            self.desk.held.board.ended(Some(number), failure);
        }
    }

    /// Brings the state up to date.
    fn tell(&mut self) {
        let told = &self.desk.told;
        let lag = told.lag().as_nanos().min(i64::MAX as u128) as i64;
        self.desk.held.board.publication.known_whole(now().saturating_sub(lag));
        let has_rows = self.desk.held.rows.layout().is_some();
        // A first load takes as long as it takes.
        let is_late = told.is_late() && (has_rows || self.problem.is_some());
        let health = match (is_late, told.is_whole() && has_rows) {
            (true, _) => Health::Late,
            (false, true) => Health::Whole { ignored: told.ignored_rows() },
            (false, false) if has_rows => Health::Apart,
            (false, false) => Health::Nothing,
        };
        if health != Health::Late && self.health == health {
            return;
        }
        self.health = health;
        let board = Arc::clone(&self.desk.held.board);
        match health {
            Health::Late => {
                board.explain(self.lateness());
                board.enter(Phase::Error);
            }
            Health::Whole { ignored } => {
                self.problem = None;
                self.backoff.reset();
                self.desk.held.heals();
                board.enter(Phase::Ready);
                if ignored > 0 {
                    board.explain(format!(
                        "{ignored} updates or deletes of the upstream were ignored: an append stream propagates none; \
                         use refresh_mode: full for a table that changes"
                    ));
                }
            }
            Health::Apart if board.status().phase == Phase::Initializing => board.enter(Phase::Ready),
            Health::Apart | Health::Nothing => {}
        }
    }

    fn lateness(&self) -> String {
        let told = &self.desk.told;
        let (lag, most) = (told.lag().as_secs(), told.lag_max().as_secs());
        let problem = self.problem.as_deref().unwrap_or("rows of the upstream are missing here");
        format!(
            "the append stream was last whole {lag} s ago, more than append_stream_acceptable_lag ({most} s): {problem}"
        )
    }
}

/// # Errors
/// The upstream's, or that it does not answer.
async fn answered<T>(
    dataset: &DatasetName,
    call: impl Future<Output = Result<T, RefreshError>>,
) -> Result<T, RefreshError> {
    timeout(ANSWER_MAX, call).await.unwrap_or_else(|_| {
        let message = format!("the upstream has not answered for {} s", ANSWER_MAX.as_secs());
        Err(RefreshError::Stream { dataset: dataset.clone(), message })
    })
}
