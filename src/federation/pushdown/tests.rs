//! Statements over two upstreams: what is sent to each, and what is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use crate::config::Connector;
use crate::upstream::testing::{connect, spice};
use crate::upstream::{RemoteTableName, Upstream};

use super::super::Options;
use super::super::registry::{Changes, session};
use super::super::table::RemoteTable;
use super::node::RemoteQuery;
use super::{Note, cut};

/// `a`, `b` and `events` live on one upstream under other names, `c` and `d` on another.
struct World {
    context: SessionContext,
    planner: Arc<SessionState>,
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), *name != "id")).collect();
    Arc::new(Schema::new(fields))
}

impl World {
    /// Both upstreams speak DataFusion's SQL.
    fn new() -> Self {
        Self::over(&spice("http://127.0.0.1:1", &[]), &spice("http://127.0.0.1:2", &[]))
    }

    /// Neither is known to.
    fn foreign() -> Self {
        let at = |endpoint| connect(Connector::FlightSql, "t", &[("endpoint", endpoint)]);
        Self::over(&at("http://127.0.0.1:1"), &at("http://127.0.0.1:2"))
    }

    fn over(one: &Arc<Upstream>, two: &Arc<Upstream>) -> Self {
        let text = DataType::Utf8;
        let number = DataType::Int64;
        let money = DataType::Decimal128(15, 2);
        let facts = schema(&[
            ("id", number.clone()),
            ("k", DataType::Int32),
            ("Name", DataType::Utf8View),
            ("price", money.clone()),
            ("day", DataType::Date32),
            ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("ok", DataType::Boolean),
            ("f", DataType::Float64),
        ]);
        let few = schema(&[("id", number.clone()), ("k", DataType::Int32), ("v", number), ("note", text)]);
        let names = ["a", "b", "events", "c", "d"].map(|name| name.parse().unwrap());
        let context = session(
            names.iter(),
            &Options { target_partitions: Some(2), ..Options::default() },
            &Changes::default(),
        )
        .unwrap();
        let planner = Arc::new(context.state());
        let tables: [(&str, &Arc<Upstream>, &SchemaRef); 5] = [
            ("raw.facts", one, &facts),
            ("b", one, &few),
            ("raw.\"Events\"", one, &facts),
            ("c", two, &few),
            ("facts", two, &facts),
        ];
        for (name, (remote, upstream, schema)) in names.into_iter().zip(tables) {
            let remote = RemoteTableName {
                parts: remote.split('.').map(|part| part.trim_matches('"').to_owned()).collect(),
            };
            let local = name.to_string();
            let table =
                RemoteTable::try_new(name, Arc::clone(upstream), remote, Arc::clone(schema), &planner);
            context.register_table(local, Arc::new(table.unwrap())).unwrap();
        }
        Self { context, planner }
    }

    async fn cut(&self, sql: &str) -> (LogicalPlan, Vec<Note>) {
        let state = self.context.state();
        let plan = state.create_logical_plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let plan = state.optimize(&plan).unwrap_or_else(|error| panic!("{sql}: {error}"));
        cut(plan, &self.planner).unwrap()
    }

