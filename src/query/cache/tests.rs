//! The cache against a world that changes under it: whatever is published, replaced, abandoned or left to age, and
//! whenever runs end, an answer is one that may be given.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::acceleration::Pins;
use crate::acceleration::store::{AcceleratedTable, Budget, Layout, Load, Table};
use crate::config::{ByteSize, ResultsCache as Settings};
use crate::query::QueryError;
use crate::query::engine::Started;
use crate::query::parts;

const FRESH: Duration = Duration::from_secs(10);
const STALE: Duration = Duration::from_secs(5);
const POOL_BYTES: usize = 1 << 20;
/// Two tables that are kept here, and one of an upstream.
const STATEMENTS: [(&str, Reads); 4] = [
    ("SELECT g FROM a", Reads::Kept(&[0])),
    ("SELECT a.g AS x, b.g AS y FROM a CROSS JOIN b", Reads::Kept(&[0, 1])),
    ("SELECT max(g) AS g FROM b", Reads::Kept(&[1])),
    ("SELECT g FROM u", Reads::Upstream),
];

/// What a statement's answer is made of.
#[derive(Debug, Clone, Copy)]
enum Reads {
    /// The numbers of these tables.
    Kept(&'static [usize]),
    Upstream,
}

#[derive(Debug, Clone)]
enum Step {
    /// A table gets its next generation.
    Publish(usize),
    /// Another table takes a table's name.
    Replace(usize),
    /// The upstream's rows change.
    Change,
    Pass(u8),
    Ask {
        statement: usize,
        wishes: CacheWishes,
    },
    /// A run that was begun ends.
    End(usize),
    /// All who wait for a run go away.
    Abandon(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let wishes = prop_oneof![
        6 => Just(CacheWishes::default()),
        1 => Just(CacheWishes { no_cache: true, ..CacheWishes::default() }),
        1 => Just(CacheWishes { key: ClientKey::new("k"), ..CacheWishes::default() }),
        1 => Just(CacheWishes { max_age: Some(Duration::from_secs(2)), ..CacheWishes::default() }),
    ];
    prop_oneof![
        2 => (0..2_usize).prop_map(Step::Publish),
        1 => (0..2_usize).prop_map(Step::Replace),
        1 => Just(Step::Change),
        2 => (1..8_u8).prop_map(Step::Pass),
        8 => (0..STATEMENTS.len(), wishes).prop_map(|(statement, wishes)| Step::Ask { statement, wishes }),
        5 => (0..4_usize).prop_map(Step::End),
        1 => (0..4_usize).prop_map(Step::Abandon),
    ]
}

/// A run that waits for its word, and who else waits for it.
struct Begun {
    statement: usize,
    go: oneshot::Sender<()>,
    flight: Arc<Flight>,
    /// What the waiting ones would have read when they came.
    least: Vec<Vec<i64>>,
}

struct World {
    context: SessionContext,
    cache: ResultsCache,
    pool: Arc<dyn MemoryPool>,
    scope: task::Scope,
    /// How far the clock is ahead.
    ahead: Arc<Mutex<Duration>>,
    began: Instant,
    tables: Vec<Arc<Table>>,
    /// Of the catalog.
    version: u64,
    /// The number that was given last: every change takes the next.
    last: i64,
    kept: [i64; 2],
    /// Of the upstream, each with the moment from which it held.
    upstream: Arc<Mutex<Vec<(i64, Instant)>>>,
    runs: Vec<Begun>,
    hits: usize,
    /// Those among them that were not planned.
    recalled: usize,
}

fn numbers(values: &[i64]) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("g", column)]).unwrap()
}

fn name(at: usize) -> &'static str {
    ["a", "b"][at]
}

