//! An upstream as a list of rows, a table beside it that is refreshed, killed and restarted, and what the table must
//! hold. What it must hold is worked out from the list alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StringViewArray,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::DFSchema;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::logical_expr::ident;
use datafusion::prelude::SessionContext;

use crate::acceleration::disk::tests::sim::{Fault, Sim};
use crate::acceleration::disk::{Chunks, Commit, Findings, Folder, Mode, Residence, Restored, Settings};
use crate::acceleration::store::{
    Append, Budget, Generation, Key, Layout, Load, OnConflict, Role, Time, compacted, restored, without,
};

use super::super::retention::Retention;
use super::super::since::at_or_after;
use super::clock::Clock;

/// Values whose equality is not that of SQL, or not that of their bytes.
const FLOATS: [Option<f64>; 6] = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), Some(1.5), None];
const WORDS: [&str; 3] = ["", "short", "a text that is longer than the twelve bytes of a view"];

/// A row of the upstream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub a: i64,
    /// Of [`WORDS`].
    pub b: usize,
    /// In ticks.
    pub at: Option<i64>,
    /// Of [`FLOATS`].
    pub f: usize,
    /// Of [`WORDS`].
    pub s: usize,
}

/// What the dataset is.
#[derive(Debug, Clone)]
pub struct Kind {
    pub clock: Clock,
    pub appends: bool,
    /// In ticks.
    pub overlap: i64,
    /// How many of the columns `a` and `b` are the primary key.
    pub key_columns: usize,
    pub on_conflict: Option<OnConflict>,
    pub on_disk: bool,
}

/// What the model says of one generation.
#[derive(Debug, Clone, Default)]
struct Known {
    /// So many rows of the upstream were there when it was asked.
    seen: usize,
    /// Those among them that came too late: behind the watermark by more than the overlap.
    missed: BTreeSet<usize>,
    /// Rows before this moment were taken out, in ns.
    cut: Option<i64>,
    /// In ticks.
    watermark: Option<i64>,
}

/// How a refresh goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Whole,
    /// The upstream breaks off after so many batches.
    Breaks(usize),
    /// A step on disk goes wrong; after a kill `power` says what a power cut leaves, none is a killed process.
    Fault {
        step: usize,
        fault: Fault,
        power: Option<u64>,
    },
}

pub struct World {
    kind: Kind,
    layout: Arc<Layout>,
    budget: Budget,
    upstream: Vec<Row>,
    cut: Option<i64>,
    sim: Arc<Sim>,
    folder: Option<Folder>,
    held: Option<Arc<Generation>>,
    known: Known,
    /// By the number of the generation, what it may be: a commit that failed at its last step may come back.
    history: BTreeMap<u64, Vec<Known>>,
    /// The commit that failed since the last one that did not.
    failed: Option<u64>,
}

impl World {
    pub async fn new(kind: Kind) -> Self {
        let schema = batch(kind.clock, &[]).schema();
        let time = Some(Time { column: 2, format: kind.clock.format() });
        let role = Role::Primary { on_conflict: kind.on_conflict };
        let keys = match kind.key_columns {
            0 => vec![],
            columns => vec![Key { columns: (0..columns).collect(), role }],
        };
        let layout = Layout::try_new("rows".parse().unwrap(), schema, time, keys).unwrap();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let budget = Budget::new("rows".parse().unwrap(), &pool);
        let mut world = Self {
            kind,
            layout: Arc::new(layout),
            budget,
            upstream: Vec::new(),
            cut: None,
            sim: Sim::with_files([].into()),
            folder: None,
            held: None,
            known: Known::default(),
            history: BTreeMap::new(),
            failed: None,
        };
        world.open().await;
        world
    }

    /// The tick of the latest row that the table has seen.
    pub fn front(&self) -> i64 {
        self.known.watermark.unwrap_or(0)
    }

    pub fn insert(&mut self, rows: Vec<Row>) {
        self.upstream.extend(rows);
    }

