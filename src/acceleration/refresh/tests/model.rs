//! Random lives of a dataset: inserts (equal rows, equal and late times), refreshes, failures, restarts and kills.
//! After each step the table is, row by row, what the upstream's list says it is.
//!
//! The seed is fixed: a failure comes back by running the test again. `SIDEWING_SEED=n` takes another one,
//! `SIDEWING_LONG=1` fifty times as many cases.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::acceleration::disk::tests::sim::{EIO, ENOSPC, Fault};
use crate::acceleration::store::OnConflict;

use super::clock::Clock;
use super::world::{Kind, Outcome, Row, World};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).build().unwrap());

/// A row whose time is relative to the latest one that the table has.
type Drawn = (i64, usize, Option<i64>, usize, usize);

#[derive(Debug, Clone)]
enum Step {
    Insert(Vec<Drawn>),
    Refresh { full: bool, outcome: Outcome },
    Restart,
    Compact,
    Retain(i64),
}

/// Which lives are drawn.
#[derive(Debug, Clone, Copy)]
struct Draw {
    key_columns: usize,
    on_conflict: Option<OnConflict>,
    on_disk: bool,
    cases: u32,
}

fn rows(draw: Draw, many: usize) -> impl Strategy<Value = Vec<Drawn>> {
    // With retention a row without a time would outlive the newer row of its key.
    let nulls = if draw.on_conflict == Some(OnConflict::Upsert) { 0 } else { 1 };
    let at = prop_oneof![nulls => Just(None), 12 => (-6..5_i64).prop_map(Some)];
    prop::collection::vec((0..4_i64, 0..3_usize, at, 0..6_usize, 0..3_usize), 0..many)
}

fn outcome(draw: Draw) -> impl Strategy<Value = Outcome> {
    let fault = prop_oneof![
        Just(Fault::KillBefore),
        Just(Fault::KillAfter),
        Just(Fault::Fail(ENOSPC)),
        Just(Fault::Fail(EIO)),
    ];
    let on_disk = u32::from(draw.on_disk);
    prop_oneof![
        8 => Just(Outcome::Whole),
        1 => (0..6_usize).prop_map(Outcome::Breaks),
        4 * on_disk => (0..14_usize, fault, prop::option::of(any::<u64>()))
            .prop_map(|(step, fault, power)| Outcome::Fault { step, fault, power }),
    ]
}

fn life(draw: Draw) -> impl Strategy<Value = (Kind, Vec<Step>)> {
    // What retention took out may have been the reason why a later row was dropped.
    let retains = u32::from(draw.on_conflict != Some(OnConflict::Drop));
    let step = prop_oneof![
        5 => rows(draw, 10).prop_map(Step::Insert),
        6 => (prop::bool::weighted(0.1), outcome(draw)).prop_map(|(full, outcome)| Step::Refresh { full, outcome }),
        1 => Just(Step::Restart),
        1 => Just(Step::Compact),
        retains => (0..6_i64).prop_map(Step::Retain),
    ];
    let kind = (prop::sample::select(Clock::ALL.to_vec()), prop::bool::weighted(0.8), 0..4_i64);
    let kind = kind.prop_map(move |(clock, appends, overlap)| Kind {
        clock,
        appends,
        overlap,
        key_columns: draw.key_columns,
        on_conflict: draw.on_conflict,
        on_disk: draw.on_disk,
    });
    let first = rows(draw, 200).prop_map(Step::Insert);
    let steps = (first, prop::collection::vec(step, 1..22)).prop_map(|(first, mut steps)| {
        steps.insert(0, first);
        steps
    });
    (kind, steps)
}

fn live(kind: Kind, steps: Vec<Step>) {
    RUNTIME.block_on(async {
        let mut world = World::new(kind).await;
        for step in steps {
            match step {
                Step::Insert(drawn) => {
                    let front = world.front();
                    let row = |(a, b, at, f, s): Drawn| Row { a, b, at: at.map(|at| front + at), f, s };
                    world.insert(drawn.into_iter().map(row).collect());
                }
                Step::Refresh { full, outcome } => world.refresh(full, outcome).await,
                Step::Restart => world.restart().await,
                Step::Compact => world.compact().await,
                Step::Retain(ticks) => world.retain(ticks).await,
            }
            world.check();
        }
        // The quiet point at the end: nothing is asked for twice, nothing is forgotten.
        for _ in 0..2 {
            world.refresh(false, Outcome::Whole).await;
            world.check();
        }
    });
}

fn check(draw: Draw) {
    let seed = std::env::var("SIDEWING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let cases = if std::env::var_os("SIDEWING_LONG").is_some() { draw.cases * 50 } else { draw.cases };
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&life(draw), |(kind, steps)| {
        live(kind, steps);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("SIDEWING_SEED={seed} {draw:?}\n{error}"));
}

const MEMORY: Draw = Draw { key_columns: 0, on_conflict: None, on_disk: false, cases: 60 };
const FILES: Draw = Draw { on_disk: true, cases: 30, ..MEMORY };

#[test]
fn a_table_in_memory_is_the_upstreams_multiset() {
    check(MEMORY);
}

#[test]
fn a_table_in_files_is_the_upstreams_multiset() {
    check(Draw { cases: 60, ..FILES });
}

#[test]
fn upserts_are_the_latest_row_of_each_key() {
    for key_columns in [1, 2] {
        for draw in [MEMORY, FILES] {
            check(Draw { key_columns, on_conflict: Some(OnConflict::Upsert), cases: draw.cases / 2, ..draw });
        }
    }
}

#[test]
fn drops_are_the_earliest_row_of_each_key() {
    for key_columns in [1, 2] {
        for draw in [MEMORY, FILES] {
            check(Draw { key_columns, on_conflict: Some(OnConflict::Drop), cases: draw.cases / 2, ..draw });
        }
    }
}
