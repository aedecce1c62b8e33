//! Groups by whole numbers that are found by their place, beside plain DataFusion.

use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{MemoryReservation, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::joining::{Seed, agree, register, table_of};
use super::querying::plan;
use super::*;

const STATEMENTS: [&str; 12] = [
    "SELECT k, count(*), sum(j), min(v), max(v), avg(j) FROM a GROUP BY k",
    "SELECT j, count(k), sum(k), min(k), count(*) FILTER (WHERE v > 'b') FROM a GROUP BY j",
    "SELECT k FROM a GROUP BY k",
    "SELECT DISTINCT j FROM a",
    "SELECT k, count(DISTINCT j), count(DISTINCT v) FROM a GROUP BY k",
    "SELECT k, sum(j) FROM a WHERE v <> 'c' GROUP BY k HAVING count(*) > 1",
    "SELECT k, round(stddev(j) * 1000000), bit_or(j), bool_and(v > 'a') FROM a GROUP BY k",
    "SELECT k, array_agg(v ORDER BY v)[1], first_value(v ORDER BY v, j) FROM a GROUP BY k",
    "SELECT a.k, count(b.j), max(b.v) FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.k",
    "SELECT b.k, count(*), sum(a.j) FROM a LEFT JOIN b ON a.k = b.k AND b.v > 'b' GROUP BY b.k",
    "SELECT n, count(*) FROM (SELECT k, count(*) AS n FROM a GROUP BY k) GROUP BY n",
    "SELECT x.k, count(*) FROM (SELECT k FROM a UNION ALL SELECT k + 1 FROM b) x GROUP BY x.k",
];

/// How sessions are told to group.
#[derive(Debug, Clone)]
struct Setting {
    partitions: usize,
    batch_rows: usize,
    /// Rows after which groups are given up that are hardly fewer.
    enough: usize,
    /// Whether groups are refused memory now and then, and so are put out early.
    refuses: bool,
}

/// Memory without end, but for groups each third time.
#[derive(Debug, Default)]
struct Refusing {
    all: UnboundedMemoryPool,
    asked: AtomicUsize,
}

impl std::fmt::Display for Refusing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("refusing")
    }
}

impl MemoryPool for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        let is_groups = reservation.consumer().name().starts_with("DirectGroups");
        if is_groups && self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return datafusion::common::resources_err!("no more for groups");
        }
        self.all.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.all.reserved()
    }
}

fn session(setting: &Setting, is_ours: bool) -> SessionContext {
    let mut config =
        SessionConfig::new().with_target_partitions(setting.partitions).with_batch_size(setting.batch_rows);
    let state = SessionStateBuilder::new().with_default_features();
    let state = match is_ours {
        true => {
            let execution = &mut config.options_mut().execution;
            execution.skip_partial_aggregation_probe_rows_threshold = setting.enough;
            let pool: Arc<dyn MemoryPool> = match setting.refuses {
                true => Arc::new(Refusing::default()),
                false => Arc::new(UnboundedMemoryPool::default()),
            };
            let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
            state.with_runtime_env(runtime).with_physical_optimizer_rule(Arc::new(GroupDirectly))
        }
        false => state,
    };
    SessionContext::new_with_state(state.with_config(config).build())
}

fn setting() -> impl Strategy<Value = Setting> {
    (1..4_usize, 1..200_usize, 5..400_usize, any::<bool>()).prop_map(
        |(partitions, batch_rows, enough, refuses)| Setting { partitions, batch_rows, enough, refuses },
    )
}

#[test]
fn groups_by_their_place_are_groups() {
    let seeds = |most| prop::collection::vec(any::<Seed>(), 0..most);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runner(12)
        .run(&(seeds(300), seeds(60), setting()), |(a, b, setting)| {
            let both = [true, false].map(|is_ours| session(&setting, is_ours));
            register(&both, "a", &table_of(&a, false));
            register(&both, "b", &table_of(&b, false));
            agree(&runtime, &both, &STATEMENTS)
        })
        .unwrap();
}

#[test]
fn whole_numbers_near_each_other_have_places() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seeds: Vec<Seed> = (0..200).map(|at| (at, at / 2, at / 3)).collect();
    for (far, expected) in [(false, 9), (true, 2)] {
        let setting = Setting { partitions: 2, batch_rows: 64, enough: 100, refuses: false };
        let both = [true, false].map(|is_ours| session(&setting, is_ours));
        for name in ["a", "b"] {
            register(&both, name, &table_of(&seeds, far));
        }
        let plans = STATEMENTS.map(|sql| runtime.block_on(plan(&both[0], sql)));
        let direct = plans.iter().filter(|plan| plan.contains("DirectGroups")).count();
        assert_eq!(direct, expected, "far: {far}\n{}", plans.join("\n"));
    }
}