    /// One refresh, as [`super::super::keeper`] makes it.
    pub async fn refresh(&mut self, full: bool, outcome: Outcome) {
        let mut next = Known { seen: self.upstream.len(), ..self.known.clone() };
        let asked = batch(self.kind.clock, &self.upstream);
        let since =
            self.held.as_ref().and_then(|held| held.watermark()).filter(|_| self.kind.appends && !full);
        let generation = match (since, self.held.clone()) {
            (Some(watermark), Some(held)) => {
                let since = watermark - self.kind.overlap * self.kind.clock.tick();
                next.append(&self.upstream, self.known.seen, self.kind.clock, since);
                let asked = self.newer(&asked, since);
                let mut append = Append::begin(Arc::clone(&held), self.budget.clone());
                let parts = parts(&asked, outcome);
                parts.iter().for_each(|part| append.push(part).unwrap());
                if matches!(outcome, Outcome::Breaks(_)) {
                    return;
                }
                append.finish().unwrap()
            }
            (_, held) => {
                next.missed.clear();
                next.watermark = self.upstream.iter().filter_map(|row| row.at).max();
                let load = Load::begin(Arc::clone(&self.layout), held, self.budget.clone());
                let mut load = load.in_small_chunks();
                parts(&asked, outcome).iter().for_each(|part| load.push(part).unwrap());
                if matches!(outcome, Outcome::Breaks(_)) {
                    return;
                }
                Some(load.finish().unwrap())
            }
        };
        let Some(generation) = generation else { return self.nothing_new(next) };
        next.cut = self.cut;
        let generation = match self.cut {
            Some(cut) => self.retained(&generation, cut).unwrap_or(generation),
            None => generation,
        };
        self.publish(generation, next, outcome).await;
    }

    pub async fn compact(&mut self) {
        let Some(held) = &self.held else { return };
        if let Some(joined) = compacted(held, &self.budget).unwrap() {
            let known = self.known.clone();
            self.publish(joined, known, Outcome::Whole).await;
        }
    }

    /// What is older than so many ticks before the latest row goes.
    pub async fn retain(&mut self, ticks: i64) {
        let cut = self.kind.clock.bound(self.kind.clock.moment(self.front() - ticks));
        let cut = self.cut.map_or(cut, |before| before.max(cut));
        self.cut = Some(cut);
        let Some(held) = &self.held else { return };
        let Some(kept) = self.retained(held, cut) else { return };
        let known = Known { cut: Some(cut), ..self.known.clone() };
        self.publish(kept, known, Outcome::Whole).await;
    }

    /// The process ends and begins again.
    pub async fn restart(&mut self) {
        let held = self.held.as_ref().map(|held| held.number());
        self.restart_with(Sim::with_files(self.sim.files()), &[held, self.failed.or(held)]).await;
    }

    /// The table is what the upstream's rows say, and its watermark too.
    pub fn check(&self) {
        let Some(held) = &self.held else { return };
        let found = self.content(held);
        assert_eq!(held.rows(), found.len());
        assert_eq!(multiset(found), multiset(self.expected(&self.known)));
        let watermark = self.known.watermark.map(|tick| self.kind.clock.moment(tick));
        assert_eq!(held.watermark(), watermark);
    }

    fn content(&self, generation: &Generation) -> Vec<Row> {
        let batches: Vec<RecordBatch> =
            generation.chunks().iter().map(|chunk| chunk.batch().unwrap()).collect();
        rows(self.kind.clock, &concat_batches(self.layout.schema(), &batches).unwrap())
    }

    /// The rows of a generation, from the upstream's list alone.
    fn expected(&self, known: &Known) -> Vec<Row> {
        let came = self.upstream[..known.seen].iter().enumerate();
        let came = came.filter(|(at, _)| !known.missed.contains(at)).map(|(_, row)| row);
        let stays = |row: &Row| {
            let moment = row.at.map(|tick| self.kind.clock.moment(tick));
            moment.is_none_or(|moment| known.cut.is_none_or(|cut| moment >= cut))
        };
        if self.kind.key_columns == 0 {
            return came.filter(|row| stays(row)).cloned().collect();
        }
        let mut fold: BTreeMap<(i64, usize), &Row> = BTreeMap::new();
        for row in came {
            let b = if self.kind.key_columns > 1 { row.b } else { 0 };
            let held = fold.entry((row.a, b)).or_insert(row);
            let takes = match self.kind.on_conflict {
                Some(OnConflict::Upsert) => row.at >= held.at,
                Some(OnConflict::Drop) => row.at < held.at,
                None => false,
            };
            if takes {
                *held = row;
            }
        }
        fold.into_values().filter(|row| stays(row)).cloned().collect()
    }