    /// What is told of `sql`, and the SELECTs that leave.
    async fn told(&self, sql: &str) -> String {
        let (plan, notes) = self.cut(sql).await;
        let mut lines = vec![sql.to_owned()];
        lines.extend(notes.iter().map(|note| format!("  {note}")));
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Extension(extension) = node {
                let query = extension.node.as_any().downcast_ref::<RemoteQuery>().unwrap();
                lines.push(format!("  > {}", query.select.sql));
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        lines.join("\n")
    }
}

const STATEMENTS: [&str; 44] = [
    "select c.note, s.total from c join (select a.k, sum(a.price) as total from a join b on a.id = b.id where b.v > 5 group by a.k) s on s.k = c.k",
    "select a.id, b.v, c.v from a join b on a.id = b.id join c on c.id = b.id where a.price > 1.05 and b.note like 'x%'",
    "select a.id, b.v, c.v from a left join b on a.id = b.id and b.v > 3 join c on c.id = a.id",
    "select a.id, coalesce(b.v, 0) from a right join b on a.id = b.id join c on c.id = b.id where b.v is not null",
    "select x.id, c.v from (select a.id, b.id as bid from a full join b on a.id = b.id) x join c on c.id = x.id or c.id = x.bid",
    "select c.v from c where c.id in (select a.id from a join b on a.k = b.k)",
    "select c.v from c where c.id not in (select a.k from a where a.price is null group by a.k)",
    "select s.id, c.v from (select id from a where k not in (select k from b)) s join c on c.id = s.id",
    "select s.id, c.v from (select id from a where exists (select 1 from b where b.id = a.id and b.v > a.k)) s join c on c.id = s.id",
    "select s.id, c.v from (select id from a where exists (select 1 from b where b.id = a.id) or a.k = 3) s join c on c.id = s.id",
    "select s.id, c.v from (select id, price from a where price > (select avg(price) from a x where x.k = a.k)) s join c on c.id = s.id",
    "select s.id, c.v from (select id, price from a where price > (select avg(price) from b join a x on x.id = b.id)) s join c on c.id = s.id",
    "select s.k, c.v from (select distinct on (k) k, price, id from a order by k, price desc, id) s join c on c.k = s.k",
    "select s.k, s.l, c.v from (select k, array_agg(id order by price desc, id) as l from a group by k) s join c on c.k = s.k",
    "select s.k, s.n, c.v from (select k, count(distinct id) filter (where ok) as n, string_agg(\"Name\", ',' order by id) as l from a group by k) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a except select id, k from b) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a intersect select id, k from b) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a union select id, k from b) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a union all select id + 1, k from b) s join c on c.k = s.k",
    "select s.id, c.v from (select * from (select * from a order by price desc, id limit 10) q where q.k > 3) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a order by price desc nulls last, id limit 10 offset 3) s join c on c.k = s.k",
    "select s.id, c.v from (select id, k from a limit 5) s join c on c.k = s.k",
    "select s.id, s.r, c.v from (select id, k, row_number() over (partition by k order by price desc, id) as r from a) s join c on c.k = s.k where s.r <= 2",
    "select s.id, s.r, c.v from (select id, k, sum(price) over (order by day, id rows between 2 preceding and current row) as r, lag(id, 1, 0) over (order by id) as l from a) s join c on c.k = s.k",
    "select s.*, c.v from (select k, ok, count(*) as n from a group by rollup(k, ok)) s join c on c.k = s.k",
    "select s.*, c.v from (select k, ok, grouping(k) as g, count(*) as n from a group by cube(k, ok)) s join c on c.k = s.k",
    "select s.*, c.v from (select k, ok, max(at) as n from a group by grouping sets ((k), (ok, k), ())) s join c on c.k = s.k",
    "select s.*, c.v from (select case when price > 10 then 'big' when price is null then 'none' else 'small' end as size, count(*) as n, min(k) as k from a group by 1) s join c on c.k = s.k",
    "select s.*, c.v from (select a.id, x.column2 as w from a join (values (1, 'one'), (2, 'two')) x on a.id = x.column1) s join c on c.id = s.id",
    "with t as (select k, sum(v) as total from b group by k having sum(v) > 10) select t.total, c.v, u.total from t join c on c.k = t.k join t u on u.k = t.k",
    "with recursive r as (select 1 as n union all select n + 1 from r where n < 3) select r.n, a.id, c.v from r join a on a.id = r.n join c on c.id = a.id",
    "select count(*) from a join b on a.id = b.id join c on c.id = b.id",
    "select date_trunc('month', a.at) as m, extract(year from a.day) as y, sum(c.v) from a join b on a.id = b.id join c on c.id = a.id where a.day < date '1995-03-15' + interval '1 month' and a.at > timestamp '2020-01-01 00:00:00' group by 1, 2",
    "select s.x, c.v from (select cast(a.id as varchar) || upper(\"Name\") as x, arrow_cast(a.k, 'Int8') as y, try_cast(\"Name\" as bigint) as z, b.k from a join b on a.id = b.id) s join c on c.k = s.k and s.y = c.k and s.z > 3",
    "select s.f, c.v from (select a.f / 3 as f, a.f = 'NaN' as nan, 1.5 as l, 0.1 + a.f as g, b.k from a join b on a.id = b.id where a.f > -0.0) s join c on c.k = s.k",
    "select a.id, e.id, c.v from a join events e on a.id = e.id and a.at between e.at - interval '1 hour' and e.at join c on c.id = a.id",
    "select a.id, b.v, c.v, d.price from a, b, c, d where a.id = b.id and c.id = d.id and a.k = c.k",
    "select a.id, c.v, b.v from a join c on a.id = c.id join b on b.id = a.id",
    "select x.id from (select a.id from a cross join b) x join c on c.id = x.id",
    "select a.id, b.v from a join b on a.k is not distinct from b.k join c on c.id = a.id",
    "select (select max(v) from b) as m, c.v, (select count(*) from a join b on a.id = b.id) as n from c",
    "select random() as r, a.id from a join b on a.id = b.id join c on c.id = a.id where random() < 0.5",
    "select first_value(s.id) ignore nulls over (order by s.id) as fv, c.v from (select a.id, last_value(b.v) ignore nulls over (partition by a.k order by a.id) as lv from a join b on a.id = b.id) s join c on c.id = s.id",
    "select s.p, c.v from (select k, approx_percentile_cont(0.5) within group (order by f) as p, var_pop(f) as q, bool_and(ok) as o, min(\"Name\") as m from a group by k) s join c on c.k = s.k",
];

#[tokio::test]
async fn what_is_sent_and_what_is_kept() {
    let world = World::new();
    let mut told = Vec::new();
    for sql in STATEMENTS {
        told.push(world.told(sql).await);
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

/// The share of subtrees that verify, by what is kept.
#[tokio::test]
async fn most_subtrees_verify() {
    let world = World::new();
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut sent = 0;
    for sql in STATEMENTS {
        for note in world.cut(sql).await.1 {
            match note.kept {
                None => sent += 1,
                Some(reason) => *kept.entry(reason).or_default() += 1,
            }
        }
    }
    let all = sent + kept.values().sum::<usize>();
    println!("{sent} of {all} verified; kept: {kept:#?}");
    assert!(sent * 10 >= all * 6, "{sent} of {all} verified; kept: {kept:#?}");
}

#[tokio::test]
async fn an_unknown_database_gets_what_all_understand() {
    let world = World::foreign();
    let mut told = Vec::new();
    for sql in [
        "select a.id, b.v, c.v from a join b on a.id = b.id join c on c.id = b.id where a.k > 3 and b.v in (1, 2)",
        "select a.id, b.v, c.v from a join b on a.id = b.id join c on c.id = b.id where b.note = 'x'",
        "select s.k, s.n, c.v from (select k, count(*) as n, count(price) as p, max(id) as m from a group by k) s join c on c.k = s.k where s.p > s.m",
        "select s.k, s.n, c.v from (select k, sum(price) as n from a group by k) s join c on c.k = s.k",
        "select s.n, c.v from (select \"Name\" as n, min(k) as k from a group by \"Name\") s join c on c.k = s.k",
        "select s.id, c.v from (select a.id from a left join b on a.id = b.id where a.ok) s join c on c.id = s.id",
        "select s.id, c.v from (select a.id from a left join b on a.id = b.id where b.v is null) s join c on c.id = s.id",
        "select s.id, c.v from (select id from a order by k desc, id limit 10) s join c on c.id = s.id",
        "select s.id, c.v from (select id from a order by \"Name\" limit 10) s join c on c.id = s.id",
        "select s.id, c.v from (select id from a where id in (select id from b)) s join c on c.id = s.id",
        "select s.id, c.v from (select id, k from a union all select id, k from b) s join c on c.id = s.id",
    ] {
        told.push(world.told(sql).await);
    }
    insta::assert_snapshot!(told.join("\n\n"));
}
