//! Seeded statements, each answered by a reference engine and by the sidecar in every way that it knows:
//! forwarded, forwarded under other names, over two upstreams, scanned. The answers, their column names
//! and their types must agree with the reference's, and errors too.
//!
//! `SIDEWING_LONG=1` asks twenty times as many; `SIDEWING_SEED=n` asks the one statement of that seed,
//! `SIDEWING_SEED=n..m` those from n to below m.

mod data;
mod generator;
mod report;
mod worlds;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use tokio::task::JoinSet;

use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;
use generator::{CATEGORY_COUNT, Statement};
use report::Report;
use worlds::{Disagreement, Tiers, Verdict};

/// Each category is asked as often.
const STATEMENTS: u64 = 20 * CATEGORY_COUNT;
const SEED: u64 = 20_261_121;
/// How many times as many `SIDEWING_LONG=1` asks.
const LONG: u64 = 20;
/// Statements are asked side by side, each lane with upstreams and sidecars of its own.
const LANES: usize = 2;

/// The seeds to ask.
fn seeds() -> std::ops::Range<u64> {
    if let Ok(seeds) = std::env::var("SIDEWING_SEED") {
        let number = |text: &str| text.parse::<u64>().expect("SIDEWING_SEED is a number, or two with `..`");
        return match seeds.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => number(&seeds)..number(&seeds) + 1,
        };
    }
    let times = if std::env::var_os("SIDEWING_LONG").is_some() { LONG } else { 1 };
    SEED..SEED + STATEMENTS * times
}

/// Takes seeds until there are none, or too much has gone wrong.
async fn lane(next: Arc<AtomicU64>, end: u64) -> Report {
    let tiers = Tiers::new().await;
    let mut report = Report::default();
    while !report.is_enough() {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let statement = Statement::of_seed(seed);
        let verdict = AssertUnwindSafe(tiers.check(&statement)).catch_unwind().await;
        report.add(&statement, verdict.unwrap_or_else(|_| panicked()));
    }
    report
}

fn panicked() -> Verdict {
    let what = "panicked, see above".to_owned();
    let disagreement = Disagreement { tier: "one of them", what, sent: Vec::new() };
    Verdict { disagreements: vec![disagreement], ..Verdict::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_tier_gives_the_reference_answer() {
    let seeds = seeds();
    let next = Arc::new(AtomicU64::new(seeds.start));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        lanes.spawn(lane(Arc::clone(&next), seeds.end));
    }
    let report = lanes.join_all().await.into_iter().fold(Report::default(), Report::and);
    eprintln!("{report}");
    report.assert_no_disagreement();
    if seeds.end - seeds.start >= STATEMENTS {
        report.assert_worth_asking();
    }
}

/// Numbers and costs differ by tier; that each tells how it answered does not.
#[tokio::test(flavor = "multi_thread")]
async fn every_tier_explains_and_measures() {
    let tiers = Tiers::new().await;
    for sql in [
        "SELECT count(*) FROM big JOIN keys ON big.k = keys.k",
        "SELECT k, sum(price) FROM t GROUP BY k ORDER BY k",
        "WITH u AS (SELECT id FROM sales.orders) SELECT * FROM t WHERE id NOT IN (SELECT id FROM u)",
        "SELECT t.id, u.v FROM t FULL JOIN u ON t.id = u.id WHERE t.id IS DISTINCT FROM 3",
    ] {
        for (tier, told) in tiers.analyze(&Statement::by_hand(sql)).await {
            let told = told.unwrap_or_else(|error| panic!("{tier}: {sql}\n{error}"));
            assert!(told.starts_with("forwarded: ") || told.starts_with("scans: "), "{tier}: {sql}\n{told}");
        }
    }
}

/// What DataFusion made of a filter after a scan had taken it could not be proved, and was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_changes_after_it_was_taken_still_holds() {
    let tiers = Tiers::new().await;
    let mut report = Report::default();
    for sql in [
        "SELECT v FROM u LEFT SEMI JOIN (SELECT k, TRY_CAST('' AS BIGINT) AS x FROM t) AS y \
         ON u.id = y.k AND NOT (y.x <> y.x)",
        "SELECT count(*) FROM (SELECT TRY_CAST('' AS BIGINT) AS x FROM t) AS y WHERE NOT (y.x <> y.x)",
        "SELECT id FROM (SELECT id, nullif(1, 1) AS x FROM t) AS y WHERE y.x = 1 OR y.id IS NULL",
    ] {
        let statement = Statement::by_hand(sql);
        report.add(&statement, tiers.check(&statement).await);
    }
    report.assert_no_disagreement();
}

