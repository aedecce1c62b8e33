//! What arranged plans look like, and that they give the rows of the plan that was not arranged.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::Transformed;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::arrange;

/// Tables called by their home: `a1` and `a2` live on `a`, `here` on none.
const TABLES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "here"];
const COLUMNS: [&str; 3] = ["k", "m", "v"];

fn home(scan: &TableScan) -> Option<char> {
    scan.table_name.table().chars().next().filter(|home| *home != 'h')
}

/// Rows of few values, so that keys meet, NULLs among them.
fn table(seed: u64) -> MemTable {
    let mut random = StdRng::seed_from_u64(seed);
    let mut column = |values: i64| -> ArrayRef {
        let value = |_| (random.random_range(0..8) > 0).then(|| random.random_range(0..values));
        Arc::new((0..9).map(value).collect::<Int64Array>())
    };
    let batch = RecordBatch::try_from_iter([("k", column(5)), ("m", column(4)), ("v", column(100))]).unwrap();
    MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()
}

fn session() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (seed, name) in (1..).zip(TABLES) {
        context.register_table(name, Arc::new(table(seed))).unwrap();
    }
    context
}

async fn optimised(state: &SessionState, sql: &str) -> LogicalPlan {
    let plan = state.create_logical_plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    state.optimize(&plan).unwrap()
}

fn arranged(plan: &LogicalPlan) -> Transformed<LogicalPlan> {
    arrange(plan.clone(), &home).unwrap()
}

/// The rows of an optimised plan, one a line.
async fn rows(state: &SessionState, plan: &LogicalPlan) -> Vec<String> {
    let physical = state.query_planner().create_physical_plan(plan, state).await.unwrap();
    let schema = physical.schema();
    let batches = collect(physical, state.task_ctx()).await.unwrap();
    let batch = concat_batches(&schema, &batches).unwrap();
    pretty_format_batches(&[batch]).unwrap().to_string().lines().map(str::to_owned).collect()
}

/// Checks that arranging changes neither the rows nor the schema, and that a second time changes nothing.
/// Whether it changed anything the first time.
async fn assert_same(state: &SessionState, sql: &str) -> bool {
    let before = optimised(state, sql).await;
    let after = arranged(&before);
    assert_eq!(before.schema(), after.data.schema(), "{sql}");
    assert_eq!(after.transformed, before != after.data, "{sql}");
    assert!(!arranged(&after.data).transformed, "{sql}\n{}", after.data.display_indent());
    if after.transformed {
        let (mut expected, mut found) = (rows(state, &before).await, rows(state, &after.data).await);
        if !sql.contains("ORDER BY") {
            expected.sort();
            found.sort();
        }
        assert_eq!(found, expected, "{sql}\n{}", after.data.display_indent());
    }
    after.transformed
}

/// The plan before and after.
async fn shown(sql: &str) -> String {
    let state = session().state();
    let before = optimised(&state, sql).await;
    let after = arranged(&before);
    assert_same(&state, sql).await;
    let after_text = match after.transformed {
        true => after.data.display_indent().to_string(),
        false => "(as it was)".to_owned(),
    };
    format!("{sql}\n\n{}\n\n{after_text}\n", before.display_indent())
}

async fn all_shown(statements: &[&str]) -> String {
    let mut all = Vec::new();
    for sql in statements {
        all.push(shown(sql).await);
    }
    all.join("\n----\n\n")
}

#[tokio::test]
async fn joins_of_one_home_come_first() {
    insta::assert_snapshot!(
        all_shown(&[
            "SELECT a1.v, b1.v, a2.v FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m",
            "SELECT b1.v, a1.v FROM b1 JOIN a1 ON a1.k = b1.k JOIN b2 ON b1.m = b2.m JOIN a2 ON a2.k = a1.m \
             WHERE a1.v < b2.v AND a2.v > 10 AND a1.v + b1.v > a2.m + b2.m",
            "SELECT b1.m, count(*) FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m AND b1.v = a2.v \
             GROUP BY b1.m",
            "SELECT x.k FROM a1 x JOIN here ON x.k = here.k JOIN a1 y ON x.m = y.m JOIN b1 ON b1.v = here.v",
            "SELECT v FROM b2 WHERE v < (SELECT max(a1.v + b1.v + a2.v) FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m)",
            "SELECT a1.v FROM a1 JOIN b1 ON a1.k IS NOT DISTINCT FROM b1.k JOIN a2 ON a1.m IS NOT DISTINCT FROM a2.m",
        ])
        .await
    );
}

