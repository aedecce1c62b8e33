//! Joins whose keys are shown to the scan of the other side, beside plain DataFusion.

use arrow::array::Int32Array;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::querying::{lines, plan, published};
use super::*;

const TABLES: [&str; 3] = ["a", "b", "c"];

/// Each way that a key can take from its join to a scan, or must not.
const STATEMENTS: [&str; 24] = [
    "SELECT a.k, a.v, b.v FROM a JOIN b ON a.k = b.k",
    "SELECT a.k, a.v, b.v FROM a LEFT JOIN b ON a.k = b.k",
    "SELECT a.k, a.v, b.v FROM a RIGHT JOIN b ON a.k = b.k",
    "SELECT a.k, a.v, b.v FROM a FULL JOIN b ON a.k = b.k",
    "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.k = b.k AND a.v <> b.v)",
    "SELECT * FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE a.k = b.k AND a.v <> b.v)",
    "SELECT * FROM a WHERE k IN (SELECT k FROM b WHERE v > 'c')",
    "SELECT * FROM a WHERE k NOT IN (SELECT k FROM b WHERE v > 'c')",
    "SELECT * FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL AND v > 'b')",
    "SELECT a.v, b.v FROM a JOIN b ON a.k = b.k AND a.j = b.j",
    "SELECT a.v, b.v FROM a JOIN b ON a.k IS NOT DISTINCT FROM b.k",
    "SELECT a.v, b.v FROM a JOIN b ON a.j = b.k",
    "SELECT a.v, b.v, c.v FROM a JOIN b ON a.k = b.k JOIN c ON a.j = c.j AND b.k = c.k WHERE c.v < 'd'",
    "SELECT a.v, b.v, c.v FROM a LEFT JOIN b ON a.k = b.k JOIN c ON c.k = a.k",
    "SELECT a.v, b.v, c.v FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON c.k = b.k",
    "SELECT a.v, b.v, c.v FROM a LEFT JOIN b ON a.k = b.k JOIN c ON c.j = b.j",
    "SELECT a.v, x.v, x.n FROM a JOIN (SELECT b.k, c.v, count(*) AS n FROM b LEFT JOIN c ON b.j = c.j GROUP BY b.k, c.v) x ON a.k = x.k",
    "SELECT a.v, x.n FROM a JOIN (SELECT k, count(*) AS n FROM b GROUP BY GROUPING SETS ((k), ())) x ON a.k = x.k OR x.k IS NULL",
    "SELECT a.v, x.n FROM a JOIN (SELECT max(k) AS n FROM b) x ON a.k = x.n",
    "SELECT a.v, x.v FROM a JOIN (SELECT k, v FROM b ORDER BY v, k, j LIMIT 5) x ON a.k = x.k",
    "SELECT a.v, x.n FROM a JOIN (SELECT k, row_number() OVER (ORDER BY v, k, j) AS n FROM b) x ON a.k = x.k",
    "SELECT x.v, a.v FROM (SELECT k, v FROM b UNION ALL SELECT k, v FROM c) x JOIN a ON a.k = x.k",
    "SELECT one.v, other.v FROM a one JOIN a other ON one.k = other.k WHERE one.j < 3",
    "WITH RECURSIVE r(x, n) AS (SELECT k, 1 FROM a WHERE v < 'c' UNION ALL SELECT b.k, n + 1 FROM r JOIN b ON b.k = x JOIN c ON c.k = b.k WHERE n < 3) SELECT count(*), sum(x), max(n) FROM r",
];

pub(super) type Seed = (u8, u8, u8);

