//! Append streams: how long a row takes from its emission upstream until a query sees it, how many rows a second that
//! goes on with, and what memory it takes.
//!
//! Two processes on one machine: this client, which is the upstream as well, and the real binary that follows it.
//! `bench/README.md` tells how to read the table.

mod memory;
mod process;
mod publisher;
mod report;
mod sidecar;

use std::error::Error;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::FlightClient;

use process::Process;
use publisher::{NAME, Publisher, ROW_BYTES, rows};
use report::{Section, Spread};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const ROUNDS: usize = 5;
const EMISSIONS: usize = 1_000;
/// Rows of a round in which as many arrive as can, before `--scale` divides them.
const BURST_ROWS: i64 = 2_000_000;
/// Rows a second while memory is watched.
const STEADY_ROWS: i64 = 5_000;
const STEADY_EVERY: Duration = Duration::from_millis(100);
/// How long memory is watched where `--seconds` does not say. Ten minutes are the long form.
const SECONDS: u64 = 20;
const VISIBLE_WITHIN: Duration = Duration::from_secs(120);

struct Options {
    write: bool,
    scale: i64,
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    match options()? {
        Some(options) => measure(&options).await,
        None => {
            println!("streams: measures only under `cargo bench`");
            Ok(())
        }
    }
}

/// `cargo bench` adds `--bench`; a plain `cargo test --all-targets` does not, and is not kept waiting.
fn options() -> Result<Option<Options>> {
    let (mut bench, mut options) = (false, Options { write: false, scale: 1, seconds: SECONDS });
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().ok_or(format!("{argument} needs a number"));
        match argument.as_str() {
            "--bench" => bench = true,
            "--write" => options.write = true,
            "--scale" => options.scale = number()?.parse::<i64>()?.max(1),
            "--seconds" => options.seconds = number()?.parse()?,
            other => {
                return Err(
                    format!("unknown argument {other}: --write, --scale and --seconds are known").into()
                );
            }
        }
    }
    Ok(bench.then_some(options))
}

async fn measure(options: &Options) -> Result<()> {
    let mut lines = latencies(EMISSIONS / usize::try_from(options.scale)?.clamp(1, EMISSIONS)).await?;
    lines.push(bursts((BURST_ROWS / options.scale).max(1)).await?);
    lines.push(steady(options.seconds).await?);
    let section = Section {
        title: "Append streams",
        measured: format!(
            "{EMISSIONS} single rows, {ROUNDS} bursts, {} s of {STEADY_ROWS} rows a second",
            options.seconds
        ),
        columns: &["what", "figure", "beside", "ratio"],
        lines,
    };
    report::publish(&section, options.write)
}

/// An upstream and a sidecar that follows it.
struct Pair {
    upstream: Publisher,
    sidecar: Process,
    client: FlightClient,
    /// Rows that were emitted.
    emitted: i64,
    _directory: tempfile::TempDir,
}

impl Pair {
    async fn start() -> Result<Self> {
        let upstream = Publisher::start().await?;
        let directory = tempfile::tempdir()?;
        // What is measured is the work, not its repetition.
        let runtime = "runtime:\n  caching:\n    sql_results: {enabled: false}\n";
        let pod = format!(
            "version: v1\nkind: Spicepod\nname: bench\n{runtime}datasets:\n  - from: spice.ai:http://{}\n    name: {NAME}\n    \
             acceleration: {{refresh_mode: append}}\n",
            upstream.address
        );
        std::fs::write(directory.path().join("spicepod.yaml"), pod)?;
        let sidecar = sidecar::start(directory.path()).await?;
        let client = sidecar::client(sidecar.address("flight")?).await?;
        Ok(Self { upstream, sidecar, client, emitted: 0, _directory: directory })
    }

    /// Emits so many rows and returns when a query sees them; the time that took.
    async fn emit(&mut self, count: i64) -> Result<Duration> {
        let batches = rows(self.emitted..self.emitted + count)?;
        let begun = Instant::now();
        self.upstream.emit(batches).await?;
        self.emitted += count;
        while visible(&mut self.client).await? < self.emitted {
            if begun.elapsed() > VISIBLE_WITHIN {
                return Err(format!("{count} rows are not visible after {VISIBLE_WITHIN:?}").into());
            }
        }
        Ok(begun.elapsed())
    }

