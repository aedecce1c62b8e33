//! Random lives of a dataset that clients write to: calls that push, groups that are stored, disks that fail, processes
//! that are killed, clients that go away. After each step the table has every row that was acknowledged, no row twice,
//! and no row that nobody sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::acceleration::disk::tests::sim::{EIO, ENOSPC, Fault, Sim};
use crate::acceleration::disk::{Findings, Mode, Residence, SOLE_COPY, Settings};
use crate::acceleration::publish::{Publication, Retention};
use crate::acceleration::store::{Budget, Key, Layout, Role};
use crate::name::DatasetName;

use super::super::error::RefreshError;
use super::super::filed::Filed;
use super::super::puts::{Put, PutError, Puts, Writer};
use super::super::resident::Resident;
use super::super::rows::{Intake, Onto, Rows};
use super::super::write::{Store, rows as rows_of, settle};

/// Calls that write beside each other.
const CALLS: usize = 4;

/// A key, and what tells the row from every other one.
type Row = (i64, i64);

#[derive(Debug, Clone)]
enum Step {
    /// A call pushes rows with these keys.
    Push {
        call: usize,
        keys: Vec<i64>,
    },
    /// What waits is stored.
    Store(Option<(usize, Fault)>),
    /// The client is gone.
    Leave(usize),
    Restart,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    residence: Residence,
    has_key: bool,
}

/// One call from outside.
struct Call {
    writer: Writer,
    /// In order, those that are stored first.
    pushed: Vec<Row>,
}

struct World {
    kind: Kind,
    layout: Arc<Layout>,
    budget: Budget,
    sim: Arc<Sim>,
    table: Table,
    puts: Arc<Puts>,
    calls: BTreeMap<usize, Call>,
    next: i64,
    /// Acknowledged, or there after a restart.
    kept: BTreeSet<Row>,
    /// Of groups that failed on disk: such a group may come back as long as nothing was stored after it.
    failed: BTreeSet<Row>,
}

struct Table {
    name: DatasetName,
    layout: Arc<Layout>,
    rows: Rows,
    generations: usize,
}

impl Store for Table {
    fn name(&self) -> &DatasetName {
        &self.name
    }

