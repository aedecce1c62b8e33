//! The 22 TPC-H queries over the same rows in three engines: sidewing over Flight, DuckDB and plain DataFusion
//! in-process. All take turns, query by query.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::{FlightClient, Ticket};
use datafusion::catalog::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use sidewing::cli::demo::tpch::{self as data, TABLES, Table};

use crate::Result;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::duck::Duck;
use crate::peers::cores;
use crate::process::Process;
use crate::report::Spread;
use crate::rows::{TPCH_DATAFUSION, TPCH_DUCKDB};
use crate::served::Served;
use crate::sidecar;
use crate::table::{Details, Finding, Findings};
use crate::ways::{SIDEWING, Samples, figures, ratio};

#[expect(dead_code, clippy::expect_used, reason = "only the texts are asked for, not the tests' data")]
#[path = "../../tests/it/support/tpch.rs"]
mod texts;

pub const ROWS: &[&str] = &[TPCH_DUCKDB, TPCH_DATAFUSION, GROWTH];
const GROWTH: &str = "growth-tpch";

/// Rounds that count; one more runs first and does not.
const ROUNDS: usize = 5;
const DUCKDB: &str = "DuckDB";
const DATAFUSION: &str = "DataFusion";
/// TPC-H's factor: 6 million line items.
const SCALE: f64 = 1.0;

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let scale = SCALE / bench.options.scale as f64;
    let peers = bench.wants(TPCH_DUCKDB) || bench.wants(TPCH_DATAFUSION);
    let mut scene = Scene::start(bench, scale, peers).await?;
    let mut findings = Findings::default();
    if peers {
        let rounds = scene.rounds().await?;
        findings.rows = rounds.findings(scene.missing.as_slice());
        findings.details = Some(rounds.details());
    }
    if bench.wants(GROWTH) {
        let mut tenth = Scene::start(bench, scale / 10.0, false).await?;
        findings.rows.push(growth(&mut scene, &mut tenth).await?);
        tenth.stop().await?;
    }
    scene.stop().await?;
    Ok(findings)
}

/// All engines with their rows.
struct Scene {
    sidecar: Process,
    client: FlightClient,
    datafusion: Option<SessionContext>,
    duck: Option<Duck>,
    missing: Vec<String>,
}

impl Scene {
    async fn start(bench: &Bench, scale: f64, peers: bool) -> Result<Self> {
        let tables = data::tables(scale)?;
        let served = Served::start(&tables).await?;
        let pod: String = TABLES
            .iter()
            .map(|name| dataset(&served.address, name, "acceleration: {enabled: true}"))
            .collect();
        let sidecar = bench.sidecar(NO_CACHE, &pod).await?;
        let client = sidecar::client(sidecar.address("flight")?).await?;
        let mut scene = Self { sidecar, client, datafusion: None, duck: None, missing: Vec::new() };
        if peers {
            match duck(bench, &served.address).await {
                Ok(duck) => scene.duck = Some(duck),
                Err(why) => scene.missing.push(format!("{DUCKDB}: missing, {why}")),
            }
            scene.datafusion = Some(plain(tables)?);
        }
        Ok(scene)
    }

    /// All queries on all engines, round by round; every engine must answer as many rows as the others.
    async fn rounds(&mut self) -> Result<Rounds> {
        let mut rounds = Rounds::new();
        for round in 0..=ROUNDS {
            for ((number, samples), (_, sql)) in rounds.0.iter_mut().zip(texts::queries()) {
                let mut answers = vec![(SIDEWING, asked(&mut self.client, sql).await?)];
                if let Some(datafusion) = &self.datafusion {
                    answers.push((DATAFUSION, planned(datafusion, sql).await?));
                }
                if let Some(duck) = &mut self.duck {
                    answers.push((DUCKDB, duck.run(sql).await?));
                }
                let rows = answers[0].1.1;
                if let Some((name, (_, other))) = answers.iter().find(|(_, (_, other))| *other != rows) {
                    return Err(format!("Q{number}: {rows} rows from sidewing, {other} from {name}").into());
                }
                if round > 0 {
                    answers.into_iter().for_each(|(name, (seconds, _))| samples.add(name, seconds));
                }
            }
        }
        Ok(rounds)
    }

    async fn stop(self) -> Result<()> {
        if let Some(duck) = self.duck {
            duck.stop().await?;
        }
        self.sidecar.stop().await
    }
}