    /// Resident memory of the sidecar, in bytes.
    fn resident(&self) -> Result<u64> {
        Ok(memory::of(self.sidecar.id()?, "VmRSS")? as u64)
    }
}

/// How many rows a query sees.
async fn visible(client: &mut FlightClient) -> Result<i64> {
    let mut rows = None;
    sidecar::ask(client, &format!("SELECT count(*) FROM {NAME}"), |batch| {
        rows = (batch.num_rows() == 1).then(|| batch.column(0).as_primitive::<Int64Type>().value(0));
    })
    .await?;
    rows.ok_or_else(|| "no count was answered".into())
}

/// Single rows, each emitted when the one before is visible. Beside: the query alone, which is a part of it.
async fn latencies(emissions: usize) -> Result<Vec<Vec<String>>> {
    let mut pair = Pair::start().await?;
    let (mut seen, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..emissions {
        seen.push(pair.emit(1).await?.as_secs_f64());
        let begun = Instant::now();
        visible(&mut pair.client).await?;
        asked.push(begun.elapsed().as_secs_f64());
    }
    pair.sidecar.stop().await?;
    let lines = [("p50", 50), ("p99", 99)].map(|(name, percent)| {
        let (seen, asked) = (percentile(&mut seen, percent), percentile(&mut asked, percent));
        vec![
            format!("emission of a row to its first sight by a query, {name} ÷ the query alone"),
            format!("{:.2} ms", seen * 1e3),
            format!("{:.2} ms", asked * 1e3),
            format!("{:.2}", seen / asked),
        ]
    });
    Ok(lines.into())
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// As many rows at once as a stream carries. Beside: a plain DoGet of the same rows from the same upstream, decoded and
/// thrown away.
async fn bursts(count: i64) -> Result<Vec<String>> {
    let (mut streamed, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // A pair of its own, so that each burst meets an empty table.
        let mut pair = Pair::start().await?;
        streamed.push(pair.emit(count).await?.as_secs_f64());
        let mut client = sidecar::client(&pair.upstream.address).await?;
        let (begun, mut found) = (Instant::now(), 0);
        sidecar::ask(&mut client, &format!("SELECT * FROM {NAME}"), |batch| found += batch.num_rows())
            .await?;
        plain.push(begun.elapsed().as_secs_f64());
        if i64::try_from(found)? != count {
            return Err(format!("{found} rows instead of {count}").into());
        }
        pair.sidecar.stop().await?;
    }
    let rate = |seconds: &Spread| count as f64 / seconds.median / 1e6;
    let ratios: Vec<f64> = plain.iter().zip(&streamed).map(|(plain, streamed)| plain / streamed).collect();
    let (streamed, plain) = (Spread::of(streamed.into_iter()), Spread::of(plain.into_iter()));
    Ok(vec![
        format!("rows a second of {count} rows, emission to sight ÷ a plain read"),
        format!("{}, {:.1} M rows/s", streamed.shown(1e3, 0, " ms"), rate(&streamed)),
        format!("{}, {:.1} M rows/s", plain.shown(1e3, 0, " ms"), rate(&plain)),
        Spread::of(ratios.into_iter()).shown(1.0, 2, ""),
    ])
}

/// A steady stream: what the sidecar's memory grew by, between a fifth of the time and its end. Beside: the rows that
/// came meanwhile.
async fn steady(seconds: u64) -> Result<Vec<String>> {
    let mut pair = Pair::start().await?;
    let steps = seconds.max(1) * 10;
    let mut early = (0, 0);
    let mut ticks = tokio::time::interval(STEADY_EVERY);
    for step in 0..steps {
        ticks.tick().await;
        pair.emit(STEADY_ROWS / 10).await?;
        if step == steps / 5 {
            early = (pair.resident()?, pair.emitted);
        }
    }
    let grown = pair.resident()?.saturating_sub(early.0) as f64;
    let rows = (pair.emitted - early.1) as f64 * ROW_BYTES as f64;
    pair.sidecar.stop().await?;
    Ok(vec![
        format!("growth of memory in {seconds} s of {STEADY_ROWS} rows a second ÷ those rows"),
        format!("{:.1} MB", grown / 1e6),
        format!("{:.1} MB", rows / 1e6),
        format!("{:.2}", grown / rows),
    ])
}
