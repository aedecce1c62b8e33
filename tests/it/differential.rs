//! Seeded statements, each answered by a reference engine and by the sidecar's: forwarded, forwarded under
//! other names, and scanned. The answers, their column names and their types must agree, and errors too.
//!
//! `SIDEWING_LONG=1` asks twenty times as many; a failure prints the seed and the statement.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use sidewing::app::Plan;
use sidewing::config::{self, SourceFile};
use sidewing::query::{Engine, Options, Parameters, Request};
use sidewing::task::Scope;

use crate::support::client::{Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const STATEMENTS: usize = 150;
const SEED: u64 = 20_261_121;

const VIEWS: &str = "views:\n  - name: rich\n    sql: select id, k, price from t where price > 1\n  - name: \
                     richer\n    sql: select k, sum(price) as total from rich group by k\n";

fn t() -> Vec<RecordBatch> {
    let dictionary: DictionaryArray<Int32Type> =
        [Some("red"), Some("green"), None, Some("red"), Some("it's"), None].into_iter().collect();
    let price = [Some(105), Some(-250), None, Some(999), Some(105), Some(0)];
    let micros = [Some(1_582_934_399_123_456), Some(-1), None, Some(0), Some(0), Some(86_400_000_000)];
    batch([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6])) as ArrayRef),
        ("k", Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(2), None, Some(3), None]))),
        ("price", Arc::new(Decimal128Array::from(price.to_vec()).with_precision_and_scale(10, 2).unwrap())),
        (
            "Name",
            Arc::new(StringArray::from(vec![
                Some("a'b"),
                Some(""),
                None,
                Some("50%"),
                Some("a_b\\"),
                Some("z"),
            ])),
        ),
        (
            "note",
            Arc::new(StringViewArray::from(vec![
                Some("x"),
                None,
                Some("a long note, of many bytes"),
                Some("x"),
                Some("y"),
                None,
            ])),
        ),
        ("colour", Arc::new(dictionary)),
        (
            "ok",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true), None, Some(false)])),
        ),
        (
            "f",
            Arc::new(Float64Array::from(vec![
                Some(1.5),
                Some(f64::NAN),
                None,
                Some(-0.0),
                Some(0.1),
                Some(1e300),
            ])),
        ),
        (
            "d",
            Arc::new(Date32Array::from(vec![Some(18_321), Some(0), None, Some(-1), Some(18_321), Some(9)])),
        ),
        ("at", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()))),
    ])
}

fn u() -> Vec<RecordBatch> {
    batch([
        ("id", Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(2), None])) as ArrayRef),
        ("Name", Arc::new(StringArray::from(vec![Some("a'b"), Some("z"), None, Some("z")]))),
        ("v", Arc::new(Int64Array::from(vec![Some(10), Some(20), Some(20), Some(40)]))),
    ])
}

fn orders() -> Vec<RecordBatch> {
    batch([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef),
        ("k", Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(5), None]))),
        ("v", Arc::new(Int64Array::from(vec![7, 8, 9, 9]))),
    ])
}

/// What plain DataFusion answers, tables and views under the names that users write.
async fn reference() -> SessionContext {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("spice", "public")
        .with_information_schema(true)
        .with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    let catalog = context.catalog("spice").unwrap();
    for schema in ["sales", "crm"] {
        catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).unwrap();
    }
    for (name, batches) in [("t", t()), ("u", u()), ("sales.orders", orders()), ("crm.orders", u())] {
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    for view in [
        "create view rich as select id, k, price from t where price > 1",
        "create view richer as select k, sum(price) as total from rich group by k",
    ] {
        context.sql(view).await.unwrap().collect().await.unwrap();
    }
    context
}

/// The sidecar's engine over datasets, in this process.
struct World {
    engine: Engine,
    /// The same datasets, never forwarded.
    scans: SessionContext,
    /// Keeps datasets and connections alive.
    _kept: (Scope, Plan),
}