    /// The rows of an answer to "at or after `since`, or without a time".
    fn newer(&self, all: &RecordBatch, since: i64) -> RecordBatch {
        let column = all.schema_ref().field(2);
        let newer = at_or_after(column, self.kind.clock.format(), since).unwrap();
        let filter = newer.or(ident(column.name()).is_null());
        let schema = DFSchema::try_from(all.schema()).unwrap();
        let filter = SessionContext::new().create_physical_expr(filter, &schema).unwrap();
        let passes = filter.evaluate(all).unwrap().into_array(all.num_rows()).unwrap();
        filter_record_batch(all, passes.as_boolean()).unwrap()
    }

    fn retained(&self, generation: &Arc<Generation>, cut: i64) -> Option<Arc<Generation>> {
        let period = Duration::from_secs(3_600);
        let rule = Retention { period: Some(period), condition: None, check_interval: period };
        let now = cut + period.as_nanos() as i64;
        let state = SessionContext::new().state();
        let predicates = rule.predicates(&self.layout, &state, now).unwrap();
        without(generation, &predicates[0], &self.budget).unwrap()
    }

    fn nothing_new(&mut self, next: Known) {
        self.known = next;
        if let Some(held) = &self.held {
            self.history.entry(held.number()).or_default().push(self.known.clone());
        }
    }

    /// To disk first, where there is one: what is seen is there after a restart too.
    async fn publish(&mut self, generation: Arc<Generation>, next: Known, outcome: Outcome) {
        let number = generation.number();
        assert!(self.held.as_ref().is_none_or(|held| held.number() < number));
        if let Some(folder) = &mut self.folder {
            let before = self.held.as_ref().map(|held| held.number());
            self.history.entry(number).or_default().push(next.clone());
            let commit = Commit {
                number,
                schema: Arc::clone(self.layout.schema()),
                watermark: generation.watermark(),
                resume: None,
            };
            let chunks = generation.chunks().iter().map(|chunk| (chunk.id(), chunk.batch().unwrap()));
            if let Outcome::Fault { step, fault, .. } = outcome {
                self.sim.fault_at(step, fault);
            }
            let done = folder.commit(commit, chunks.collect()).await;
            self.sim.fault_at(usize::MAX, Fault::KillBefore);
            match (done, outcome) {
                // A process that dies after the commit, while it tidies up, has committed.
                (done, Outcome::Fault { power, .. }) if self.sim.is_dead() => {
                    let sim = match power {
                        Some(seed) => self.sim.crashed(seed),
                        None => Sim::with_files(self.sim.files()),
                    };
                    let failed = self.failed.or(before);
                    let allowed =
                        if done.is_ok() { [Some(number); 3] } else { [before, Some(number), failed] };
                    return self.restart_with(sim, &allowed).await;
                }
                // What was there before is served on.
                (Err(_), Outcome::Fault { .. }) => {
                    self.failed = Some(number);
                    return;
                }
                (done, _) => done.unwrap(),
            }
            self.failed = None;
            self.history.insert(number, vec![next.clone()]);
        }
        self.held = Some(generation);
        self.known = next;
    }

    /// `allowed` are the generations that may come back.
    async fn restart_with(&mut self, sim: Arc<Sim>, allowed: &[Option<u64>]) {
        (self.held, self.folder, self.failed) = (None, None, None);
        self.sim = sim;
        self.open().await;
        let found = self.held.as_ref().map(|held| held.number());
        let may_be = if self.kind.on_disk { allowed.contains(&found) } else { found.is_none() };
        assert!(may_be, "{found:?} of {allowed:?}");
    }

