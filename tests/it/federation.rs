//! What reaches the upstreams, and that the answers are theirs: forwarding, scans, names, types, and the
//! refusal of everything that writes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, Decimal256Array,
    DictionaryArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, IntervalDayTimeArray,
    IntervalMonthDayNanoArray, IntervalYearMonthArray, LargeStringArray, ListArray, RecordBatch, StringArray,
    StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, IntervalDayTime, IntervalMonthDayNano, i256};
use serde_json::json;
use tonic::Code;

use crate::support::client::{Client, Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

/// A sidecar over upstreams, and a Flight client of it.
struct World {
    sidecar: Sidecar,
    client: Client,
}

impl World {
    async fn new(datasets: &[Dataset], rest: &str) -> Self {
        let sidecar = Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await;
        sidecar.wait_ready().await;
        let client = sidecar.flight_client().await;
        Self { sidecar, client }
    }

    /// The sidecar's answer to `sql` is the upstream's own to `reference`.
    async fn assert_answers(&mut self, sql: &str, upstream: &Upstream, reference: &str) {
        let expected = upstream.query(reference).await;
        let answer = self.client.query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e:?}"));
        let sent = upstream.statements();
        assert_same(&format!("{sql}\nsent: {:?}", sent.last()), &answer.batches, &expected, order_of(sql));
    }

    /// The same where both sides call the tables alike.
    async fn assert_same_sql(&mut self, sql: &str, upstream: &Upstream) {
        self.assert_answers(sql, upstream, sql).await;
    }
}

fn order_of(sql: &str) -> Order {
    match sql.to_lowercase().contains("order by") {
        true => Order::Kept,
        false => Order::Any,
    }
}