/// All numbers of an answer of one row.
fn row(batches: &[RecordBatch]) -> Vec<i64> {
    let columns = batches.iter().filter(|batch| batch.num_rows() > 0).flat_map(RecordBatch::columns);
    columns.map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

fn settings(max_size: u64) -> Settings {
    let seconds = |duration: Duration| duration.as_secs().to_string().parse().ok();
    Settings {
        enabled: Some(true),
        max_size: Some(ByteSize::new(max_size)),
        item_ttl: seconds(FRESH),
        stale_ttl: seconds(STALE),
        ..Settings::default()
    }
}

impl World {
    fn new() -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(POOL_BYTES));
        let scope = task::Scope::new();
        let (began, ahead) = (Instant::now(), Arc::<Mutex<Duration>>::default());
        let shown = Arc::clone(&ahead);
        let clock: Clock = Arc::new(move || began + *shown.lock().unwrap());
        let settings = settings(POOL_BYTES as u64);
        let cache = ResultsCache::with_clock(&settings, &pool, scope.clone(), clock).unwrap();
        let context = SessionContext::new();
        let remote = MemTable::try_new(numbers(&[0]).schema(), vec![vec![numbers(&[0])]]).unwrap();
        context.register_table("u", Arc::new(remote)).unwrap();
        let upstream = Arc::new(Mutex::new(vec![(0, began)]));
        let mut world = Self {
            context,
            cache,
            pool,
            scope,
            ahead,
            began,
            tables: Vec::new(),
            version: 0,
            last: 0,
            kept: [0; 2],
            upstream,
            runs: Vec::new(),
            hits: 0,
            recalled: 0,
        };
        (0..2).for_each(|at| world.replace(at));
        world
    }

    fn time(&self) -> Instant {
        self.began + *self.ahead.lock().unwrap()
    }

    fn pass(&self, time: Duration) {
        *self.ahead.lock().unwrap() += time;
    }

    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    fn publish(&mut self, at: usize) {
        let value = self.next();
        let table = &self.tables[at];
        let budget = Budget::new(name(at).parse().unwrap(), &self.pool);
        let mut load = Load::begin(Arc::clone(table.layout()), table.pin(), budget);
        load.push(&numbers(&[value])).unwrap();
        table.publish(load.finish().unwrap()).unwrap();
        self.kept[at] = value;
    }

    fn replace(&mut self, at: usize) {
        let schema: SchemaRef = numbers(&[0]).schema();
        let layout = Layout::try_new(name(at).parse().unwrap(), schema, None, Vec::new()).unwrap();
        let table = Arc::new(Table::new(Arc::new(layout)));
        let provider: Arc<dyn TableProvider> = Arc::new(AcceleratedTable::new(Arc::clone(&table)));
        let _ = self.context.deregister_table(name(at)).unwrap();
        let _ = self.context.register_table(name(at), provider).unwrap();
        self.version += 1;
        match self.tables.get_mut(at) {
            Some(held) => *held = table,
            None => self.tables.push(table),
        }
        self.publish(at);
    }

    /// What a run that begins now would answer.
    fn now(&self, statement: usize) -> Vec<i64> {
        match STATEMENTS[statement].1 {
            Reads::Kept(tables) => tables.iter().map(|at| self.kept[*at]).collect(),
            Reads::Upstream => {
                self.upstream.lock().unwrap().last().map(|(value, _)| *value).into_iter().collect()
            }
        }
    }

    async fn case(&self, statement: usize, wishes: &CacheWishes) -> (Case, LogicalPlan) {
        let sql = STATEMENTS[statement].0;
        let plan = self.context.state().create_logical_plan(sql).await.unwrap();
        let request = Request { cache: wishes.clone(), ..Request::new(sql) };
        let case =
            self.cache.case(&request, self.version, &plan, &|scan| scan.table_name.table() == "u").unwrap();
        (case, plan)
    }

    /// Reads what it reads, waits for its word, and answers.
    fn work(
        &self,
        statement: usize,
        plan: LogicalPlan,
        go: oneshot::Receiver<()>,
    ) -> BoxFuture<'static, Result<Started, QueryError>> {
        let (context, upstream) = (self.context.clone(), Arc::clone(&self.upstream));
        async move {
            let mut state = context.state();
            let (config, pins) = Pins::into_config(state.config().clone());
            *state.config_mut() = config;
            let physical = state.create_physical_plan(&plan).await.unwrap();
            let _ = go.await;
            let batches = match STATEMENTS[statement].1 {
                Reads::Kept(_) => collect(Arc::clone(&physical), context.task_ctx()).await.unwrap(),
                Reads::Upstream => vec![numbers(&[upstream.lock().unwrap().last().unwrap().0])],
            };
            let batches = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
            Ok(Started { schema: physical.schema(), parts: parts::of_batches(batches), pins: Some(pins) })
        }
        .boxed()
    }

    async fn ask(&mut self, statement: usize, wishes: &CacheWishes) {
        let request = Request { cache: wishes.clone(), ..Request::new(STATEMENTS[statement].0) };
        if let Some((_, entry)) = self.cache.recall(&request, self.version) {
            self.recalled += 1;
            return self.check(statement, &entry, wishes.max_age.unwrap_or(FRESH).min(FRESH));
        }
        let (case, plan) = self.case(statement, wishes).await;
        match self.cache.look(&case) {
            Look::Hit(entry) => self.check(statement, &entry, wishes.max_age.unwrap_or(FRESH).min(FRESH)),
            Look::Stale { entry, .. } => {
                assert!(wishes.max_age.is_none());
                self.check(statement, &entry, FRESH + STALE);
            }
            Look::Miss { .. } => self.begin(statement, &case, plan).await,
        }
    }

    async fn begin(&mut self, statement: usize, case: &Case, plan: LogicalPlan) {
        match self.cache.join(case, None) {
            Joined::Hit(entry) => self.check(statement, &entry, FRESH),
            Joined::Lead(lead) => {
                let (go, gone) = oneshot::channel();
                let flight = lead.launch(self.work(statement, plan, gone));
                // The run reads what there is: it is polled before anything else happens.
                tokio::task::yield_now().await;
                self.runs.push(Begun { statement, go, flight, least: vec![self.now(statement)] });
            }
            Joined::Follow(flight) => {
                let least = self.now(statement);
                let run = self.runs.iter_mut().find(|run| Arc::ptr_eq(&run.flight, &flight)).unwrap();
                run.least.push(least);
            }
            Joined::Alone => panic!("nothing here is too large"),
        }
    }

    /// An entry answers: it must be what a run would say now or, of the upstream, what was true not too long ago.
    fn check(&mut self, statement: usize, entry: &Entry, most: Duration) {
        self.hits += 1;
        let answer = row(&entry.batches);
        match STATEMENTS[statement].1 {
            Reads::Kept(_) => assert_eq!(answer, self.now(statement), "{}", STATEMENTS[statement].0),
            Reads::Upstream => {
                let upstream = self.upstream.lock().unwrap();
                let at = upstream.iter().position(|(value, _)| *value == answer[0]).unwrap();
                if let Some((_, until)) = upstream.get(at + 1) {
                    let age = self.time() - *until;
                    assert!(age <= most, "{age:?} old, {most:?} allowed");
                }
            }
        }
    }

    async fn end(&mut self, at: usize) {
        if at >= self.runs.len() {
            return;
        }
        let Begun { statement, go, flight, least } = self.runs.remove(at);
        let _ = go.send(());
        let Outcome::Done(_, batches) = flight.outcome().await else { panic!("a run failed") };
        let answer = row(&batches);
        for least in least {
            let is_new = answer.iter().zip(&least).all(|(answer, least)| answer >= least);
            assert!(is_new && answer.len() == least.len(), "{statement}: {answer:?}, at least {least:?}");
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(at) => self.publish(*at),
            Step::Replace(at) => self.replace(*at),
            Step::Change => {
                let value = self.next();
                let now = self.time();
                self.upstream.lock().unwrap().push((value, now));
            }
            Step::Pass(seconds) => self.pass(Duration::from_secs((*seconds).into())),
            Step::Ask { statement, wishes } => self.ask(*statement, wishes).await,
            Step::End(at) => self.end(*at).await,
            Step::Abandon(at) if *at < self.runs.len() => drop(self.runs.remove(*at)),
            Step::Abandon(_) => {}
        }
    }

    /// Everything ends, and nothing stays behind.
    async fn settle(mut self) -> usize {
        while !self.runs.is_empty() {
            self.end(0).await;
        }
        assert!(self.cache.inner.running.lock().unwrap().is_empty(), "a flight is listed that has landed");
        assert!(self.cache.inner.store.bytes() <= POOL_BYTES as u64);
        self.scope.shutdown(Duration::from_secs(1)).await.unwrap();
        self.hits
    }
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SIDEWING_LONG").is_some() { 2_000 } else { 60 }))]
    #[test]
    fn an_answer_is_one_that_may_be_given(steps in proptest::collection::vec(step(), 1..60)) {
        alone(async {
            let mut world = World::new();
            for step in &steps {
                world.take(step).await;
            }
            world.settle().await;
        });
    }
}