    async fn open(&mut self) {
        self.known = Known::default();
        if !self.kind.on_disk {
            return;
        }
        let settings = Settings {
            folder: Path::new("/data").to_owned(),
            mode: Mode::File,
            residence: Residence::Memory,
            definition: "of the test".to_owned(),
            adopts: None,
            memory_bytes_max: None,
        };
        let opened = self.sim.open_folder(settings).await.unwrap();
        assert_eq!(opened.findings, Findings::default());
        self.folder = Some(opened.folder);
        if let Some(Restored { number, schema, watermark, chunks: Chunks::Memory(chunks), .. }) =
            opened.restored
        {
            assert_eq!(schema, *self.layout.schema());
            let held = restored(&self.layout, chunks, number, watermark, &self.budget).unwrap();
            let content = multiset(self.content(&held));
            let is_it = |known: &&Known| multiset(self.expected(known)) == content;
            let known = self.history[&number].iter().rev().find(is_it);
            self.known = known.expect("a whole generation, as it was committed").clone();
            self.held = Some(held);
        }
    }
}

impl Known {
    /// An append asks for rows from `since` on, in ns; `before` rows were there when the upstream was last asked.
    fn append(&mut self, upstream: &[Row], before: usize, clock: Clock, since: i64) {
        let bound = clock.bound(since);
        for (at, row) in upstream.iter().enumerate().skip(before) {
            let Some(tick) = row.at else { continue };
            if clock.moment(tick) < bound {
                self.missed.insert(at);
            } else {
                self.watermark = self.watermark.max(Some(tick));
            }
        }
    }
}

/// An answer in batches, empty ones among them; of a broken one only the first.
fn parts(all: &RecordBatch, outcome: Outcome) -> Vec<RecordBatch> {
    let mut parts = vec![all.slice(0, 0)];
    let mut from = 0;
    while from < all.num_rows() {
        let rows = (1 + from % 7).min(all.num_rows() - from);
        parts.push(all.slice(from, rows));
        from += rows;
    }
    if let Outcome::Breaks(batches) = outcome {
        parts.truncate(batches);
    }
    parts
}

fn batch(clock: Clock, rows: &[Row]) -> RecordBatch {
    let codes = Int32Array::from_iter_values(rows.iter().map(|row| row.b as i32));
    let ticks: Vec<Option<i64>> = rows.iter().map(|row| row.at).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.a)))),
        ("b", Arc::new(DictionaryArray::new(codes, Arc::new(StringArray::from(WORDS.to_vec()))))),
        ("At", clock.column(&ticks)),
        ("f", Arc::new(Float64Array::from_iter(rows.iter().map(|row| FLOATS[row.f])))),
        ("s", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| WORDS[row.s])))),
    ];
    let nullable = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

/// Back from Arrow, by values alone: each row as the cells that the model's rows would give.
fn rows(clock: Clock, batch: &RecordBatch) -> Vec<Row> {
    let all = batch.num_rows();
    let ids = batch.column(0).as_primitive::<Int64Type>();
    let words = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Utf8).unwrap();
    let floats = batch.column(3).as_primitive::<Float64Type>();
    let texts = batch.column(4).as_string_view();
    let word = |text: &str| WORDS.iter().position(|word| *word == text).unwrap();
    let float = |at: usize| {
        let bits = floats.is_valid(at).then(|| floats.value(at).to_bits());
        FLOATS.iter().position(|float| float.map(f64::to_bits) == bits).unwrap()
    };
    let ticks = ticks(clock, batch.column(2));
    (0..all)
        .map(|at| Row {
            a: ids.value(at),
            b: word(words.as_string::<i32>().value(at)),
            at: ticks[at],
            f: float(at),
            s: word(texts.value(at)),
        })
        .collect()
}

/// Each value's tick, found by writing ticks until one looks the same.
fn ticks(clock: Clock, column: &ArrayRef) -> Vec<Option<i64>> {
    const REACH: i64 = 400;
    let known: Vec<i64> = (-REACH..REACH).collect();
    let written = clock.column(&known.iter().copied().map(Some).collect::<Vec<_>>());
    let options = arrow::util::display::FormatOptions::default();
    let show = |array: &ArrayRef| {
        let shown = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
        (0..array.len()).map(|at| shown.value(at).to_string()).collect::<Vec<_>>()
    };
    let by_text: BTreeMap<String, i64> = show(&written).into_iter().zip(known).collect();
    let shown = show(column);
    (0..column.len()).map(|at| column.is_valid(at).then(|| by_text[&shown[at]])).collect()
}

fn multiset(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}
