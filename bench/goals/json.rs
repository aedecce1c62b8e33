//! A million rows as JSON over HTTP, beside arrow-json that writes the same rows into memory.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::json::ArrayWriter;
use arrow_flight::Ticket;
use futures::TryStreamExt;

use crate::Result;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::growing::name;
use crate::report::Spread;
use crate::sidecar;
use crate::table::{Finding, Findings};
use crate::ways::{Samples, ratio};

pub const ROWS: &[&str] = &["http-json", GROWTH];
const GROWTH: &str = "growth-json";

const ROUNDS: usize = 7;
const MANY: usize = 1_000_000;
const HTTP: &str = "over HTTP";
const WRITER: &str = "arrow-json";

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let rows = bench.scaled(MANY);
    let upstream = bench.upstream("--growing").await?;
    let address = upstream.address("flight")?;
    let pod = [rows, rows / 10].map(|rows| dataset(address, &name(rows), "acceleration: {enabled: true}"));
    let sidecar = bench.sidecar(NO_CACHE, &pod.concat()).await?;
    upstream.stop().await?;
    let mut flight = sidecar::client(sidecar.address("flight")?).await?;
    let sql = format!("SELECT * FROM {}", name(rows));
    let batches: Vec<RecordBatch> = flight.do_get(Ticket::new(sql)).await?.try_collect().await?;
    let url = format!("http://{}/v1/sql", sidecar.address("http")?);
    let client = reqwest::Client::builder().no_proxy().build()?;

    let (mut rates, mut of_all, mut of_tenth) = (Samples::default(), Vec::new(), Vec::new());
    let mut buffer = Vec::new();
    let mut sizes = [0, 0];
    for round in 0..=ROUNDS {
        let (seconds, bytes) = fetched(&client, &url, rows).await?;
        let (tenth, _) = fetched(&client, &url, rows / 10).await?;
        let (writing, written) = written(&batches, &mut buffer)?;
        sizes = [bytes, written];
        if round > 0 {
            rates.add(HTTP, bytes as f64 / seconds / 1e6);
            rates.add(WRITER, written as f64 / writing / 1e6);
            of_all.push(seconds);
            of_tenth.push(tenth);
        }
    }
    sidecar.stop().await?;
    let growth = ratio(&of_all, &of_tenth);
    let [all, tenth] = [of_all, of_tenth].map(|times| Spread::of(times.into_iter()).shown(1e3, 0, " ms"));
    let [http, writer] = sizes.map(|bytes| format!("{:.1} MB", bytes as f64 / 1e6));
    let figures = format!("{}; MB/s of {http} and {writer}", rates.shown(1.0, 0, ""));
    let found = vec![
        Finding { row: "http-json", ratio: rates.ratio(HTTP, WRITER), figures },
        Finding { row: GROWTH, ratio: Some(growth), figures: format!("{all} ÷ {tenth}") },
    ];
    Ok(found.into())
}

/// Seconds and bytes of an answer, read to its end and thrown away.
async fn fetched(client: &reqwest::Client, url: &str, rows: usize) -> Result<(f64, usize)> {
    let begun = Instant::now();
    let request = client.post(url).header("accept", "application/json");
    let request = request.body(format!("SELECT * FROM {}", name(rows)));
    let (mut answer, mut bytes) = (request.send().await?.error_for_status()?, 0);
    while let Some(chunk) = answer.chunk().await? {
        bytes += chunk.len();
    }
    Ok((begun.elapsed().as_secs_f64(), bytes))
}

/// Seconds and bytes of the writer, into a buffer that has its size already.
fn written(batches: &[RecordBatch], buffer: &mut Vec<u8>) -> Result<(f64, usize)> {
    buffer.clear();
    let begun = Instant::now();
    let mut writer = ArrayWriter::new(&mut *buffer);
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    Ok((begun.elapsed().as_secs_f64(), buffer.len()))
}