impl World {
    async fn new(datasets: &[Dataset]) -> Self {
        let text = spicepod(datasets, VIEWS);
        let source = SourceFile { path: PathBuf::from("spicepod.yaml"), text };
        let plan = Plan::try_new(config::parse(source).map_err(|e| e.to_string()).unwrap());
        let plan = plan.map_err(|e| e.to_string()).unwrap();
        let scope = Scope::new();
        plan.federation.start(&scope, 4);
        let is_ready =
            |state: &sidewing::federation::State| matches!(state, sidewing::federation::State::Ready { .. });
        for _ in 0..1_000 {
            if plan.federation.status().iter().all(|status| is_ready(&status.state)) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let engine = Engine::new(plan.federation.clone(), Options::default());
        let scans = plan.federation.context().clone();
        Self { engine, scans, _kept: (scope, plan) }
    }

    async fn ask(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), String> {
        let request = Request { sql: sql.to_owned(), parameters: Parameters::None };
        let promised = self.engine.schema(request.clone()).await.map_err(|e| e.to_string());
        let answer = self.engine.run(request).await.map_err(|e| e.to_string())?;
        let promised = promised.map_err(|e| format!("no schema, but an answer: {e}"));
        assert_promise(sql, &promised.unwrap(), &answer.schema);
        let schema = answer.schema;
        let batches = answer.batches.try_collect().await.map_err(|e| e.to_string())?;
        Ok((schema, batches))
    }

    async fn is_forwarded(&self, sql: &str) -> bool {
        match self.ask(&format!("explain {sql}")).await {
            Ok((_, batches)) => crate::support::client::pretty(&batches).contains("forwarded: "),
            Err(_) => false,
        }
    }
}

async fn ask(context: &SessionContext, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), String> {
    let stream = context.sql(sql).await.map_err(|e| e.to_string())?;
    let stream = stream.execute_stream().await.map_err(|e| e.to_string())?;
    let schema = stream.schema();
    let batches = stream.try_collect().await.map_err(|e| e.to_string())?;
    Ok((schema, batches))
}

/// Types without their layout.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}

fn columns(schema: &SchemaRef) -> Vec<(String, DataType)> {
    schema.fields().iter().map(|field| (field.name().clone(), plain(field.data_type()))).collect()
}

fn assert_promise(sql: &str, promised: &SchemaRef, answered: &SchemaRef) {
    let exact = |schema: &SchemaRef| -> Vec<(String, DataType)> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    assert_eq!(exact(promised), exact(answered), "{sql}: promised and answered");
}

type Outcome = Result<(SchemaRef, Vec<RecordBatch>), String>;

fn assert_agree(what: &str, answer: &Outcome, expected: &Outcome) {
    let (answer, expected) = match (answer, expected) {
        (Ok(answer), Ok(expected)) => (answer, expected),
        (Err(_), Err(_)) => return,
        (Err(error), Ok(_)) => panic!("{what}\nfailed: {error}"),
        (Ok(_), Err(error)) => panic!("{what}\nanswered, but the reference fails: {error}"),
    };
    assert_eq!(columns(&answer.0), columns(&expected.0), "{what}");
    let order = if what.contains("ORDER BY TOTAL") { Order::Kept } else { Order::Any };
    assert_same(what, &answer.1, &expected.1, order);
}

/// The tiers, each with the upstreams that it needs.
struct Tiers {
    reference: SessionContext,
    worlds: Vec<(&'static str, World)>,
    _upstreams: [Upstream; 2],
}

impl Tiers {
    async fn new() -> Self {
        let first = Upstream::builder()
            .tables([("t", t()), ("u", u()), ("sales.orders", orders()), ("crm.orders", u())])
            // Other names for the same, and names that are other tables' at home.
            .tables([("raw.facts", t()), ("orders", u()), ("\"Odd Name\"", orders())])
            .start()
            .await;
        let second = Upstream::builder().tables([("u", u()), ("crm.orders", u())]).start().await;
        let same = ["t", "u", "sales.orders", "crm.orders"];
        let named = |name: &str, table: &str| Dataset::of(name, &first).table(table);
        let worlds = vec![
            ("same names", World::new(&same.map(|name| named(name, name))).await),
            (
                "renamed",
                World::new(&[
                    named("t", "raw.facts"),
                    named("u", "orders"),
                    named("sales.orders", "\"Odd Name\""),
                    named("crm.orders", "u"),
                ])
                .await,
            ),
            ("plain scans", World::new(&same.map(|name| Dataset::flightsql(name, name, &first))).await),
            (
                "two upstreams",
                World::new(&[
                    named("t", "t"),
                    Dataset::of("u", &second),
                    named("sales.orders", "sales.orders"),
                    Dataset::of("crm.orders", &second).table("crm.orders"),
                ])
                .await,
            ),
        ];
        Self { reference: reference().await, worlds, _upstreams: [first, second] }
    }

