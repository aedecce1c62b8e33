//! What a join sends to its big side: the keys of the small one, asserted on what the big side's upstream
//! received, and that answers stay right whatever was sent.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use tonic::Status;

use crate::support::client::{Client, Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

/// A statement that takes longer than this hangs.
const DEAD: Duration = Duration::from_secs(60);
/// Rows of the big side.
const BIG: i64 = 4_000;

/// Row `n` of the big side: every tenth key of a column is null.
fn big() -> Vec<RecordBatch> {
    let rows = || 0..BIG;
    let some = |n: i64| (n % 10 != 9).then_some(n);
    let texts: Vec<Option<String>> = rows().map(|n| some(n).map(|n| format!("it's {n}"))).collect();
    batch([
        ("id", Arc::new(Int64Array::from_iter_values(rows())) as ArrayRef),
        ("number", Arc::new(Int64Array::from_iter(rows().map(some)))),
        ("narrow", Arc::new(Int32Array::from_iter(rows().map(|n| some(n).map(|n| n as i32))))),
        ("text", Arc::new(StringArray::from(texts.clone()))),
        ("view", Arc::new(StringViewArray::from_iter(texts))),
        ("day", Arc::new(Date32Array::from_iter(rows().map(|n| some(n).map(|n| n as i32))))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter(rows().map(|n| some(n).map(|n| n * 1_000_000)))),
        ),
        ("price", Arc::new(prices(rows().map(some)))),
        ("ratio", Arc::new(Float64Array::from_iter(rows().map(|n| some(n).map(|n| n as f64))))),
        ("parity", Arc::new(Int64Array::from_iter_values(rows().map(|n| n % 2)))),
    ])
}

fn prices(values: impl Iterator<Item = Option<i64>>) -> Decimal128Array {
    let values = Decimal128Array::from_iter(values.map(|n| n.map(|n| i128::from(n) * 5)));
    values.with_precision_and_scale(15, 2).unwrap()
}

/// Some rows of the big side, and one whose keys are all null.
fn some_of_big(rows: &[i64]) -> Vec<RecordBatch> {
    let big = big();
    let picked = Int64Array::from_iter_values(rows.iter().copied());
    let columns = big[0].columns().iter().map(|column| arrow::compute::take(column, &picked, None).unwrap());
    vec![RecordBatch::try_new(big[0].schema(), columns.collect()).unwrap()]
}

/// Five keys and one row without.
const FIVE: [i64; 6] = [3, 700, 1_401, 2_022, 3_998, 9];

/// A small and a big table on upstreams of their own, and one upstream that has both, for reference.
struct World {
    small: Upstream,
    big: Upstream,
    both: Upstream,
    client: Client,
    _sidecar: Sidecar,
}

impl World {
    async fn new(small: Vec<RecordBatch>) -> Self {
        Self::with(small, |big| Dataset::of("big", big)).await
    }

    async fn with(small: Vec<RecordBatch>, dataset: impl Fn(&Upstream) -> Dataset) -> Self {
        let both = Upstream::builder().table("small", small.clone()).table("big", big()).start().await;
        let small = Upstream::builder().table("small", small).start().await;
        let big = Upstream::builder().table("big", big()).start().await;
        let datasets = [Dataset::of("small", &small), dataset(&big)];
        let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
        sidecar.wait_ready().await;
        let client = sidecar.flight_client().await;
        Self { small, big, both, client, _sidecar: sidecar }
    }

    /// The answer is the reference's; what the big side was asked for, row counts left out.
    async fn ask(&mut self, sql: &str) -> Vec<String> {
        let expected = self.both.query(sql).await;
        self.small.clear();
        self.big.clear();
        let answer = self.client.query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e:?}"));
        let sent = self.big.statements();
        assert_same(&format!("{sql}\nsent: {sent:#?}"), &answer.batches, &expected, Order::Any);
        reads(sent)
    }

    async fn ask_once(&mut self, sql: &str) -> String {
        let sent = self.ask(sql).await;
        assert_eq!(sent.len(), 1, "{sql}\n{sent:#?}");
        sent[0].clone()
    }

    /// The next count of either side fails.
    fn fail_counts(&self) {
        for upstream in [&self.small, &self.big] {
            upstream.inject(Method::GetFlightInfo, 1, Fault::Status(Status::resource_exhausted("no memory")));
        }
    }

    async fn explain(&mut self, sql: &str) -> String {
        self.client.query(&format!("explain {sql}")).await.unwrap().pretty()
    }
}