    async fn store(&mut self, puts: &[Put]) -> Result<(), RefreshError> {
        let layout = Arc::clone(&self.layout);
        let rows = rows_of(&layout, puts);
        self.rows.take(Intake { onto: Onto::Held, ..Intake::load(layout, rows) }).await?;
        self.generations += 1;
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("id", DataType::Int64, false),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let column = |of: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as _;
    RecordBatch::try_new(schema(), vec![column(|row| row.0), column(|row| row.1)]).unwrap()
}

impl World {
    async fn new(kind: Kind) -> Self {
        let role = Role::Primary { on_conflict: None };
        let keys = if kind.has_key { vec![Key { columns: vec![0], role }] } else { vec![] };
        let name: DatasetName = "rows".parse().unwrap();
        let layout = Arc::new(Layout::try_new(name.clone(), schema(), None, keys).unwrap());
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let budget = Budget::new(name.clone(), &pool);
        let sim = Sim::with_files([].into());
        let table = Self::open(kind, &layout, &budget, &sim).await;
        let puts = Puts::new(name);
        puts.open(layout.schema(), &budget);
        Self {
            kind,
            layout,
            budget,
            sim,
            table,
            puts,
            calls: BTreeMap::new(),
            next: 0,
            kept: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// What a start does: what is on disk is served, or an empty table is begun.
    async fn open(kind: Kind, layout: &Arc<Layout>, budget: &Budget, sim: &Arc<Sim>) -> Table {
        let settings = Settings {
            folder: Path::new("/data").to_owned(),
            mode: Mode::File,
            residence: kind.residence,
            definition: format!("{SOLE_COPY}test"),
            adopts: None,
            memory_bytes_max: None,
        };
        let opened = sim.open_folder(settings).await.unwrap();
        assert_eq!(opened.findings, Findings::default());
        let name = layout.name().clone();
        let publication = Publication::new(name.clone(), Retention::default());
        let (held, account) = (name.clone(), budget.clone());
        let mut rows = match kind.residence {
            Residence::Memory => {
                Rows::Resident(Resident::new(held, account, Some(opened.folder), publication))
            }
            Residence::Files => {
                let context = SessionContext::new();
                Rows::Filed(Filed::new(held, account, opened.folder, context, publication))
            }
        };
        match opened.restored {
            Some(held) => {
                let layout = Layout::clone(layout);
                rows.restore(layout, held, true).await.unwrap();
            }
            None => {
                let nothing = rows_of(layout, &[]);
                rows.take(Intake::load(Arc::clone(layout), nothing)).await.unwrap();
            }
        }
        Table { name, layout: Arc::clone(layout), rows, generations: 0 }
    }

    async fn push(&mut self, call: usize, keys: Vec<i64>) {
        let rows: Vec<Row> = keys
            .into_iter()
            .map(|key| {
                self.next += 1;
                (key, self.next)
            })
            .collect();
        let call = self.calls.entry(call).or_insert_with(|| {
            let writer = self.puts.writer().unwrap().unwrap();
            Call { writer, pushed: Vec::new() }
        });
        if call.writer.push(batch(&rows)).await.is_ok() {
            call.pushed.extend(rows);
        }
    }

    /// Which calls a table takes that is given one after the other.
    fn foretold(&self, order: &[usize], waiting: &BTreeMap<usize, Vec<Row>>) -> BTreeMap<usize, bool> {
        let mut keys: BTreeSet<i64> = self.kept.iter().map(|row| row.0).collect();
        let mut taken = BTreeMap::new();
        for call in order {
            let rows = &waiting[call];
            let mut after = keys.clone();
            let fits = !self.kind.has_key || rows.iter().all(|row| after.insert(row.0));
            if fits {
                keys = after;
            }
            taken.insert(*call, fits);
        }
        taken
    }

    async fn store(&mut self, order: &mut Vec<usize>, fault: Option<(usize, Fault)>) {
        if order.is_empty() {
            return;
        }
        let unstored = |call: &Call| call.pushed[call.writer.stored().borrow().rows as usize..].to_vec();
        let waiting: BTreeMap<usize, Vec<Row>> =
            order.iter().map(|call| (*call, unstored(&self.calls[call]))).collect();
        // What a disk that fails leaves out decides about those that follow.
        let foretold = fault.is_none().then(|| self.foretold(order, &waiting));
        let expected = |call: &usize| foretold.as_ref().map(|foretold| foretold[call]);
        let group = Puts::next(Some(&self.puts)).await;
        assert_eq!(group.len(), order.len());
        if let Some((step, fault)) = fault {
            self.sim.fault_at(step, fault);
        }
        settle(&mut self.table, group).await;
        let faulted = fault.is_some() && self.sim.faulted();
        self.sim.fault_at(usize::MAX, Fault::KillBefore);
        for call in std::mem::take(order) {
            let state = self.calls[&call].writer.stored().borrow().clone();
            let rows = &waiting[&call];
            match state.failure {
                None => {
                    assert_ne!(expected(&call), Some(false), "{rows:?} are stored");
                    assert_eq!(state.rows as usize, self.calls[&call].pushed.len());
                    self.kept.extend(rows);
                    // What failed before stands on a generation that is not the last one any more.
                    self.failed.clear();
                }
                Some(PutError::Duplicate(words)) => {
                    assert_ne!(expected(&call), Some(true), "{rows:?} are refused: {words}");
                    assert!(words.contains("(key) = ("), "{words}");
                }
                Some(error) => assert!(faulted, "{error}"),
            }
        }
        if faulted {
            let still = waiting.values().flatten().filter(|row| !self.kept.contains(row));
            self.failed.extend(still);
        }
        self.calls.retain(|_, call| call.writer.stored().borrow().failure.is_none());
    }

    /// The process ends and begins again; nobody's call goes on.
    async fn restart(&mut self, sim: Arc<Sim>) {
        self.sim = sim;
        self.calls.clear();
        self.table = Self::open(self.kind, &self.layout, &self.budget, &self.sim).await;
        let found = self.content().await;
        assert!(found.is_superset(&self.kept), "lost: {:?}", self.kept.difference(&found));
        let more: BTreeSet<Row> = found.difference(&self.kept).copied().collect();
        assert!(more.is_subset(&self.failed), "{more:?} of {:?}", self.failed);
        (self.kept, self.failed) = (found, BTreeSet::new());
    }

    /// Every row once.
    async fn content(&self) -> BTreeSet<Row> {
        let Some(table) = self.table.rows.provider() else { return BTreeSet::new() };
        let batches = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
        let mut all = BTreeSet::new();
        for batch in batches {
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
            for row in column(0).into_iter().zip(column(1)) {
                assert!(all.insert(row), "{row:?} is there twice");
            }
        }
        all
    }

    async fn check(&self) {
        assert_eq!(self.content().await, self.kept);
    }
}

async fn live(kind: Kind, steps: Vec<Step>) {
    let mut world = World::new(kind).await;
    // The calls that wait, in the order in which they began to.
    let mut order: Vec<usize> = Vec::new();
    for step in steps {
        match step {
            Step::Push { call, keys } => {
                world.push(call, keys).await;
                if !order.contains(&call) {
                    order.push(call);
                }
            }
            Step::Leave(call) => {
                world.calls.remove(&call);
                order.retain(|waiting| *waiting != call);
            }
            Step::Store(fault) => {
                world.store(&mut order, fault).await;
                if world.sim.is_dead() {
                    let sim = world.sim.crashed(world.next as u64);
                    world.restart(sim).await;
                }
            }
            Step::Restart => {
                order.clear();
                let sim = Sim::with_files(world.sim.files());
                world.restart(sim).await;
            }
        }
        world.check().await;
    }
    world.store(&mut order, None).await;
    world.check().await;
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::KillBefore),
        Just(Fault::KillAfter),
        Just(Fault::Fail(ENOSPC)),
        Just(Fault::Fail(EIO)),
    ];
    let keys = prop::collection::vec(0..40_i64, 1..4);
    prop_oneof![
        8 => (0..CALLS, keys).prop_map(|(call, keys)| Step::Push { call, keys }),
        4 => prop::option::weighted(0.4, (0..12_usize, fault)).prop_map(Step::Store),
        1 => (0..CALLS).prop_map(Step::Leave),
        1 => Just(Step::Restart),
    ]
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

#[test]
fn what_is_acknowledged_is_there_and_nothing_twice() {
    let runtime = runtime();
    let cases = if std::env::var_os("SIDEWING_LONG").is_some() { 2_000 } else { 40 };
    let kinds = [
        Kind { residence: Residence::Memory, has_key: false },
        Kind { residence: Residence::Memory, has_key: true },
        Kind { residence: Residence::Files, has_key: false },
    ];
    for kind in kinds {
        let config = Config {
            cases,
            rng_seed: RngSeed::Fixed(23),
            failure_persistence: None,
            max_shrink_iters: 2_000,
            ..Config::default()
        };
        let run = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
            runtime.block_on(live(kind, steps));
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{kind:?}\n{error}"));
    }
}

#[test]
fn all_that_waits_is_one_generation_and_a_bad_call_fails_alone() {
    runtime().block_on(async {
        let mut world = World::new(Kind { residence: Residence::Memory, has_key: true }).await;
        let mut order: Vec<usize> = (0..100).collect();
        for call in &order {
            world.push(*call, vec![*call as i64]).await;
        }
        world.store(&mut order, None).await;
        assert_eq!((world.table.generations, world.kept.len()), (1, 100));

        let mut order: Vec<usize> = (200..216).collect();
        for call in &order {
            // One of them has the key of a row that is there.
            let key = if *call == 205 { 7 } else { *call as i64 };
            world.push(*call, vec![key]).await;
        }
        world.store(&mut order, None).await;
        assert_eq!(world.kept.len(), 115);
        assert!(world.table.generations < 8, "{}", world.table.generations);
        world.check().await;
    });
}

/// A pool so small that one batch fills it.
#[test]
fn whoever_finds_no_room_waits_and_a_keeper_that_is_gone_is_told() {
    runtime().block_on(async {
        let rows: Vec<Row> = (0..1_000).map(|row| (row, row)).collect();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(24_000));
        let name: DatasetName = "rows".parse().unwrap();
        let budget = Budget::new(name.clone(), &pool);
        let puts = Puts::new(name);
        assert!(puts.writer().unwrap().is_none(), "the table is not here yet");
        puts.open(&schema(), &budget);
        let (mut one, mut other) = (puts.writer().unwrap().unwrap(), puts.writer().unwrap().unwrap());
        one.push(batch(&rows)).await.unwrap();
        let mut waits = Box::pin(other.push(batch(&rows)));
        assert!(futures::poll!(&mut waits).is_pending());
        let group = Puts::next(Some(&puts)).await;
        assert!(futures::poll!(&mut waits).is_pending(), "the keeper works on the rows");
        group.into_iter().for_each(Put::stored);
        waits.await.unwrap();
        assert_eq!(one.finish().await, Ok(1_000));

        // More than there is: nothing will be given back that helps.
        drop(Puts::next(Some(&puts)).await);
        let failure = other.stored().borrow().failure.clone();
        assert!(matches!(failure, Some(PutError::Stopped { .. })), "{failure:?}");
        assert_eq!(other.push(batch(&rows)).await, Err(failure.unwrap()));
        let large: Vec<Row> = (0..2_000).map(|row| (row, row)).collect();
        let mut third = puts.writer().unwrap().unwrap();
        let refused = third.push(batch(&large)).await.unwrap_err();
        assert!(matches!(&refused, PutError::NoRoom(words) if words.contains("does not fit")), "{refused}");

        third.push(batch(&rows)).await.unwrap();
        let mut fourth = puts.writer().unwrap().unwrap();
        let mut waits = Box::pin(fourth.push(batch(&rows)));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(puts.ends_with_this());
        assert!(matches!(waits.await, Err(PutError::Stopped { .. })));
        assert!(matches!(third.finish().await, Err(PutError::Stopped { .. })));
        assert!(matches!(puts.writer(), Err(PutError::Stopped { .. })));
        assert_eq!(budget.bytes(), 0);
    });
}
