//! The 22 TPC-H queries through the sidecar, three ways, against the reference engine.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Order, assert_same};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::tpch;
use crate::support::upstream::Upstream;

/// The tables that the second of two upstreams has. Every query but Q1, Q4, Q6, Q13, Q18 and Q22 must then
/// join across.
const PARTS_ELSEWHERE: [&str; 4] = ["part", "partsupp", "supplier", "region"];
/// The same for another cut: facts from orders, and only Q1, Q6, Q13, Q15, Q16 and Q22 stay on one.
const LINES_ELSEWHERE: [&str; 4] = ["lineitem", "supplier", "nation", "region"];

async fn upstream() -> Upstream {
    Upstream::builder().tables(tpch::tables()).start().await
}

fn names() -> impl Iterator<Item = &'static str> {
    ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"].into_iter()
}

/// Asks all 22; `sent` sees what each made the upstream run.
async fn compare(datasets: &[Dataset], reference: &Upstream, sent: impl Fn(usize)) {
    compare_with(datasets, "", reference, sent).await;
}

/// The same where the spicepod has `rest` too.
async fn compare_with(datasets: &[Dataset], rest: &str, reference: &Upstream, sent: impl Fn(usize)) {
    let sidecar = Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    for (number, sql) in tpch::queries() {
        let expected = reference.query(sql).await;
        reference.clear();
        let answer = client.query(sql).await.unwrap_or_else(|e| panic!("Q{number}: {e:?}"));
        let order = if sql.contains("order by") { Order::Kept } else { Order::Any };
        assert_same(&format!("Q{number}"), &answer.batches, &expected, order);
        sent(number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded() {
    let upstream = upstream().await;
    let datasets: Vec<_> = names().map(|name| Dataset::of(name, &upstream)).collect();
    let one_statement = |number| {
        let statements = upstream.statements();
        assert_eq!(statements.len(), 1, "Q{number}: {statements:#?}");
    };
    compare(&datasets, &upstream, one_statement).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_scans() {
    let upstream = upstream().await;
    let datasets: Vec<_> = names().map(|name| Dataset::of(name, &upstream)).collect();
    let no_work_but_scans = |number| {
        for sql in upstream.statements() {
            let sql = sql.to_lowercase();
            assert!(!sql.contains(" join ") && !sql.contains("group by"), "Q{number}: {sql}");
        }
    };
    let off = "runtime: {params: {push_down: off}}\n";
    compare_with(&datasets, off, &upstream, no_work_but_scans).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_database_of_an_unknown_kind() {
    let upstream = upstream().await;
    let datasets: Vec<_> = names().map(|name| Dataset::flightsql(name, name, &upstream)).collect();
    let what_all_databases_understand = |number| {
        for sql in upstream.statements() {
            let sql = sql.to_lowercase();
            for word in ["arrow_cast", "semi", "anti", "sum(", "avg(", "like", "extract", "date", "interval"]
            {
                let said = sql.split(['\'', '"']).step_by(2).any(|part| part.contains(word));
                assert!(!said, "Q{number}: {word} in {sql}");
            }
        }
    };
    compare(&datasets, &upstream, what_all_databases_understand).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_two_upstreams() {
    over_two(&PARTS_ELSEWHERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_two_upstreams_cut_elsewhere() {
    over_two(&LINES_ELSEWHERE).await;
}

/// Both upstreams have all tables; each may be asked only of those that the spicepod takes from it,
/// whatever is joined there.
async fn over_two(elsewhere: &[&str]) {
    let (one, two) = (upstream().await, upstream().await);
    let is_elsewhere = |name: &str| elsewhere.contains(&name);
    let datasets: Vec<_> =
        names().map(|name| Dataset::of(name, if is_elsewhere(name) { &two } else { &one })).collect();
    let parts_of_two = AtomicUsize::new(0);
    let each_its_own = |number| {
        for (upstream, is_second) in [(&one, false), (&two, true)] {
            for sql in upstream.statements() {
                let foreign = names().find(|name| is_elsewhere(name) != is_second && names_table(&sql, name));
                assert_eq!(foreign, None, "Q{number}: {sql}");
            }
        }
        parts_of_two.fetch_add(two.statements().len(), Ordering::Relaxed);
        two.clear();
    };
    compare(&datasets, &one, each_its_own).await;
    assert!(parts_of_two.into_inner() > 0, "the second upstream had its part");
}

/// Whether `table` stands in `sql` as a word, outside of string literals. An alias may be called like a table.
fn names_table(sql: &str, table: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let sql =
        sql.to_lowercase().replace(&format!(" as {table}"), "").replace(&format!(" as \"{table}\""), "");
    sql.split('\'').step_by(2).flat_map(|text| text.split(|c: char| !is_letter(c))).any(|word| word == table)
}