/// GetFlightInfo tells such types before DataFusion has found one for all branches.
#[tokio::test(flavor = "multi_thread")]
async fn types_that_the_upstream_finds_late() {
    let tiers = Tiers::new().await;
    let mut report = Report::default();
    for sql in [
        "SELECT CASE WHEN ok THEN 0 ELSE 1.05 END AS x, CASE id WHEN 1 THEN price ELSE k END FROM t",
        "SELECT CASE WHEN k IS NULL THEN 0 ELSE price END, count(*) FROM t GROUP BY 1",
        "SELECT sum(CASE WHEN ok THEN price ELSE 0 END) FROM t",
        "SELECT CASE WHEN ok THEN 'no' ELSE note END FROM t",
    ] {
        for seed in 0..5 {
            let statement = Statement { seed: seed * CATEGORY_COUNT, ..Statement::by_hand(sql) };
            report.add(&statement, tiers.check(&statement).await);
        }
    }
    report.assert_no_disagreement();
}

/// Found by hand; each was wrong, refused, or could have been.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_shapes_that_mislead() {
    let tiers = Tiers::new().await;
    let mut report = Report::default();
    for sql in [
        "SELECT id + 1 FROM sales.orders",
        "SELECT id + 1 FROM public.t",
        "SELECT id + 1 FROM t",
        "SELECT sales.orders.* FROM sales.orders ORDER BY sales.orders.id",
        "SELECT * FROM sales.orders WHERE EXISTS (SELECT 1 FROM crm.orders WHERE crm.orders.id = sales.orders.id)",
        "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM sales.orders AS t WHERE t.k = public.t.k)",
        "WITH orders AS (SELECT 5 AS id) SELECT id FROM sales.orders WHERE EXISTS (SELECT 1 FROM orders WHERE orders.id = sales.orders.id)",
        "WITH \"sales.orders\" AS (SELECT 5 AS id) SELECT * FROM sales.orders",
        "SELECT * FROM generate_series(1, 3)",
        "SELECT t.id, g.value FROM t JOIN generate_series(1, 3) AS g ON g.value = t.id",
        "SELECT * EXCEPT (price) FROM t",
        "SELECT * EXCLUDE (price, f) FROM public.t",
        "SELECT * REPLACE (id + 1 AS id) FROM u",
        "SELECT * FROM t NATURAL JOIN sales.orders",
        "SELECT * FROM t FULL JOIN sales.orders USING (id)",
        "SELECT * FROM u NATURAL LEFT JOIN t",
        "SELECT id, u.v FROM t JOIN u USING (id)",
        "SELECT count(*) FROM (SELECT id FROM t LIMIT 2 OFFSET 1)",
        "SELECT count(*) FROM (SELECT id FROM t LIMIT 0)",
        "SELECT count(*) FROM t WHERE id > 1 AND id > 1 AND id > 2",
        "SELECT id FROM t LIMIT 0",
        "SELECT o.a, o.c FROM sales.orders AS o(a, b, c)",
        "SELECT v.b FROM rich AS v(a, b, c) WHERE v.a > 0",
        "SELECT t.id, x.v FROM t, LATERAL (SELECT max(u.v) AS v FROM u WHERE u.id = t.id) AS x",
        "SELECT unnest([1, 2, 3]) AS n FROM u",
        "SELECT id FROM (SELECT id FROM sales.orders WHERE k = 1)",
        "VALUES (1, 'a'), (2, 'it''s')",
    ] {
        let statement = Statement::by_hand(sql);
        let verdict = tiers.check(&statement).await;
        report.add(&statement, verdict);
    }
    report.assert_no_disagreement();
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_leave_the_process_alive() {
    let upstream = Upstream::builder().table("u", data::table("u")).start().await;
    let yaml = spicepod(&[Dataset::of("u", &upstream)], "");
    let sidecar = Sidecar::builder().spicepod(&yaml).start().await;
    sidecar.wait_ready().await;
    for sql in [
        format!("SELECT 1 WHERE 1 = 1{}", " AND 1 = 1".repeat(2_000)),
        format!("SELECT 1 WHERE 1 = 1{}", " AND 1 = 1".repeat(300_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(400)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(50_000)),
        format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200)),
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}true", "NOT ".repeat(100_000)),
        format!("SELECT 1{}", " IS NULL".repeat(100_000)),
    ] {
        let answer = sidecar.sql_as(&sql, "application/json").await;
        assert!([200, 400].contains(&answer.status), "{} …: {}", &sql[..40], answer.status);
        assert_eq!(sidecar.sql("SELECT count(*) AS n FROM u").await[0]["n"], 4);
    }
}
