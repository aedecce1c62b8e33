//! The first load of a large table, beside a client that reads the same rows and keeps them.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::Ticket;
use futures::TryStreamExt;

use crate::Result;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::growing::{ROW_BYTES, name};
use crate::process::Process;
use crate::sidecar;
use crate::table::{Finding, Findings};
use crate::ways::Samples;

pub const ROWS: &[&str] = &["full-load", "growth-load"];

const ROUNDS: usize = 5;
const MANY: usize = 10_000_000;
const LOAD: &str = "load";
const TENTH: &str = "load of a tenth";
const READ: &str = "read";

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let rows = bench.scaled(MANY);
    let upstream = bench.upstream("--growing").await?;
    let address = upstream.address("flight")?;
    let mut seconds = Samples::default();
    for round in 0..=ROUNDS {
        let read = read(address, rows).await?;
        let whole = load(bench, address, rows).await?;
        let tenth = load(bench, address, rows / 10).await?;
        // The first one makes the upstream encode its tables.
        if round > 0 {
            seconds.add(READ, read);
            seconds.add(LOAD, whole);
            seconds.add(TENTH, tenth);
        }
    }
    upstream.stop().await?;
    let rate = |what| seconds.median(what).map_or(f64::NAN, |median| rows as f64 / median / 1e6);
    let rates = format!("{:.1} and {:.1} M rows/s of {ROW_BYTES} bytes", rate(READ), rate(LOAD));
    let shown = |one, other| seconds.pair(one, other).shown(1e3, 0, " ms");
    // Rows a second are as the times are, the other way round.
    let found = vec![
        Finding {
            row: "full-load",
            ratio: seconds.ratio(READ, LOAD),
            figures: format!("{}; {rates}", shown(READ, LOAD)),
        },
        Finding { row: "growth-load", ratio: seconds.ratio(LOAD, TENTH), figures: shown(LOAD, TENTH) },
    ];
    Ok(found.into())
}

/// Seconds of a plain DoGet whose batches stay in memory.
async fn read(address: &str, rows: usize) -> Result<f64> {
    let mut client = sidecar::client(address).await?;
    let begun = Instant::now();
    let sql = format!("SELECT * FROM {}", name(rows));
    let batches: Vec<RecordBatch> = client.do_get(Ticket::new(sql)).await?.try_collect().await?;
    let (took, found) =
        (begun.elapsed().as_secs_f64(), batches.iter().map(RecordBatch::num_rows).sum::<usize>());
    match found == rows {
        true => Ok(took),
        false => Err(format!("{found} rows instead of {rows}").into()),
    }
}

/// Seconds of the first load by a fresh sidecar, as it says itself: from the plan to the swap.
async fn load(bench: &Bench, address: &str, rows: usize) -> Result<f64> {
    let pod = dataset(address, &name(rows), "acceleration: {refresh_mode: full}");
    let sidecar = bench.sidecar(NO_CACHE, &pod).await?;
    let took = loaded(&sidecar).await;
    sidecar.stop().await?;
    took
}

async fn loaded(sidecar: &Process) -> Result<f64> {
    let text = reqwest::get(format!("http://{}/metrics", sidecar.address("metrics")?)).await?.text().await?;
    let metric = "dataset_acceleration_refresh_duration_ms_sum{";
    let line = text.lines().find(|line| line.starts_with(metric)).ok_or("no load in the metrics")?;
    Ok(line.rsplit(' ').next().ok_or("a metric without a value")?.parse::<f64>()? / 1e3)
}