fn reads(mut statements: Vec<String>) -> Vec<String> {
    statements.retain(|sql| !sql.contains("count(*)"));
    statements
}

#[tokio::test(flavor = "multi_thread")]
async fn five_keys_of_a_small_side_arrive_at_the_big_side() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    for from in ["small s join big b", "big b join small s"] {
        let sent = world.ask_once(&format!("select b.id, s.text from {from} on b.number = s.number")).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(sent, @r#"SELECT "id", "number" FROM "big" WHERE "number" IN (3, 700, 1401, 2022, 3998)"#);
        }
    }
    // The small side's own filter has been applied before its keys are known.
    let filtered =
        "select count(*) from big b, small s where b.number = s.number and s.id > 1000 and b.parity = 0";
    insta::assert_snapshot!(world.ask_once(filtered).await,
        @r#"SELECT "number" FROM "big" WHERE ("parity" = 0) AND "number" IN (1401, 2022, 3998)"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_keep_their_type() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    let mut sent = Vec::new();
    for on in [
        "b.narrow = s.number",
        "b.number = s.narrow",
        "b.text = s.text",
        "b.view = s.text",
        "b.day = s.day",
        "b.at = s.at",
        "b.price = s.price",
        "b.number = s.number and b.text = s.text",
        "b.number = s.number + 1",
        // Floats are not sent: equal is not the same everywhere.
        "b.ratio = s.ratio",
        // Nulls that are equal.
        "b.number is not distinct from s.number",
    ] {
        let sql = format!("select b.id from small s join big b on {on}");
        sent.push(format!("{on}\n  {}", world.ask_once(&sql).await));
    }
    insta::assert_snapshot!(sent.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_small_side_asks_the_big_side_nothing() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    for sql in [
        "select b.id from small s join big b on b.number = s.number where s.id < 0",
        "select b.id from big b join small s on b.number = s.number where s.id < 0",
        "select b.id from big b where b.number in (select number from small where id < 0)",
        // All of its keys are null.
        "select b.id from small s join big b on b.number = s.number where s.id = 9",
    ] {
        assert_eq!(world.ask(sql).await, Vec::<String>::new(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_sent_as_a_range() {
    let many: Vec<i64> = (500..2_000).collect();
    let mut world = World::new(some_of_big(&many)).await;
    let sent = world.ask_once("select b.id from small s join big b on b.number = s.number").await;
    insta::assert_snapshot!(sent,
        @r#"SELECT "id", "number" FROM "big" WHERE (("number" >= 500) AND ("number" <= 1998))"#);
    // Strings have as many orders as there are collations.
    let sent = world.ask_once("select b.id from small s join big b on b.text = s.text").await;
    insta::assert_snapshot!(sent, @r#"SELECT "id", "text" FROM "big""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_join_stays_right() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    for (small, big) in [("small", "big"), ("big", "small")] {
        for join in ["left join", "right join", "full join", "left semi join", "left anti join"] {
            for on in ["l.number = r.number", "l.number is not distinct from r.number"] {
                let columns =
                    if join.contains("semi") || join.contains("anti") { "l.id" } else { "l.id, r.id" };
                world.ask(&format!("select {columns} from {small} l {join} {big} r on {on}")).await;
            }
        }
        for condition in [
            "number in (select number from {})",
            "number not in (select number from {})",
            "number not in (select number from {} where number is not null)",
            "id not in (select id from {})",
            "exists (select 1 from {} r where r.number = l.number)",
            "not exists (select 1 from {} r where r.number = l.number)",
            "number in (select number from {}) or parity = 1",
            "number > (select min(number) from {})",
        ] {
            let condition = condition.replace("{}", big);
            world.ask(&format!("select id from {small} l where {condition}")).await;
        }
    }
    // Deeper plans: the filters go through other operators.
    for sql in [
        "select s.id, t.n from small s join (select number, count(*) as n from big group by number) t on t.number = s.number",
        "select s.id, t.id from small s join (select * from big union all select * from small) t on t.number = s.number",
        "select s.id, t.r from small s join (select number, row_number() over (partition by number order by id) as r \
         from big) t on t.number = s.number",
        "select s.id, t.id from small s join (select * from big order by id desc limit 3) t on t.number = s.number",
        "select a.id, b.id, c.id from small a join big b on a.number = b.number join big c on b.id = c.id",
        "with recursive t(id, n) as (select id, 0 from small union all \
         select b.id, t.n + 1 from t join big b on b.number = t.id + 1 where t.n < 3) select * from t",
    ] {
        world.ask(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_not_narrowed_and_a_top_k_not_waited_for() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    let sql = "select s.id from small s join (select number from big limit 4000) b on b.number = s.number";
    insta::assert_snapshot!(world.ask_once(sql).await, @r#"SELECT "number" FROM "big" LIMIT 4000"#);
    let sql = "select id from big b where id not in (select id from small) order by id limit 2";
    insta::assert_snapshot!(world.ask_once(sql).await, @r#"SELECT "id" FROM "big""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_databases_get_keys_that_are_whole_numbers() {
    let mut world = World::with(some_of_big(&FIVE), |big| Dataset::flightsql("big", "big", big)).await;
    let mut sent = Vec::new();
    for on in ["number", "narrow", "text", "day", "price", "at"] {
        let sql = format!("select b.id from small s join big b on b.{on} = s.{on}");
        sent.push(format!("{on}\n  {}", world.ask_once(&sql).await));
    }
    insta::assert_snapshot!(sent.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_partitions_are_sent_as_one_list() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    // Without row counts both sides are partitioned.
    world.fail_counts();
    let sql = "select b.id from small s join big b on b.number = s.number";
    insta::assert_snapshot!(world.ask_once(sql).await,
        @r#"SELECT "id", "number" FROM "big" WHERE "number" IN (3, 700, 1401, 2022, 3998)"#);
    let mut world = World::new(some_of_big(&(500..4_000).collect::<Vec<_>>())).await;
    world.fail_counts();
    insta::assert_snapshot!(world.ask_once(sql).await,
        @r#"SELECT "id", "number" FROM "big" WHERE (("number" >= 500) AND ("number" <= 3998))"#);
}

/// A join that collects its small side waits until all of its partitions have begun. A partitioned join
/// above it, one of whose partitions has nothing to look for, never begins that one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_read_holds_nobody_up() {
    // Estimated so large that the outer join is partitioned where partitions are many, though one row is left of it.
    let many = "runtime:\n  query: {target_partitions: 200}\n";
    let numbers = || Arc::new(Int64Array::from_iter_values(0..1_400_000)) as ArrayRef;
    let large = || batch([("id", numbers()), ("number", numbers())]);
    let few = batch([("number", Arc::new(Int64Array::from_iter_values(0..50)) as ArrayRef)]);
    let (one, other) = (
        Upstream::builder().table("large", large()).table("few", few).start().await,
        Upstream::builder().table("huge", large()).start().await,
    );
    let datasets = [Dataset::of("large", &one), Dataset::of("few", &one), Dataset::of("huge", &other)];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, many)).start().await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    let sql = "select l.number, t.c from large l join (select g.number as n, g.c from \
               (select number, count(*) as c from huge group by number) g where g.number in (select number from few)) t \
               on t.n = l.number where l.id = 7";
    let answer = tokio::time::timeout(DEAD, client.query(sql)).await.expect("an answer at all").unwrap();
    assert_eq!(answer.num_rows(), 1);
    let plan = client.query(&format!("explain {sql}")).await.unwrap().pretty();
    assert!(plan.contains("mode=Partitioned") && plan.contains("mode=CollectLeft"), "another test:\n{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_keys_is_asked_without() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    let sql = "select b.id from small s join big b on b.number = s.number";
    world.ask(sql).await;
    world.big.refuse(1, &Status::invalid_argument("no lists here"));
    let sent = world.ask(sql).await;
    let [refused, sent] = &sent[..] else { panic!("asked with keys, and then without: {sent:#?}") };
    assert!(refused.contains("IN (") && !sent.contains("IN ("), "{sent}");
    // Away is not refusing.
    world.big.inject(Method::DoGet, 1, Fault::Status(Status::resource_exhausted("no memory")));
    let Err(error) = world.client.query(sql).await else { panic!("the upstream's failure was lost") };
    assert!(error.message().contains("dataset `big`"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smaller_side_is_built_however_the_join_is_written() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    let joins = [
        "select b.id from small s join big b on b.number = s.number",
        "select b.id from big b join small s on b.number = s.number",
    ];
    world.ask(joins[1]).await;
    for sql in joins {
        let plan = world.explain(sql).await;
        let at = |table: &str| plan.find(&format!("FROM \"{table}\"")).unwrap_or_else(|| panic!("{plan}"));
        assert!(plan.contains("mode=CollectLeft"), "{plan}");
        assert!(at("small") < at("big"), "the first input is built:\n{plan}");
    }
    // Both were counted, once; a statement without a join asks for no count.
    let counts = |upstream: &Upstream| {
        upstream.statements().into_iter().filter(|sql| sql.contains("count(*)")).collect::<Vec<_>>()
    };
    world.ask(joins[0]).await;
    assert_eq!((counts(&world.small), counts(&world.big)), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_need_no_count_ask_for_none() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    for sql in ["select id from big union all select id from small", "select id from big where id < 3"] {
        world.big.clear();
        world.small.clear();
        world.client.query(sql).await.unwrap();
        let sent = [world.big.statements(), world.small.statements()].concat();
        assert!(sent.iter().all(|sql| !sql.contains("count(*)")), "{sent:#?}");
    }
    // Explaining runs nothing.
    world.big.clear();
    world.explain("select b.id from small s join big b on b.number = s.number").await;
    assert_eq!(world.big.statements(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_count_holds_nothing_up() {
    let mut world = World::new(some_of_big(&FIVE)).await;
    // The count's GetFlightInfo is the first call to arrive at each.
    world.big.inject(Method::GetFlightInfo, 1, Fault::Hang);
    world.ask("select b.id from small s join big b on b.number = s.number").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_says_what_was_sent_and_what_came_back() {
    let twenty: Vec<i64> = (0..20).map(|n| n * 100).collect();
    let mut world = World::new(some_of_big(&twenty)).await;
    let sql = "select b.id from small s join big b on b.number = s.number";
    world.ask(sql).await;
    let shown = world.explain(&format!("analyze {sql}")).await;
    let scans: Vec<String> = shown
        .lines()
        .filter_map(|line| line.split_once("RemoteScan: "))
        .map(|(_, scan)| scan.trim_end_matches(['|', ' ']).to_owned())
        .map(|scan| redacted(&scan, &[&world.small.url(), &world.big.url()]))
        .collect();
    insta::assert_snapshot!(scans.join("\n"));
    let empty = world.explain(&format!("analyze {sql} where s.id < 0")).await;
    assert!(empty.contains(r#"FROM "big", not sent"#), "{empty}");
}

/// Addresses, times and sizes change from run to run; that there are some does not.
fn redacted(scan: &str, urls: &[&str]) -> String {
    let scan = urls.iter().fold(scan.to_owned(), |scan, url| scan.replace(*url, "URL"));
    let (sql, metrics) = scan.split_once(", metrics=[").unwrap_or_else(|| panic!("no metrics: {scan}"));
    let kept: Vec<String> = metrics
        .trim_end_matches(']')
        .split(", ")
        .filter_map(|metric| {
            let (name, value) = metric.split_once('=')?;
            match name {
                "output_rows" => Some(metric.to_owned()),
                "bytes_received" => Some(format!("{name}={}", if value == "0" { "0" } else { "SOME" })),
                _ => None,
            }
        })
        .collect();
    format!("{sql} [{}]", kept.join(", "))
}
