//! What a statement over two upstreams sends to each: whole parts, asserted on what was received, and that
//! the answers are those of one engine that has all tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::support::client::{Client, Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const ORDERS: i64 = 600;

fn orders() -> Vec<RecordBatch> {
    let rows = || 0..ORDERS;
    batch([
        ("id", Arc::new(Int64Array::from_iter_values(rows())) as ArrayRef),
        ("customer", Arc::new(Int64Array::from_iter(rows().map(|n| (n % 7 != 0).then_some(n % 40))))),
        (
            "status",
            Arc::new(StringArray::from_iter_values(rows().map(|n| ["open", "closed"][n as usize % 2]))),
        ),
        ("remark", Arc::new(StringArray::from_iter_values(rows().map(|n| format!("remark {n}"))))),
    ])
}

fn lines() -> Vec<RecordBatch> {
    let rows = || 0..ORDERS * 3;
    batch([
        ("order_id", Arc::new(Int64Array::from_iter_values(rows().map(|n| n / 3))) as ArrayRef),
        ("amount", Arc::new(Int64Array::from_iter_values(rows().map(|n| n % 11)))),
        ("note", Arc::new(StringArray::from_iter_values(rows().map(|n| format!("note {n}"))))),
    ])
}

fn customers() -> Vec<RecordBatch> {
    let rows = || 0..40i64;
    let region = |n: i64| ["EU", "US", "APAC", "MEA"][n as usize % 4];
    batch([
        ("id", Arc::new(Int64Array::from_iter_values(rows())) as ArrayRef),
        ("name", Arc::new(StringArray::from_iter_values(rows().map(|n| format!("customer {n}"))))),
        ("region", Arc::new(StringArray::from_iter_values(rows().map(region)))),
    ])
}

/// Orders and their lines on one upstream, under names of its own; customers on another.
struct World {
    sales: Upstream,
    crm: Upstream,
    reference: Upstream,
    sidecar: Sidecar,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let reference = Upstream::builder()
            .tables([("orders", orders()), ("lines", lines()), ("customers", customers())])
            .start()
            .await;
        let sales =
            Upstream::builder().tables([("raw.orders", orders()), ("raw.\"Lines\"", lines())]).start().await;
        let crm = Upstream::builder().table("customers", customers()).start().await;
        let datasets = [
            Dataset::of("orders", &sales).table("raw.orders"),
            Dataset::of("lines", &sales).table("raw.\"Lines\""),
            Dataset::of("customers", &crm),
        ];
        let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
        sidecar.wait_ready().await;
        let client = sidecar.flight_client().await;
        Self { sales, crm, reference, sidecar, client }
    }

    /// The answer is the reference's; what was sent to sales and to crm, row counts left out.
    async fn ask(&mut self, sql: &str) -> [Vec<String>; 2] {
        let expected = self.reference.query(sql).await;
        self.sales.clear();
        self.crm.clear();
        let answer = self.client.query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e:?}"));
        let order = if sql.contains("order by") { Order::Kept } else { Order::Any };
        assert_same(sql, &answer.batches, &expected, order);
        [&self.sales, &self.crm].map(|upstream| {
            let mut sent = upstream.statements();
            sent.retain(|sql| !sql.starts_with("SELECT count(*) FROM"));
            sent
        })
    }

    /// As [`World::ask`], with one statement to each.
    async fn ask_once(&mut self, sql: &str) -> String {
        let [sales, crm] = self.ask(sql).await;
        assert_eq!((sales.len(), crm.len()), (1, 1), "{sql}\n{sales:#?}\n{crm:#?}");
        format!("sales: {}\ncrm: {}", sales[0], crm[0])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_with_an_aggregate_is_one_statement_of_its_upstream() {
    let mut world = World::new().await;
    let sql = "select c.name, s.total from customers c join (select o.customer, sum(l.amount) as total \
               from orders o join lines l on o.id = l.order_id where o.status = 'open' group by o.customer) s \
               on s.customer = c.id where c.region = 'EU' order by c.name";
    let sent = world.ask_once(sql).await;
    let to_sales = sent.lines().next().unwrap();
    for word in ["JOIN", "GROUP BY", "sum(", "'open'", "\"raw\".\"orders\"", "\"raw\".\"Lines\""] {
        assert!(to_sales.contains(word), "{word} in {sent}");
    }
    for word in ["remark", "note", "region"] {
        assert!(!to_sales.contains(word), "{word} in {sent}");
    }
    insta::assert_snapshot!(sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_upstream_meet_first_wherever_they_stand() {
    let mut world = World::new().await;
    let sql = "select c.name, l.amount from orders o, customers c, lines l \
               where o.customer = c.id and l.order_id = o.id and c.region = 'US' and l.amount > 9";
    insta::assert_snapshot!(world.ask_once(sql).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_that_verifies_goes_and_the_answer_stays() {
    let mut world = World::new().await;
    let mut told = Vec::new();
    for sql in [
        "select c.name from customers c where c.id not in (select customer from orders o join lines l \
         on l.order_id = o.id where l.amount = 10 and o.customer is not null)",
        "select c.name, x.customer from customers c full join (select customer, count(*) as n from orders \
         where status = 'open' group by customer) x on x.customer = c.id",
        "select c.name, x.id, x.r from customers c join (select id, customer, row_number() over \
         (partition by customer order by id desc) as r from orders) x on x.customer = c.id where x.r = 1",
        "select c.name, x.id from customers c join (select o.id, o.customer from orders o order by o.id desc \
         limit 5) x on x.customer = c.id order by x.id",
        "select id from orders union all select id from customers order by id desc limit 3",
        "select c.name, (select max(l.amount) from orders o join lines l on l.order_id = o.id) as m \
         from customers c where c.region = 'MEA'",
    ] {
        let [sales, crm] = world.ask(sql).await;
        told.push(format!("{sql}\n  sales: {}\n  crm: {}", sales.join("\n         "), crm.join("\n       ")));
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_what_is_sent_and_what_is_kept() {
    let mut world = World::new().await;
    let sql = "explain select c.name, x.n, x.r from customers c join (select o.customer, count(*) as n, \
               min(random()) as r from orders o join lines l on l.order_id = o.id group by o.customer) x \
               on x.customer = c.id";
    let rows = world.sidecar.sql(sql).await;
    let told: Vec<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["plan_type"] == "tier" || row["plan_type"] == "push_down")
        .map(|row| format!("{}: {}", row["plan_type"].as_str().unwrap(), row["plan"].as_str().unwrap()))
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(world.client.query(sql).await.is_ok());
}