fn texts<const N: usize>(values: [&str; N]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn ints<const N: usize>(values: [i64; N]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn orders() -> Vec<RecordBatch> {
    batch([
        ("id", ints([1, 2, 3, 4, 5, 6])),
        ("customer_id", ints([10, 10, 20, 30, 20, 99])),
        ("amount", ints([5, 7, 11, 13, 17, 19])),
        ("status", texts(["open", "open", "open", "closed", "closed", "open"])),
        ("note", texts(["a", "b", "c", "d", "e", "f"])),
    ])
}

fn customers() -> Vec<RecordBatch> {
    batch([
        ("id", ints([10, 20, 30])),
        ("name", texts(["Ada", "Ben", "Cyd"])),
        ("region", texts(["EU", "EU", "US"])),
        ("remark", texts(["x", "y", "z"])),
    ])
}

async fn shop() -> Upstream {
    Upstream::builder().table("orders", orders()).table("customers", customers()).start().await
}

const JOIN: &str = "select c.name, count(*) as orders, sum(o.amount) as total \
                    from orders o join customers c on o.customer_id = c.id \
                    where o.status = 'open' and c.region = 'EU' group by c.name order by c.name";

#[tokio::test(flavor = "multi_thread")]
async fn a_join_with_aggregate_on_one_upstream_is_one_statement() {
    let upstream = shop().await;
    let mut world =
        World::new(&[Dataset::of("orders", &upstream), Dataset::of("customers", &upstream)], "").await;
    upstream.clear();
    world.assert_same_sql(JOIN, &upstream).await;
    let statements = upstream.statements();
    assert_eq!(statements.len(), 1, "{statements:#?}");
    let sent = statements[0].to_uppercase();
    assert!(sent.contains("JOIN") && sent.contains("GROUP BY"), "{sent}");

    let rows = world.sidecar.sql(JOIN).await;
    assert_eq!(
        rows,
        json!([{"name": "Ada", "orders": 2, "total": 12}, {"name": "Ben", "orders": 1, "total": 11}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_push_down_only_single_tables_are_asked() {
    let upstream = shop().await;
    let datasets = [Dataset::of("orders", &upstream), Dataset::of("customers", &upstream)];
    let mut world = World::new(&datasets, "runtime: {params: {push_down: off}}\n").await;
    upstream.clear();
    world.assert_same_sql(JOIN, &upstream).await;
    let mut statements: Vec<String> = upstream.statements().iter().map(|sql| sql.to_lowercase()).collect();
    statements.sort_by_key(|sql| sql.contains("from \"orders\""));
    let [customers, orders] = statements.as_slice() else { panic!("two statements: {statements:#?}") };
    for (sql, wanted, unwanted) in [
        (customers, ["from \"customers\"", "'eu'"], "remark"),
        (orders, ["from \"orders\"", "'open'"], "note"),
    ] {
        assert!(wanted.iter().all(|word| sql.contains(word)), "{wanted:?} in {sql}");
        assert!(sql.starts_with("select ") && !sql.contains(unwanted), "{sql}");
        // Neither the other table nor the keys that were found in it.
        assert!(!["join", "group by", " in ("].iter().any(|word| sql.contains(word)), "{sql}");
    }
    let told = world.sidecar.sql(&format!("EXPLAIN {JOIN}")).await.to_string();
    assert!(told.contains("push_down is off"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_over_two_upstreams_sends_each_only_what_it_needs() {
    let (sales, crm) = (shop().await, shop().await);
    let datasets = [Dataset::of("orders", &sales), Dataset::of("customers", &crm)];
    let mut world = World::new(&datasets, "").await;
    sales.clear();
    crm.clear();
    world.assert_same_sql(JOIN, &sales).await;

    let sent = |upstream: &Upstream| {
        let statements = upstream.statements();
        assert_eq!(statements.len(), 1, "{statements:#?}");
        statements[0].to_lowercase()
    };
    let (to_sales, to_crm) = (sent(&sales), sent(&crm));
    for (sql, wanted, unwanted) in [
        (&to_sales, ["customer_id", "amount", "'open'"], ["note", "customers", "'eu'"]),
        (&to_crm, ["name", "id", "'eu'"], ["remark", "orders", "'open'"]),
    ] {
        assert!(wanted.iter().all(|word| sql.contains(word)), "{wanted:?} in {sql}");
        assert!(!unwanted.iter().any(|word| sql.contains(word)), "none of {unwanted:?} in {sql}");
        assert!(!sql.contains('*') && !sql.contains("join"), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_over_one_scan_reaches_the_upstream() {
    let upstream = shop().await;
    let mut world = World::new(&[Dataset::flightsql("orders", "orders", &upstream)], "").await;
    upstream.clear();
    let answer = world.client.query("select id from orders limit 2").await.unwrap();
    assert_eq!(answer.num_rows(), 2);
    let statements = upstream.statements();
    assert_eq!(statements.len(), 1, "{statements:#?}");
    assert!(statements[0].to_uppercase().contains("LIMIT 2"), "{statements:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_names_may_differ_from_the_upstreams() {
    let upstream = Upstream::builder()
        .table("orders", orders())
        .table("crm.customers", customers())
        .table("\"Mixed Case\"", batch([("Weird Name", ints([1, 2])), ("select", texts(["x", "it's"]))]))
        .start()
        .await;
    let datasets = [
        Dataset::of("bought", &upstream).table("orders"),
        // A local name that is another table's name on the upstream.
        Dataset::of("sales.buyers", &upstream).table("crm.customers"),
        Dataset::of("weird", &upstream).table("\"Mixed Case\""),
        Dataset::of("\"Local Case\"", &upstream).table("\"Mixed Case\""),
    ];
    let mut world = World::new(&datasets, "").await;
    for (local, remote) in [
        (
            "select bought.id, bought.amount from bought where bought.id < 3 order by id",
            "select orders.id, orders.amount from orders where orders.id < 3 order by id",
        ),
        (
            "select * from bought, sales.buyers where bought.customer_id = buyers.id order by 1",
            "select * from orders, crm.customers where orders.customer_id = customers.id order by 1",
        ),
        (
            "select b.name from sales.buyers as b where not exists \
          (select 1 from bought where bought.customer_id = b.id and bought.status = 'open') order by 1",
            "select b.name from crm.customers as b where not exists \
          (select 1 from orders where orders.customer_id = b.id and orders.status = 'open') order by 1",
        ),
        (
            "select \"Weird Name\", \"select\" from weird order by 1",
            "select \"Weird Name\", \"select\" from \"Mixed Case\" order by 1",
        ),
        (
            "select weird.\"select\" as \"Out Put\" from weird where weird.\"select\" like 'it''%' order by 1",
            "select \"select\" as \"Out Put\" from \"Mixed Case\" where \"select\" like 'it''%' order by 1",
        ),
        (
            "select \"Local Case\".\"Weird Name\" from \"Local Case\" order by 1",
            "select \"Weird Name\" from \"Mixed Case\" order by 1",
        ),
        (
            "select bought.* from bought join sales.buyers on buyers.id = bought.customer_id order by id",
            "select orders.* from orders join crm.customers on customers.id = orders.customer_id order by id",
        ),
    ] {
        world.assert_answers(local, &upstream, remote).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_statement_makes_are_not_datasets() {
    let upstream = shop().await;
    let datasets = [Dataset::of("orders", &upstream), Dataset::of("bought", &upstream).table("orders")];
    let mut world = World::new(&datasets, "").await;
    for (local, remote) in [
        // A CTE shadows a dataset.
        ("with bought as (select 1 as id) select id from bought", "select 1 as id"),
        // Within its own definition the name is still the dataset.
        (
            "with bought as (select id from bought where id > 4) select id from bought order by id",
            "select id from orders where id > 4 order by id",
        ),
        // A nested CTE ends with its subquery.
        (
            "select (with bought as (select 7 as id) select max(id) from bought) as a, max(id) as b from bought",
            "select 7 as a, max(id) as b from orders",
        ),
        // An alias takes the name of another dataset.
        ("select orders.id from bought as orders where orders.id = 2", "select id from orders where id = 2"),
        ("select x.id from (select id from bought) as x order by 1", "select id from orders order by 1"),
    ] {
        world.assert_answers(local, &upstream, remote).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_shapes_of_statements_agree_in_both_tiers() {
    let upstream = shop().await;
    let forwarded = [Dataset::of("orders", &upstream), Dataset::of("customers", &upstream)];
    let scanned = [
        Dataset::flightsql("orders", "orders", &upstream),
        Dataset::flightsql("customers", "customers", &upstream),
    ];
    let statements = [
        "select count(*) from orders",
        "select count(*) as n from orders where status = 'open'",
        "select 1 as one from orders",
        "select count(*) from orders, customers",
        "select status, count(*) from orders group by status having count(*) > 2",
        "select distinct customer_id from orders",
        "select id from orders union all select id from customers order by 1",
        "select customer_id from orders except select id from customers",
        "select * from orders where customer_id not in (select id from customers) order by id",
        "select id, row_number() over (partition by customer_id order by id) as n from orders order by id",
        "select o.id, c.name from orders o left join customers c on c.id = o.customer_id order by o.id",
        "select id from orders order by amount desc limit 2 offset 1",
        "select id from (select id, amount from orders order by id limit 3) where amount > 6 order by id",
        "select case when amount > 10 then 'big' else null end as size, id from orders order by id",
        "values (1, 'a'), (2, 'b')",
        "select * from orders where false",
    ];
    for datasets in [forwarded, scanned] {
        let mut world = World::new(&datasets, "").await;
        for sql in statements {
            world.assert_same_sql(sql, &upstream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_stand_over_datasets_and_views() {
    let upstream = shop().await;
    let datasets = [Dataset::of("bought", &upstream).table("orders"), Dataset::of("customers", &upstream)];
    let views = "views:\n  - name: open_orders\n    sql: select id, amount, customer_id from bought where status = 'open'\n  \
                 - name: totals\n    sql: select customer_id, sum(amount) as total from open_orders group by customer_id\n";
    let mut world = World::new(&datasets, views).await;
    upstream.clear();
    world
        .assert_answers(
            "select c.name, totals.total from totals join customers c on c.id = totals.customer_id order by 1",
            &upstream,
            "select c.name, t.total from (select customer_id, sum(amount) as total from orders \
             where status = 'open' group by customer_id) t join customers c on c.id = t.customer_id order by 1",
        )
        .await;
    assert_eq!(upstream.statements().len(), 1, "a view is forwarded with the statement");
    world
        .assert_answers(
            "select * from open_orders order by id",
            &upstream,
            "select id, amount, customer_id from orders where status = 'open' order by id",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_tier_and_the_sql_that_goes_upstream() {
    let upstream = shop().await;
    let datasets = [Dataset::of("orders", &upstream), Dataset::flightsql("scanned", "customers", &upstream)];
    let mut world = World::new(&datasets, "").await;
    let forwarded = world.client.query("explain select id from orders where id = 42").await.unwrap().pretty();
    assert!(forwarded.to_lowercase().contains("forward"), "{forwarded}");
    assert!(forwarded.contains("42") && forwarded.contains("SELECT"), "{forwarded}");
    let scanned =
        world.client.query("explain select name from scanned where id = 42").await.unwrap().pretty();
    assert!(scanned.to_lowercase().contains("scan"), "{scanned}");
    assert!(scanned.contains("42") && scanned.contains("customers"), "{scanned}");
    assert!(!scanned.contains("remark"), "{scanned}");
    // Explaining runs nothing.
    upstream.clear();
    world.client.query("explain select sum(id) from orders").await.unwrap();
    assert_eq!(upstream.statements(), Vec::<String>::new());
}

/// Columns of one table.
type Columns = Vec<(&'static str, ArrayRef)>;

/// Three rows of every type: ordinary, extreme or odd, null.
fn types() -> Vec<RecordBatch> {
    batch([numbers(), times(), texts_and_nests()].concat())
}

fn numbers() -> Columns {
    vec![
        ("id", ints([1, 2, 3])),
        ("c_bool", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("c_int8", Arc::new(Int8Array::from(vec![Some(1), Some(i8::MIN), None]))),
        ("c_int64", Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None]))),
        ("c_uint64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None]))),
        ("c_float32", Arc::new(Float32Array::from(vec![Some(1.5), Some(-0.0), None]))),
        ("c_float64", Arc::new(Float64Array::from(vec![Some(0.1), Some(1e300), None]))),
        (
            "c_decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(123_456_789), Some(-1), None])
                    .with_precision_and_scale(15, 2)
                    .unwrap(),
            ),
        ),
        (
            "c_decimal_max",
            Arc::new(
                Decimal128Array::from(vec![Some(10_i128.pow(38) - 1), Some(1 - 10_i128.pow(38)), None])
                    .with_precision_and_scale(38, 10)
                    .unwrap(),
            ),
        ),
        (
            "c_decimal256",
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from_i128(i128::MAX)), Some(i256::from(-5)), None])
                    .with_precision_and_scale(50, 5)
                    .unwrap(),
            ),
        ),
    ]
}

fn times() -> Columns {
    let month_day_nano = |months, days, nanos| Some(IntervalMonthDayNano::new(months, days, nanos));
    let micros = [Some(1_582_934_399_123_456), Some(-1), None];
    vec![
        ("c_date32", Arc::new(Date32Array::from(vec![Some(18_321), Some(-719_162), None]))),
        ("c_date64", Arc::new(Date64Array::from(vec![Some(1_582_934_400_000), Some(0), None]))),
        ("c_ts_s", Arc::new(TimestampSecondArray::from(vec![Some(1_582_934_399), Some(-1), None]))),
        ("c_ts_ms", Arc::new(TimestampMillisecondArray::from(vec![Some(1_582_934_399_123), Some(-1), None]))),
        ("c_ts_us", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()))),
        (
            "c_ts_ns",
            Arc::new(TimestampNanosecondArray::from(vec![Some(1_582_934_399_123_456_789), Some(-1), None])),
        ),
        ("c_ts_utc", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC"))),
        (
            "c_ts_zone",
            Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("Europe/Berlin")),
        ),
        ("c_ts_offset", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("+05:30"))),
        ("c_time", Arc::new(Time64MicrosecondArray::from(vec![Some(86_399_999_999), Some(0), None]))),
        (
            "c_interval",
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                month_day_nano(14, 3, 4_000_000_005),
                month_day_nano(-1, 0, 0),
                None,
            ])),
        ),
        ("c_interval_ym", Arc::new(IntervalYearMonthArray::from(vec![Some(14), Some(-1), None]))),
        (
            "c_interval_dt",
            Arc::new(IntervalDayTimeArray::from(vec![
                Some(IntervalDayTime::new(3, 4)),
                Some(IntervalDayTime::new(-1, 0)),
                None,
            ])),
        ),
    ]
}

fn texts_and_nests() -> Columns {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None, Some(3)]),
        Some(vec![]),
        None,
    ]);
    let pair = StructArray::from(vec![
        (
            Arc::new(Field::new("x", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("y", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None])) as ArrayRef,
        ),
    ]);
    let dictionary: DictionaryArray<Int32Type> = [Some("red"), Some("green"), None].into_iter().collect();
    vec![
        (
            "c_text",
            Arc::new(StringArray::from(vec![Some("it's \"quoted\", \\ and ünïcödé"), Some(""), None])),
        ),
        ("c_large_text", Arc::new(LargeStringArray::from(vec![Some("large"), Some("line\nbreak"), None]))),
        (
            "c_view",
            Arc::new(StringViewArray::from(vec![
                Some("a view of more than twelve bytes"),
                Some("short"),
                None,
            ])),
        ),
        ("c_binary", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None]))),
        ("c_dictionary", Arc::new(dictionary)),
        ("c_list", Arc::new(list)),
        ("c_struct", Arc::new(pair)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_left_in_both_tiers() {
    let upstream = Upstream::builder().table("types", types()).start().await;
    let forwarded = [Dataset::of("types", &upstream)];
    let scanned = [Dataset::flightsql("types", "types", &upstream)];
    let predicates = [
        "c_bool",
        "c_int8 < 0",
        "c_int64 = 9223372036854775807",
        "c_uint64 = 18446744073709551615",
        "c_float64 = 0.1",
        "c_float32 > 1",
        "c_date32 = date '2020-02-29'",
        "c_date32 < date '1900-01-01'",
        "c_date64 >= date '2020-01-01'",
        "c_ts_s = timestamp '2020-02-28T23:59:59'",
        "c_ts_ms < timestamp '1970-01-01T00:00:00'",
        "c_ts_us = timestamp '2020-02-28T23:59:59.123456'",
        "c_ts_ns > timestamp '2020-02-28T23:59:59.123456788'",
        "c_ts_utc = timestamp '2020-02-28T23:59:59.123456Z'",
        "c_ts_zone > timestamp '2020-01-01T00:00:00Z'",
        "c_ts_offset < timestamp '2020-01-01T00:00:00Z'",
        "c_time = arrow_cast('00:00:00', 'Time64(Microsecond)')",
        "c_decimal = 1234567.89",
        "c_decimal = cast('1234567.89' as decimal(15, 2))",
        "c_decimal_max > 0",
        "c_decimal between -1 and 0",
        "c_interval = interval '1 year 2 months 3 days 4.000000005 seconds'",
        "c_text like 'it''s%'",
        "c_text = ''",
        "c_large_text like '%break'",
        "c_view = 'short'",
        "c_view in ('short', 'long')",
        "c_dictionary = 'red'",
        "c_dictionary is null",
        "c_list is null",
        "c_struct['x'] = 1",
        "c_list[1] = 1",
        "array_length(c_list) = 3",
        "c_text is distinct from null",
        "date_trunc('month', c_ts_us) = timestamp '2020-02-01T00:00:00'",
    ];
    for datasets in [forwarded, scanned] {
        let mut world = World::new(&datasets, "").await;
        world.assert_same_sql("select * from types order by id", &upstream).await;
        for predicate in predicates {
            let sql = format!("select id from types where {predicate} order by id");
            world.assert_same_sql(&sql, &upstream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_rows_carry_nulls_and_all_digits() {
    let upstream = Upstream::builder().table("types", types()).start().await;
    let world = World::new(&[Dataset::of("types", &upstream)], "").await;
    let sql =
        "select c_int64, c_uint64, c_decimal_max, c_text, c_list, c_struct, c_ts_utc from types order by id";
    let answer = world.sidecar.sql_as(sql, "application/json").await;
    assert!(answer.content_type.starts_with("application/json"), "{}", answer.content_type);
    // As text: a JSON reader would round the numbers.
    for digits in [
        "\"c_int64\":9223372036854775807",
        "\"c_uint64\":18446744073709551615",
        "\"c_decimal_max\":9999999999999999999999999999.9999999999",
        "\"c_list\":[1,null,3]",
        "\"c_text\":null",
    ] {
        assert!(answer.body.contains(digits), "{digits} in {}", answer.body);
    }
    let csv = world.sidecar.sql_as("select id, c_text from types order by id", "text/csv").await;
    assert!(csv.content_type.starts_with("text/csv"), "{}", csv.content_type);
    assert!(csv.body.starts_with("id,c_text\n1,\"it's \"\"quoted\"\""), "{}", csv.body);
    let plain = world.sidecar.sql_as("select id from types order by id", "text/plain").await;
    assert!(plain.body.contains("| id |") && plain.body.contains("| 3  |"), "{}", plain.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_is_refused_and_touches_nothing() {
    let upstream = shop().await;
    let mut world = World::new(&[Dataset::of("orders", &upstream)], "").await;
    let dir = world.sidecar.dir().to_owned();
    std::fs::write(dir.join("data.csv"), "a,b\n1,2\n").unwrap();
    let files = || {
        let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap_or_default()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    upstream.clear();
    let out = dir.join("out.csv").to_string_lossy().into_owned();
    let csv = dir.join("data.csv").to_string_lossy().into_owned();
    for sql in [
        "create table t as select 1 as a".to_owned(),
        "create view v as select * from orders".to_owned(),
        "create schema s".to_owned(),
        "create database d".to_owned(),
        format!("create external table t stored as csv location '{csv}'"),
        format!("create external table t (a int) stored as csv location '{out}'"),
        format!("copy (select * from orders) to '{out}' stored as csv"),
        format!("copy orders to '{out}'"),
        format!("explain copy orders to '{out}'"),
        format!("explain analyze copy orders to '{out}'"),
        "insert into orders values (1, 1, 1, 'x', 'y')".to_owned(),
        "update orders set amount = 0".to_owned(),
        "delete from orders".to_owned(),
        "drop table orders".to_owned(),
        "truncate table orders".to_owned(),
        "set datafusion.execution.batch_size = 1".to_owned(),
        "reset datafusion.execution.batch_size".to_owned(),
        "create function f() returns int return 1".to_owned(),
        "prepare p as select 1".to_owned(),
        "begin transaction".to_owned(),
        "select 1; drop table orders".to_owned(),
        format!("select * from '{csv}'"),
        "select * from 'data.csv'".to_owned(),
    ] {
        let answer = world.sidecar.sql_as(&sql, "application/json").await;
        assert!((400..500).contains(&answer.status), "{sql}\n{} {}", answer.status, answer.body);
        assert!(!answer.body.is_empty(), "{sql}: a refusal says why");
        let error = world.client.query(&sql).await.expect_err(&sql);
        let known = [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied, Code::Unimplemented];
        assert!(known.contains(&error.code()), "{sql}\n{error:?}");
    }
    assert_eq!(files(), before);
    assert_eq!(upstream.statements(), Vec::<String>::new(), "nothing of it went upstream");
    assert_eq!(world.sidecar.sql("select count(*) as n from orders").await, json!([{"n": 6}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_mistakes_are_400_in_our_words() {
    let upstream = shop().await;
    let world = World::new(&[Dataset::of("orders", &upstream)], "").await;
    upstream.clear();
    for (sql, word) in [
        ("selec 1", "selec"),
        ("select nothing from orders", "nothing"),
        ("select * from nowhere", "nowhere"),
        ("", "empty"),
    ] {
        let answer = world.sidecar.sql_as(sql, "application/json").await;
        assert!((400..500).contains(&answer.status), "{sql}\n{} {}", answer.status, answer.body);
        assert!(answer.body.to_lowercase().contains(word), "{sql}\n{}", answer.body);
    }
    assert_eq!(upstream.statements(), Vec::<String>::new());
    // A runtime error of the upstream is the statement's fault too.
    let answer = world.sidecar.sql_as("select 1 / (id - id) from orders", "application/json").await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}
