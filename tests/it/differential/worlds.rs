//! The tiers: sidecars' engines over the same tables, laid out in every way that answers a statement
//! differently, and the reference that each is held against.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use sidewing::app::Plan;
use sidewing::config::{self, SourceFile};
use sidewing::federation::State;
use sidewing::query::{Engine, Options, Request};
use sidewing::task::Scope;

use super::data;
use super::generator::{CATEGORY_COUNT, Statement};
use crate::support::client::difference;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const VIEWS: &str = "views:\n  - name: rich\n    sql: select id, k, price from t where price > 1\n  - name: \
                     richer\n    sql: select k, sum(price) as total from rich group by k\n";

/// More partitions than the reference's one, and the same number on every machine.
const RUNTIME: &str = "runtime:\n  query: {target_partitions: 3}\n";

/// Nothing here takes this long; a query that hangs must not hide which one it was.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Schema and rows, or what was said instead.
pub type Outcome = Result<(SchemaRef, Vec<RecordBatch>), String>;

/// The tables that live on the first of two upstreams; the rest is on the second.
const SPLITS: [(&str, &[&str]); 3] = [
    ("two upstreams, t apart", &["t", "sales.orders", "big"]),
    ("two upstreams, big apart", &["t", "u", "sales.orders", "crm.orders"]),
    ("two upstreams, orders apart", &["sales.orders", "u", "keys"]),
];

/// The tier of an upstream that may be any database.
const PLAIN: &str = "an unknown database";