pub(super) fn table_of(seeds: &[Seed], far: bool) -> RecordBatch {
    // Keys further apart than there are bits for, and near each other.
    let step = if far { 1 << 40 } else { 1 };
    let key = |seed: &Seed| (seed.0 % 9 != 8).then(|| (i64::from(seed.0 % 24) - 7) * step);
    let other = |seed: &Seed| (seed.1 % 9 != 8).then(|| i32::from(seed.1 % 5) - 2);
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(Int64Array::from_iter(seeds.iter().map(key))) as ArrayRef, true),
        ("j", Arc::new(Int32Array::from_iter(seeds.iter().map(other))) as ArrayRef, true),
        (
            "v",
            Arc::new(StringArray::from_iter_values(
                seeds.iter().map(|seed| ["a", "b", "c", "d"][usize::from(seed.2 % 4)]),
            )) as ArrayRef,
            true,
        ),
    ])
    .unwrap()
}

fn kept(rows: &RecordBatch) -> Arc<AcceleratedTable> {
    let layout = Layout::try_new("rows".parse().unwrap(), rows.schema(), None, vec![]).unwrap();
    let mut load = Load::begin(Arc::new(layout), None, budget()).in_small_chunks();
    for from in (0..rows.num_rows()).step_by(7) {
        load.push(&rows.slice(from, 7.min(rows.num_rows() - from))).unwrap();
    }
    Arc::new(AcceleratedTable::new(published(load.finish().unwrap())))
}

/// Gives the sessions the same rows: the first as a kept table, the other as a plain one.
pub(super) fn register([ours, plain]: &[SessionContext; 2], name: &str, rows: &RecordBatch) {
    ours.register_table(name, kept(rows)).unwrap();
    let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
    plain.register_table(name, Arc::new(table)).unwrap();
}

/// Both sessions answer all of `statements` with the same rows.
pub(super) fn agree(
    runtime: &tokio::runtime::Runtime,
    [ours, plain]: &[SessionContext; 2],
    statements: &[&str],
) -> Result<(), TestCaseError> {
    for sql in statements {
        let (ours, theirs) = runtime.block_on(async { (lines(ours, sql).await, lines(plain, sql).await) });
        prop_assert_eq!(ours, theirs, "{}", sql);
    }
    Ok(())
}

/// The same rows with keys shown and without.
fn contexts(rows: &[RecordBatch], partitions: usize) -> [SessionContext; 2] {
    let session = |is_ours: bool| {
        let config = SessionConfig::new().with_target_partitions(partitions);
        let state = SessionStateBuilder::new().with_config(config).with_default_features();
        let state = if is_ours { state.with_physical_optimizer_rule(Arc::new(JoinKeys)) } else { state };
        SessionContext::new_with_state(state.build())
    };
    let both = [session(true), session(false)];
    TABLES.into_iter().zip(rows).for_each(|(name, rows)| register(&both, name, rows));
    both
}

#[test]
fn joins_with_their_keys_shown_are_joins() {
    let seeds = |most| prop::collection::vec(any::<Seed>(), 0..most);
    let case = (seeds(12), seeds(60), seeds(60), any::<u8>(), 1..4_usize);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runner(12)
        .run(&case, |(a, b, c, far, partitions)| {
            let far = far % 4 == 0;
            let rows = [table_of(&a, far), table_of(&b, far), table_of(&c, far)];
            agree(&runtime, &contexts(&rows, partitions), &STATEMENTS)
        })
        .unwrap();
}

/// Which scan reads by whose keys.
#[test]
fn keys_are_shown_where_no_other_row_is_missed() {
    let seeds: Vec<Seed> = (0..60).map(|at| (at, at / 2, at / 3)).collect();
    let rows = [table_of(&seeds[..10], false), table_of(&seeds, false), table_of(&seeds[..40], false)];
    let [ours, _] = contexts(&rows, 2);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut shown = String::new();
    for sql in STATEMENTS {
        let plan = runtime.block_on(plan(&ours, sql));
        shown += &format!("{sql}\n");
        let nodes = plan.lines().filter(|line| {
            line.contains("JoinExec") || line.contains("KeyTap") || line.contains("ChunkScan")
        });
        for node in nodes {
            shown += &format!("  {}\n", node.split(", projection=").next().unwrap());
        }
    }
    insta::assert_snapshot!(shown);
}