#[test]
fn what_is_asked_again_is_a_hit_until_something_changes() {
    alone(async {
        let mut world = World::new();
        let plain = CacheWishes::default();
        for (statement, (sql, _)) in STATEMENTS.iter().enumerate() {
            world.ask(statement, &plain).await;
            world.end(0).await;
            world.ask(statement, &plain).await;
            assert_eq!(world.hits, statement + 1, "{sql}");
        }
        assert_eq!(world.recalled, STATEMENTS.len(), "a statement was planned twice");
        world.publish(1);
        world.ask(0, &plain).await;
        assert_eq!((world.hits, world.runs.len()), (5, 0), "`a` did not change");
        world.ask(1, &plain).await;
        assert_eq!((world.hits, world.runs.len()), (5, 1), "`b` did");
        world.pass(FRESH + STALE);
        world.ask(3, &plain).await;
        assert_eq!((world.hits, world.runs.len()), (5, 2), "the upstream's is too old");
        world.end(0).await;
        world.replace(0);
        world.ask(0, &plain).await;
        assert_eq!((world.hits, world.runs.len()), (5, 2), "`a` is another table");
        world.settle().await;
    });
}

#[test]
fn a_result_that_is_outdated_when_it_is_whole_is_not_kept() {
    alone(async {
        let mut world = World::new();
        let plain = CacheWishes::default();
        world.ask(0, &plain).await;
        world.publish(0);
        world.end(0).await;
        assert_eq!(world.cache.inner.store.bytes(), 0);
        world.ask(0, &plain).await;
        assert_eq!((world.hits, world.runs.len()), (0, 1));
        world.settle().await;
    });
}

