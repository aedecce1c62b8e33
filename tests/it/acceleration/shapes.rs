//! Statements of one shape: answered by a plan that is kept, and as if each had been planned.

use super::*;

/// Statements with a place for a literal, and literals for it.
const STATEMENTS: [(&str, [&str; 5]); 12] = [
    (
        "select o_orderkey, o_totalprice from orders where o_orderkey = {} order by 1",
        ["1", "7", "32", "-5", "4000000000"],
    ),
    ("select * from orders where o_orderkey = {}", ["1", "2", "3", "4", "5"]),
    (
        "select o_orderkey + 1 as next, o_clerk from orders where o_orderkey <= {} order by next",
        ["2", "0", "6", "3.5", "1.25"],
    ),
    (
        "select count(*) as n, max(o_comment) as c from orders where o_orderdate >= {}",
        ["'1998-01-01'", "'1997-06-30'", "'1992-01-01'", "'2001-01-01'", "'1998-07-01'"],
    ),
    (
        "select o_orderpriority, count(*) as n from orders where o_orderstatus = {} group by 1 order by 1",
        ["'F'", "'O'", "'P'", "'it''s'", "''"],
    ),
    (
        "select o_orderkey from orders where o_totalprice between {} and 100000 order by o_orderkey limit 20",
        ["900", "50000", "99999.5", "100000", "200000"],
    ),
    (
        "select o_orderkey from orders where o_orderkey in (1, {}) or o_custkey = {} order by 1",
        ["2", "3", "32", "-1", "1"],
    ),
    (
        "select o_orderkey from orders where o_orderkey in (1, 2, {}) and o_orderkey in ({}, 7) order by 1",
        ["7", "2", "1", "3", "7"],
    ),
    (
        "select l_orderkey, o_clerk from lineitem join orders on l_orderkey = o_orderkey where o_orderkey = {} order by 1",
        ["1", "3", "1", "33", "34"],
    ),
    (
        "select o_orderkey, {} as said from orders where o_orderkey < 4 order by 1",
        ["1", "2.5", "'x'", "7", "1"],
    ),
    ("select o_orderkey from orders order by o_orderkey limit {}", ["1", "2", "3", "2", "0"]),
    (
        "select o_orderkey from orders where o_orderkey > (select max(o_orderkey) - {} from orders) order by 1",
        ["5", "1", "100", "0", "7"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_shape_are_answered_each_for_itself() {
    let upstream = Upstream::builder().tables(tpch::tables()).start().await;
    let datasets = [
        Dataset::of("orders", &upstream).accelerated("primary_key: o_orderkey"),
        Dataset::of("lineitem", &upstream).accelerated(""),
    ];
    let sidecar = start(&datasets, "").await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    for (statement, literals) in STATEMENTS {
        // The first two are what is learned from; then all once more, the other way round.
        for literal in literals.iter().chain(literals.iter().rev()) {
            let sql = statement.replace("{}", literal);
            let expected = upstream.query(&sql).await;
            let answer = client.query(&sql).await.unwrap();
            assert_same(&sql, &answer.batches, &expected, Order::Kept);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_kept_reads_what_is_there_now() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    sidecar.wait_ready().await;
    let told = async |id: i64| sidecar.sql(&format!("select g from t where id = {id}")).await;
    for id in 0..4 {
        assert_eq!(told(id).await, json!([{"g": 1}]));
        assert_eq!(
            sidecar.sql("select count(*) as n, min(g) as g from t").await,
            json!([{"n": 10_000, "g": 1}])
        );
    }
    upstream.swap("t", numbered(2)).await;
    refresh(&sidecar, "").await;
    for id in 3..6 {
        assert_eq!(told(id).await, json!([{"g": 2}]));
        assert_eq!(
            sidecar.sql("select count(*) as n, min(g) as g from t").await,
            json!([{"n": 10_000, "g": 2}])
        );
    }
    // Another table of that name: the one of before is gone, and its plans with it.
    let more = batch([("id", ints(0..10)), ("g", ints(0..10)), ("h", ints(5..15))]);
    let other = Upstream::builder().table("t", more).start().await;
    let moved = spicepod(&[Dataset::of("t", &other).accelerated("")], "");
    std::fs::write(sidecar.dir().join("spicepod.yaml"), moved).unwrap();
    let has_more = async || {
        let answer = sidecar.sql_as("select * from t where id = 3", "application/json").await;
        answer.body == r#"[{"id":3,"g":3,"h":8}]"#
    };
    sidecar.wait_until("the other table is here", has_more).await;
    assert_eq!(told(9).await, json!([{"g": 9}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_each_time_is_planned_each_time() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    sidecar.wait_ready().await;
    let mut seen = std::collections::BTreeSet::new();
    for id in 0..6 {
        for sql in
            ["select random() as r, now() as m", "select random() as r, now() as m from t where id = 1"]
        {
            seen.insert(sidecar.sql(sql).await.to_string());
        }
        // A literal that is none of its column's is told in the same words each time.
        let wrong = sidecar.post("/v1/sql", &format!("select id from t where id = 'x{id}'")).await;
        let bare = wrong.body.replace(&format!("x{id}"), "x");
        assert!(wrong.status == 400 && bare.contains("'x'"), "{}", wrong.body);
        let running = sidecar.sql("select count(*) as n from runtime.task_history").await;
        assert!(running[0]["n"].as_i64().is_some(), "{running}");
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
}