#[tokio::test]
async fn joins_that_stay() {
    insta::assert_snapshot!(
        all_shown(&[
            // They stand together already.
            "SELECT a1.v, b1.v FROM a1 JOIN a2 ON a1.m = a2.m JOIN b1 ON a1.k = b1.k",
            // No key connects them.
            "SELECT a1.v, b1.v FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON b1.m = a2.m",
            // One home.
            "SELECT a1.v, a2.v FROM a1 JOIN a2 ON a1.v < a2.v JOIN a3 ON a1.k = a3.k",
            // An outer join is no link of the chain.
            "SELECT a1.v, b1.v, a2.v FROM a1 LEFT JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m AND b1.v IS NULL",
            // Nor is a semi join.
            "SELECT v FROM b2 WHERE k IN (SELECT a1.k FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m)",
            // Rows that are here only.
            "SELECT x.v, b1.v, y.v FROM here x JOIN b1 ON x.k = b1.k JOIN here y ON x.m = y.m",
            // To evaluate it elsewhere would be to evaluate it more or less often.
            "SELECT a1.v FROM a1 JOIN b1 ON a1.k = b1.k JOIN a2 ON a1.m = a2.m AND a1.v + b1.v > random()",
        ])
        .await
    );
}

#[tokio::test]
async fn first_rows_of_a_union() {
    insta::assert_snapshot!(
        all_shown(&[
            "SELECT k, v FROM a1 UNION ALL SELECT m, v FROM b1 ORDER BY v DESC, k LIMIT 3",
            "SELECT k, v FROM a1 UNION ALL SELECT m, v FROM here ORDER BY v + k, v, k LIMIT 3 OFFSET 2",
            "SELECT u.w FROM (SELECT k, v AS w FROM a1 UNION ALL SELECT k, m + v FROM b1 WHERE v > 3) u \
             ORDER BY u.w NULLS FIRST LIMIT 4",
            // Each of these stays.
            "SELECT k, v FROM a1 UNION ALL SELECT k, v FROM b1 ORDER BY v",
            "SELECT k, v FROM a1 UNION SELECT k, v FROM b1 ORDER BY v, k LIMIT 3",
            "SELECT k, v FROM here UNION ALL SELECT m, v FROM here ORDER BY v, k LIMIT 3",
        ])
        .await
    );
}

/// A tree of inner joins over some of the tables, each under an alias of its own.
struct Tree<'a> {
    random: &'a mut StdRng,
    aliases: usize,
}

impl Tree<'_> {
    fn column(&mut self, aliases: &[String]) -> String {
        let (alias, column) =
            (aliases.choose(self.random).unwrap(), COLUMNS[..2].choose(self.random).unwrap());
        format!("{alias}.{column}")
    }

    fn condition(&mut self, left: &[String], right: &[String]) -> String {
        let (one, other) = (self.column(left), self.column(right));
        match self.random.random_range(0..12) {
            0 => format!("{one} <= {other}"),
            1 => format!("{one} IS NOT DISTINCT FROM {other}"),
            2 => format!("{one} + {} = {other}", self.column(left)),
            3 => format!("{one} = {other} AND {} < {} + 2", self.column(left), self.column(right)),
            _ => format!("{one} = {other}"),
        }
    }

    /// The text of a tree with this many leaves, and its aliases.
    fn grow(&mut self, leaves: usize) -> (String, Vec<String>) {
        if leaves == 1 {
            let table = TABLES.choose(self.random).unwrap();
            self.aliases += 1;
            let alias = format!("t{}", self.aliases);
            return (format!("{table} {alias}"), vec![alias]);
        }
        // More often a chain than a bush.
        let right = if self.random.random_range(0..3) == 0 { self.random.random_range(1..leaves) } else { 1 };
        let (left_text, mut aliases) = self.grow(leaves - right);
        let (right_text, right_aliases) = self.grow(right);
        let condition = self.condition(&aliases, &right_aliases);
        aliases.extend(right_aliases);
        (format!("({left_text} JOIN {right_text} ON {condition})"), aliases)
    }

    fn statement(&mut self) -> String {
        let leaves = self.random.random_range(3..6);
        let (from, aliases) = self.grow(leaves);
        let columns: Vec<String> = (0..self.random.random_range(1..4))
            .map(|at| format!("{} AS c{at}", self.column(&aliases)))
            .collect();
        let filter = self.condition(&aliases, &aliases);
        let filter =
            if self.random.random_range(0..2) == 0 { format!(" WHERE {filter}") } else { String::new() };
        format!("SELECT {} FROM {from}{filter}", columns.join(", "))
    }
}

#[tokio::test]
async fn arranged_joins_give_the_same_rows() {
    let state = session().state();
    let mut changed = 0;
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let sql = Tree { random: &mut random, aliases: 0 }.statement();
        changed += usize::from(assert_same(&state, &sql).await);
    }
    assert!(changed >= 50, "only {changed} of 200 plans were changed");
}