async fn duck(bench: &Bench, upstream: &str) -> Result<Duck> {
    let tool = bench.peers.duckdb().await?;
    Duck::start(tool, &bench.home()?, upstream, &TABLES).await
}

/// What DataFusion does when nobody tells it more: as many partitions as it has threads, its own settings.
fn plain(tables: Vec<Table>) -> Result<SessionContext> {
    let context = SessionContext::new();
    for (name, schema, batches) in tables {
        let part = batches.len().div_ceil(cores()).max(1);
        let partitions: Vec<Vec<RecordBatch>> = batches.chunks(part).map(<[_]>::to_vec).collect();
        context.register_table(name, Arc::new(MemTable::try_new(schema, partitions)?))?;
    }
    Ok(context)
}

/// Seconds and rows of a statement by DoGet, decoded.
async fn asked(client: &mut FlightClient, sql: &str) -> Result<(f64, usize)> {
    let begun = Instant::now();
    let batches: Vec<RecordBatch> = client.do_get(Ticket::new(sql.to_owned())).await?.try_collect().await?;
    Ok((begun.elapsed().as_secs_f64(), count(&batches)))
}

/// The same of plain DataFusion.
async fn planned(context: &SessionContext, sql: &str) -> Result<(f64, usize)> {
    let begun = Instant::now();
    let batches = context.sql(sql).await?.collect().await?;
    Ok((begun.elapsed().as_secs_f64(), count(&batches)))
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Seconds of each query, in their order.
struct Rounds(Vec<(usize, Samples)>);

impl Rounds {
    fn new() -> Self {
        Self(texts::queries().map(|(number, _)| (number, Samples::default())).collect())
    }

    /// All queries together.
    fn totals(&self) -> Samples {
        let mut totals = Samples::default();
        for engine in [SIDEWING, DUCKDB, DATAFUSION] {
            for round in 0..ROUNDS {
                let each = self.0.iter().filter_map(|(_, samples)| samples.of(engine)?.get(round));
                if let Some(total) = each.copied().reduce(|one, other| one + other) {
                    totals.add(engine, total);
                }
            }
        }
        totals
    }

    fn findings(&self, missing: &[String]) -> Vec<Finding> {
        let totals = self.totals();
        let shown = figures(totals.shown(1e3, 0, " ms"), missing);
        let row = |row, peer| Finding { row, ratio: totals.ratio(SIDEWING, peer), figures: shown.clone() };
        vec![row(TPCH_DUCKDB, DUCKDB), row(TPCH_DATAFUSION, DATAFUSION)]
    }

    fn details(&self) -> Details {
        let lines = self.0.iter().map(|(number, samples)| {
            let median = |engine| samples.median(engine);
            let time = |engine| median(engine).map_or("–".to_owned(), |time| format!("{:.1}", time * 1e3));
            let part = |engine| match (median(SIDEWING), median(engine)) {
                (Some(sidewing), Some(other)) => format!("{:.2}", sidewing / other),
                _ => "–".to_owned(),
            };
            vec![
                format!("Q{number}"),
                time(SIDEWING),
                time(DUCKDB),
                time(DATAFUSION),
                part(DUCKDB),
                part(DATAFUSION),
            ]
        });
        Details {
            title: "Goals: the TPC-H queries one by one",
            columns: &["query", "sidewing ms", "DuckDB ms", "DataFusion ms", "÷ DuckDB", "÷ DataFusion"],
            lines: lines.collect(),
        }
    }
}

/// Sidewing alone over all rows and over a tenth of them.
async fn growth(large: &mut Scene, small: &mut Scene) -> Result<Finding> {
    let (mut of_large, mut of_small) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (scene, totals) in [(&mut *large, &mut of_large), (&mut *small, &mut of_small)] {
            let mut total = 0.0;
            for (_, sql) in texts::queries() {
                total += asked(&mut scene.client, sql).await?.0;
            }
            if round > 0 {
                totals.push(total);
            }
        }
    }
    let growth = ratio(&of_large, &of_small);
    let [large, small] = [of_large, of_small].map(|times| Spread::of(times.into_iter()).shown(1e3, 0, " ms"));
    Ok(Finding { row: GROWTH, ratio: Some(growth), figures: format!("{large} ÷ {small}") })
}