/// What each table is called on the upstream of the renamed tier, where other tables have those names.
const RENAMED: [(&str, &str); 6] = [
    ("t", "raw.facts"),
    ("u", "orders"),
    ("sales.orders", "\"Odd Name\""),
    ("crm.orders", "u"),
    ("big", "t"),
    ("keys", "raw.\"Keys\""),
];

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
    for (name, batches) in data::tables() {
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

async fn ask(context: &SessionContext, sql: &str) -> Outcome {
    let stream = context.sql(sql).await.map_err(|e| e.to_string())?;
    let stream = stream.execute_stream().await.map_err(|e| e.to_string())?;
    let schema = stream.schema();
    let batches = stream.try_collect().await.map_err(|e| e.to_string())?;
    Ok((schema, batches))
}

/// The sidecar's engine over datasets, in this process.
struct World {
    engine: Engine,
    /// Keeps datasets and connections alive.
    _kept: (Scope, Plan),
}

impl World {
    /// `runtime` is further YAML, below `runtime:`.
    async fn new(datasets: &[Dataset], runtime: &str) -> Self {
        let text = spicepod(datasets, &format!("{VIEWS}{RUNTIME}{runtime}"));
        let source = SourceFile { path: PathBuf::from("spicepod.yaml"), text };
        let plan = Plan::try_new(config::parse(source).map_err(|e| e.to_string()).unwrap()).await;
        let plan = plan.map_err(|e| e.to_string()).unwrap();
        let scope = Scope::new();
        plan.federation.start(&scope, &scope, 4);
        plan.acceleration.start(&scope, 4, |_| true);
        for _ in 0..1_000 {
            if plan.federation.status().iter().all(|status| matches!(status.state, State::Ready { .. })) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let engine =
            Engine::new(plan.federation.clone(), Options::default()).accelerated(plan.acceleration.clone());
        Self { engine, _kept: (scope, plan) }
    }

    async fn ask(&self, request: Request) -> Outcome {
        let answer = self.engine.run(request).await.map_err(|e| e.to_string())?;
        let schema = Arc::clone(&answer.schema);
        let batches = answer.into_batches().try_collect().await.map_err(|e| e.to_string())?;
        Ok((schema, batches))
    }

    /// The rows of an EXPLAIN: kind and text.
    async fn explain(&self, request: &Request, verb: &str) -> Result<Vec<(String, String)>, String> {
        let sql = format!("{verb} {}", request.sql);
        let (_, batches) = self.ask(Request { sql, ..request.clone() }).await?;
        let column = |batch: &RecordBatch, at: usize| -> Vec<String> {
            let texts = arrow::compute::cast(batch.column(at), &DataType::Utf8).unwrap();
            let texts = texts.as_any().downcast_ref::<StringArray>().unwrap().clone();
            (0..texts.len()).map(|row| texts.value(row).to_owned()).collect()
        };
        let rows = batches.iter().flat_map(|batch| column(batch, 0).into_iter().zip(column(batch, 1)));
        Ok(rows.collect())
    }
}

/// An answer that is not the reference's.
pub struct Disagreement {
    pub tier: &'static str,
    /// Both answers.
    pub what: String,
    /// The statements that upstreams ran for it.
    pub sent: Vec<String>,
}

/// How one statement went.
#[derive(Default)]
pub struct Verdict {
    pub reference_error: Option<String>,
    pub is_empty: bool,
    pub is_forwarded: bool,
    /// The lines of EXPLAIN that say what became of each sub-plan.
    pub sub_plans: Vec<String>,
    pub disagreements: Vec<Disagreement>,
}

/// The tiers, each with the upstreams that it needs.
pub struct Tiers {
    reference: SessionContext,
    worlds: Vec<(&'static str, World)>,
    /// One of these is asked, by the statement's seed.
    splits: Vec<(&'static str, World)>,
    upstreams: [Upstream; 3],
}

impl Tiers {
    pub async fn new() -> Self {
        let first = Upstream::builder().tables(data::tables()).start().await;
        let second = Upstream::builder().tables(data::tables()).start().await;
        let renamed = RENAMED.map(|(name, remote)| (remote, data::table(name)));
        let odd = Upstream::builder().tables(renamed).start().await;
        let on = |home: &dyn Fn(&str) -> Dataset| data::tables().iter().map(|(name, _)| home(name)).collect();
        let datasets: [(&str, Vec<Dataset>, &str); 5] = [
            ("same names", on(&|name| Dataset::of(name, &first).table(name)), ""),
            ("renamed", RENAMED.map(|(name, remote)| Dataset::of(name, &odd).table(remote)).into(), ""),
            (PLAIN, on(&|name| Dataset::flightsql(name, name, &first)), ""),
            (
                "push-down off",
                on(&|name| Dataset::of(name, &first).table(name)),
                "  params: {push_down: off}\n",
            ),
            (
                "one accelerated",
                on(&|name| match name {
                    "t" => Dataset::of(name, &first).table(name).accelerated(""),
                    _ => Dataset::of(name, &first).table(name),
                }),
                "",
            ),
        ];
        let mut worlds = Vec::new();
        for (tier, datasets, runtime) in datasets {
            worlds.push((tier, World::new(&datasets, runtime).await));
        }
        let mut splits = Vec::new();
        for (tier, at_first) in SPLITS {
            let home = |name: &str| {
                let remote = RENAMED.into_iter().find(|(known, _)| *known == name).unwrap().1;
                match at_first.contains(&name) {
                    true => Dataset::of(name, &odd).table(remote),
                    false => Dataset::of(name, &second).table(name),
                }
            };
            splits.push((tier, World::new(&on(&home), "").await));
        }
        Self { reference: reference().await, worlds, splits, upstreams: [first, second, odd] }
    }

    /// Asks every tier.
    pub async fn check(&self, statement: &Statement) -> Verdict {
        let expected = ask(&self.reference, &statement.plain).await;
        let mut verdict = Verdict::default();
        match &expected {
            Ok((_, batches)) => verdict.is_empty = batches.iter().all(|batch| batch.num_rows() == 0),
            Err(error) => verdict.reference_error = Some(error.clone()),
        }
        let split = &self.splits[statement.seed as usize % self.splits.len()];
        // The schema that is promised is asked of one tier; each has its turn with each category.
        let promising = (statement.seed / CATEGORY_COUNT) as usize % (self.worlds.len() + 1);
        // Mere scans are asked everywhere without push-down; of an unknown database by turns.
        let is_left_out = promising.is_multiple_of(2);
        for (at, (tier, world)) in self.worlds.iter().chain([split]).enumerate() {
            if is_left_out && *tier == PLAIN {
                continue;
            }
            self.clear();
            let asked = self.ask(world, statement, &expected, at == promising);
            let asked = tokio::time::timeout(ANSWER_MAX, asked).await;
            if let Err(what) = asked.unwrap_or_else(|_| Err("hangs".to_owned())) {
                verdict.disagreements.push(Disagreement { tier, what, sent: self.sent() });
            }
        }
        self.explain(statement, &split.1, &mut verdict).await;
        verdict
    }

    async fn ask(
        &self,
        world: &World,
        statement: &Statement,
        expected: &Outcome,
        has_promised: bool,
    ) -> Result<(), String> {
        // A schema that is asked for before the answer cannot be one remembered from it.
        let promised = match has_promised {
            true => Some(world.engine.schema(statement.request()).await.map_err(|error| error.to_string())),
            false => None,
        };
        let answer = world.ask(statement.request()).await;
        agree(&answer, expected, statement)?;
        match (promised, answer) {
            (Some(promised), Ok((schema, _))) => kept(promised, &schema),
            _ => Ok(()),
        }
    }

    async fn explain(&self, statement: &Statement, split: &World, verdict: &mut Verdict) {
        let has = |rows: &[(String, String)], word: &str| rows.iter().any(|(_, text)| text.starts_with(word));
        let renamed = self.worlds[1].1.explain(&statement.request(), "EXPLAIN").await;
        verdict.is_forwarded = renamed.is_ok_and(|rows| has(&rows, "forwarded: "));
        let rows = split.explain(&statement.request(), "EXPLAIN").await.unwrap_or_default();
        let said = rows.iter().filter(|(kind, _)| kind == "push_down");
        verdict.sub_plans = said.flat_map(|(_, text)| text.lines().map(str::to_owned)).collect();
    }

    /// `EXPLAIN ANALYZE` of a statement in every world: the first row's text, or the error.
    pub async fn analyze(&self, statement: &Statement) -> Vec<(&'static str, Result<String, String>)> {
        let mut told = Vec::new();
        for (tier, world) in self.worlds.iter().chain(&self.splits) {
            let rows = world.explain(&statement.request(), "EXPLAIN ANALYZE").await;
            told.push((
                *tier,
                rows.map(|rows| rows.first().map(|(_, text)| text.clone()).unwrap_or_default()),
            ));
        }
        told
    }

    fn clear(&self) {
        self.upstreams.iter().for_each(Upstream::clear);
    }

    fn sent(&self) -> Vec<String> {
        self.upstreams.iter().flat_map(Upstream::statements).collect()
    }
}

/// The schema promised for a statement must be the answer's, layout and all.
fn kept(promised: Result<SchemaRef, String>, answered: &SchemaRef) -> Result<(), String> {
    let exact = |schema: &SchemaRef| -> Vec<(String, DataType)> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    match promised {
        Ok(promised) if exact(&promised) == exact(answered) => Ok(()),
        Ok(promised) => Err(format!("promised {:?}\nanswered {:?}", exact(&promised), exact(answered))),
        Err(error) => Err(format!("answered, but no schema is promised: {error}")),
    }
}

/// Types without their layout.
fn plain(kind: &DataType) -> DataType {
    let inner = |field: &Field| Arc::new(Field::new(field.name(), plain(field.data_type()), true));
    match kind {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain(values),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| inner(field)).collect()),
        other => other.clone(),
    }
}

fn columns(schema: &SchemaRef) -> Vec<(String, DataType)> {
    schema.fields().iter().map(|field| (field.name().clone(), plain(field.data_type()))).collect()
}

fn agree(answer: &Outcome, expected: &Outcome, statement: &Statement) -> Result<(), String> {
    let (answer, expected) = match (answer, expected) {
        (Ok(answer), Ok(expected)) => (answer, expected),
        (Err(_), Err(_)) => return Ok(()),
        (Err(error), Ok(_)) => return Err(format!("failed: {error}")),
        (Ok(_), Err(error)) => return Err(format!("answered, but the reference fails: {error}")),
    };
    let (columns, expected_columns) = (columns(&answer.0), columns(&expected.0));
    if columns != expected_columns {
        return Err(format!("columns {columns:?}\nexpected {expected_columns:?}"));
    }
    difference(&answer.1, &expected.1, statement.order).map_or(Ok(()), Err)
}