    /// Whether the reference answers.
    async fn check(&self, sql: &str) -> bool {
        let expected = ask(&self.reference, sql).await;
        for (tier, world) in &self.worlds {
            assert_agree(&format!("{tier}: {sql}"), &world.ask(sql).await, &expected);
        }
        let scanned = ask(&self.worlds[0].1.scans, sql).await;
        assert_agree(&format!("proved scans: {sql}"), &scanned, &expected);
        expected.is_ok()
    }
}

/// A small generator: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn predicate(&mut self, q: &str) -> String {
        let column = |name: &str| format!("{q}{name}");
        let (id, k, name) = (column("id"), column("k"), column("\"Name\""));
        let one = match self.below(18) {
            0 => format!("{id} {} {}", self.pick(&["<", "<=", "=", "<>", ">"]), self.below(6)),
            1 => format!("{k} IS {} NULL", self.pick(&["", "NOT"])),
            2 => format!("{name} LIKE '{}'", self.pick(&["a%", "%\\%", "a_b%", "%''%", ""])),
            3 => format!(
                "{name} {} ('a''b', 'z', '{}')",
                self.pick(&["IN", "NOT IN"]),
                self.pick(&["\\", "50%", ""])
            ),
            4 => format!("{} BETWEEN {} AND 2.5", column("price"), self.pick(&["-3", "0.05", "1.05"])),
            5 => format!("{} = '{}'", column("colour"), self.pick(&["red", "it''s", ""])),
            6 => format!("{} <> '{}'", column("note"), self.pick(&["x", "y"])),
            7 => format!("{} {} TRUE", column("ok"), self.pick(&["IS", "IS NOT", "="])),
            8 => format!(
                "{} {} {}",
                column("f"),
                self.pick(&["<", ">", "="]),
                self.pick(&["0.1", "'NaN'", "-0.0", "1e300"])
            ),
            9 => format!("{} >= date '{}'", column("d"), self.pick(&["1970-01-01", "2020-02-29"])),
            10 => format!(
                "{} > timestamp '{}'",
                column("at"),
                self.pick(&["1969-12-31T23:59:59.999999", "2020-01-01T00:00:00"])
            ),
            11 => format!(
                "{id} {} (SELECT {} FROM u)",
                self.pick(&["IN", "NOT IN"]),
                self.pick(&["id", "v / 10"])
            ),
            12 => format!("{} EXISTS (SELECT 1 FROM u WHERE u.id = {id})", self.pick(&["", "NOT"])),
            13 => format!("{k} = (SELECT max(o.k) FROM sales.orders o WHERE o.id <= {id})"),
            14 => format!("{id} + {k} {} 3", self.pick(&["<", "IS DISTINCT FROM", ">="])),
            15 => format!("CASE WHEN {} THEN {id} ELSE {k} END = 1", column("ok")),
            16 => format!("extract(year FROM {}) = 2020", column("d")),
            _ => format!("coalesce(length({name}), 0) > {}", self.below(4)),
        };
        match self.below(5) {
            0 => format!("({one} OR {})", self.predicate(q)),
            1 => format!("{one} AND {}", self.predicate(q)),
            2 => format!("NOT ({one})"),
            _ => one,
        }
    }