#[test]
fn a_stale_result_is_fetched_anew_once() {
    alone(async {
        let mut world = World::new();
        world.ask(3, &CacheWishes::default()).await;
        world.end(0).await;
        world.pass(FRESH);
        let (case, plan) = world.case(3, &CacheWishes::default()).await;
        assert!(matches!(world.cache.look(&case), Look::Stale { revalidate: true, .. }));
        let (go, gone) = oneshot::channel();
        let flight = world.cache.renew(&case).unwrap().launch(world.work(3, plan, gone));
        assert!(world.cache.renew(&case).is_none(), "it is on its way");
        go.send(()).unwrap();
        assert!(matches!(flight.outcome().await, Outcome::Done(..)));
        assert!(world.cache.renew(&case).is_none(), "it is fresh");
        assert!(matches!(world.cache.look(&case), Look::Hit(_)));
        world.settle().await;
    });
}

#[test]
fn a_leader_may_go_and_the_last_one_ends_the_run() {
    alone(async {
        let world = World::new();
        let (case, plan) = world.case(0, &CacheWishes::default()).await;
        let (go, gone) = oneshot::channel();
        let Joined::Lead(lead) = world.cache.join(&case, None) else { panic!("nobody runs it") };
        let leader = lead.launch(world.work(0, plan, gone));
        let Joined::Follow(follower) = world.cache.join(&case, None) else { panic!("it runs") };
        world.pass(FRESH);
        let late = world.cache.join(&case, Some(FRESH));
        assert!(matches!(late, Joined::Lead(_)), "a run may not be kept alive for ever");
        drop(late);
        drop(leader);
        go.send(()).unwrap();
        let Outcome::Done(_, batches) = follower.outcome().await else { panic!("the run was lost") };
        assert_eq!(row(&batches), world.now(0));
        drop(follower);

        let (case, plan) = world.case(2, &CacheWishes::default()).await;
        let (go, gone) = oneshot::channel();
        let Joined::Lead(lead) = world.cache.join(&case, None) else { panic!("nobody runs it") };
        let flight = lead.launch(world.work(2, plan, gone));
        tokio::task::yield_now().await;
        drop(flight);
        tokio::task::yield_now().await;
        assert!(go.is_closed(), "the run goes on for nobody");
        world.settle().await;
    });
}