    fn statement(&mut self) -> String {
        let from = self.pick(&["t", "public.t", "spice.public.t", "T", "\"t\""]);
        let total = "ORDER BY 1 NULLS FIRST";
        match self.below(20) {
            0 => format!("SELECT * FROM {from} WHERE {}", self.predicate("")),
            1 => format!("SELECT id + 1, upper(\"Name\"), price * 2 FROM {from} WHERE {}", self.predicate("")),
            2 => format!("SELECT {from}.id, {from}.k + 1 FROM {from} WHERE {}", self.predicate(&format!("{from}."))),
            3 => format!("SELECT count(*), sum(price), min(note) FROM {from} WHERE {}", self.predicate("")),
            4 => format!(
                "SELECT a.id, u.v FROM {from} AS a {} JOIN u ON a.id = u.id WHERE {}",
                self.pick(&["", "LEFT", "RIGHT", "FULL"]),
                self.predicate("a.")
            ),
            5 => format!(
                "SELECT k, count(*) FROM {from} GROUP BY {} HAVING count(*) > {}",
                self.pick(&["k", "ROLLUP(k)", "CUBE(k)"]),
                self.below(2)
            ),
            6 => format!("SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) FROM {from} WHERE {}", self.predicate("")),
            7 => format!("SELECT DISTINCT k, ok FROM {from} WHERE {}", self.predicate("")),
            8 => format!("SELECT DISTINCT ON (k) k, id FROM {from} ORDER BY k, id"),
            9 => format!(
                "SELECT id FROM {from} {} SELECT id FROM {}",
                self.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]),
                self.pick(&["u", "sales.orders", "crm.orders", "rich"])
            ),
            10 => format!(
                "SELECT id, \"Name\" FROM {from} WHERE {} {total} LIMIT {} OFFSET {} -- ORDER BY TOTAL",
                self.predicate(""),
                self.below(5),
                self.below(3)
            ),
            11 => format!("WITH u AS (SELECT id, k FROM {from} WHERE {}) SELECT u.id, u.k + 1 FROM u", self.predicate("")),
            12 => format!("WITH orders AS (SELECT * FROM {from}), x AS (SELECT * FROM orders) SELECT x.id, s.v FROM x JOIN sales.orders AS s ON s.id = x.id WHERE {}", self.predicate("x.")),
            13 => "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT n.i, t.id FROM n JOIN t ON t.id = n.i".to_owned(),
            14 => format!("SELECT r.k, r.total FROM {} AS r WHERE r.k {} 1", self.pick(&["richer", "public.richer"]), self.pick(&["=", ">", "<>"])),
            15 => format!("SELECT sales.orders.id, sales.orders.v + 1 FROM sales.orders WHERE sales.orders.id {} (SELECT id FROM u)", self.pick(&["IN", "NOT IN"])),
            16 => format!(
                "SELECT sales.orders.id FROM sales.orders WHERE {} EXISTS (SELECT 1 FROM crm.orders WHERE crm.orders.id = sales.orders.id)",
                self.pick(&["", "NOT"])
            ),
            17 => format!("SELECT orders.id, x.a FROM {from} AS orders, u AS x(a, b, c) WHERE orders.id = x.a AND {}", self.predicate("orders.")),
            18 => format!("SELECT 1 / (id - {}) FROM {from} WHERE id < 4", self.below(8)),
            _ => format!("SELECT id, (SELECT max(v) FROM u WHERE u.id = {from}.id) FROM {from} WHERE {}", self.predicate(&format!("{from}."))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_gives_the_reference_answer() {
    let tiers = Tiers::new().await;
    let times = if std::env::var_os("SIDEWING_LONG").is_some() { 20 } else { 1 };
    let (mut answered, mut forwarded) = (0, 0);
    for nth in 0..STATEMENTS * times {
        let seed = SEED + nth as u64;
        // The first numbers of neighbouring seeds are alike.
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let sql = dice.statement();
        eprintln!("seed {seed}: {sql}");
        answered += usize::from(tiers.check(&sql).await);
        forwarded += usize::from(tiers.worlds[1].1.is_forwarded(&sql).await);
    }
    eprintln!("{answered} of {} answered, {forwarded} forwarded under other names", STATEMENTS * times);
    assert!(answered > STATEMENTS * times / 2, "the generator makes mostly errors: {answered}");
    assert!(forwarded > STATEMENTS * times / 2, "hardly anything is forwarded: {forwarded}");
}

/// Found by hand; each was wrong, refused, or could have been.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_shapes_that_mislead() {
    let tiers = Tiers::new().await;
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
        tiers.check(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_leave_the_process_alive() {
    let upstream = Upstream::builder().table("u", u()).start().await;
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