#[test]
fn a_result_that_grows_too_large_is_streamed_to_one_and_run_by_the_others() {
    alone(async {
        let world = World::new();
        let (case, _) = world.case(0, &CacheWishes::default()).await;
        let (go, gone) = oneshot::channel::<()>();
        let Joined::Lead(lead) = world.cache.join(&case, None) else { panic!("nobody runs it") };
        let part = numbers(&(0..10_000).collect::<Vec<_>>());
        let schema = part.schema();
        let work = async move {
            let _ = gone.await;
            let batches = futures::stream::iter((0..20).map(move |_| Ok(part.clone()))).boxed();
            Ok(Started { schema, parts: parts::of_batches(batches), pins: None })
        };
        let flight = lead.launch(work.boxed());
        let Joined::Follow(follower) = world.cache.join(&case, None) else { panic!("it runs") };
        go.send(()).unwrap();
        let (_, mut batches) = Arc::clone(&flight).stream().await.unwrap();
        assert!(matches!(follower.outcome().await, Outcome::Unshared));
        drop((flight, follower));
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            rows += batch.unwrap().num_rows();
        }
        assert_eq!(rows, 200_000);
        assert!(matches!(world.cache.join(&case, None), Joined::Alone), "it is known to be too large");
        drop(batches);
        let budgets: usize = world.tables.iter().map(|table| table.pin().unwrap().bytes()).sum();
        assert_eq!(world.pool.reserved(), budgets, "the cache still holds memory");
        world.settle().await;
    });
}

#[test]
fn the_cache_stays_within_its_size() {
    alone(async {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let scope = task::Scope::new();
        let bytes_max = 200_000;
        let world = World::new();
        let cache = ResultsCache::new(&settings(bytes_max), &pool, scope.clone()).unwrap();
        for at in 0..40 {
            let sql = format!("SELECT g + {at} FROM a");
            let plan = world.context.state().create_logical_plan(&sql).await.unwrap();
            let case = cache.case(&Request::new(sql), 0, &plan, &|_| false).unwrap();
            let Joined::Lead(lead) = cache.join(&case, None) else { panic!("nobody runs it") };
            let batch = numbers(&(0..2_000).collect::<Vec<_>>());
            let schema = batch.schema();
            let work = async move {
                let parts = parts::of_batches(futures::stream::iter([Ok(batch)]).boxed());
                Ok(Started { schema, parts, pins: None })
            };
            let flight = lead.launch(work.boxed());
            assert!(matches!(flight.outcome().await, Outcome::Done(..)));
        }
        let bytes = cache.inner.store.bytes();
        assert!(bytes > bytes_max / 2 && bytes <= bytes_max, "{bytes}");
        assert_eq!(pool.reserved() as u64, bytes);
        scope.shutdown(Duration::from_secs(1)).await.unwrap();
        world.settle().await;
    });
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(POOL_BYTES));
    for settings in [Settings { enabled: Some(false), ..Settings::default() }, settings(0)] {
        assert!(ResultsCache::new(&settings, &pool, task::Scope::new()).is_none());
    }
    alone(async {
        let world = World::new();
        let cache = ResultsCache::new(&Settings::default(), &pool, world.scope.clone()).unwrap();
        let plan = world.context.state().create_logical_plan("SELECT g FROM u").await.unwrap();
        let is_dataset = |scan: &TableScan| scan.table_name.table() == "u";
        assert!(
            cache.case(&Request::new("SELECT g FROM u"), 0, &plan, &is_dataset).is_none(),
            "not asked for"
        );
        let plan = world.context.state().create_logical_plan("SELECT g FROM a").await.unwrap();
        let request = Request::new("SELECT g FROM a");
        assert!(cache.case(&request, 0, &plan, &is_dataset).is_some());
        let no_store = CacheWishes { no_store: true, ..CacheWishes::default() };
        let request = Request { cache: no_store, ..request };
        assert!(cache.case(&request, 0, &plan, &is_dataset).is_none());
        world.settle().await;
    });
}
