//! Federated reads, through the sidecar ÷ direct: one row, and 100 MB.
//!
//! Three processes on one machine: this client, the real binary as the sidecar, and an upstream that
//! serves frames encoded beforehand. What is measured is GetFlightInfo and DoGet until the last batch
//! is decoded. `bench/README.md` tells how to read the table.

mod fixed;
mod process;
mod report;
mod sidecar;
mod upstream;

use std::error::Error;
use std::time::{Duration, Instant};

use arrow_flight::FlightClient;

use fixed::{Fixed, Table};
use process::Process;
use report::{Section, Spread};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Rounds that count; one more runs first and does not.
const ROUNDS: usize = 7;

/// What one row of the table asks.
struct Case {
    name: &'static str,
    table: Table,
    /// Reads in a round, one after the other; the round's time is divided by it.
    reads: u32,
}

const CASES: [Case; 2] = [
    Case { name: "one row", table: Table::OneRow, reads: 200 },
    Case { name: "100 MB", table: Table::HundredMegabytes, reads: 1 },
];

/// What the arguments ask for.
enum Mode {
    Upstream,
    Measure { write: bool },
    Nothing,
}

#[tokio::main]
async fn main() -> Result<()> {
    match mode()? {
        Mode::Upstream => upstream::serve(Fixed::new().await?).await,
        Mode::Measure { write } => measure(write).await,
        Mode::Nothing => {
            println!("federated: measures only under `cargo bench`");
            Ok(())
        }
    }
}

/// `cargo bench` adds `--bench`; a plain `cargo test --all-targets` does not, and is not kept waiting.
fn mode() -> Result<Mode> {
    let (mut bench, mut write) = (false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--upstream" => return Ok(Mode::Upstream),
            "--bench" => bench = true,
            "--write" => write = true,
            other => return Err(format!("unknown argument {other}: only --write is known").into()),
        }
    }
    Ok(if bench { Mode::Measure { write } } else { Mode::Nothing })
}

async fn measure(write: bool) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let upstream = Process::start(&program, &["--upstream"], directory.path(), "flight").await?;
    let direct_address = upstream.address("flight")?;
    std::fs::write(directory.path().join("spicepod.yaml"), spicepod(direct_address))?;
    let sidecar = sidecar::start(directory.path()).await?;

    let mut direct = sidecar::client(direct_address).await?;
    let mut through = sidecar::client(sidecar.address("flight")?).await?;
    let mut lines = Vec::new();
    for case in &CASES {
        let samples = compare(case, &mut direct, &mut through).await?;
        lines.push(line(case, &samples));
    }
    let section = Section {
        title: "Federated reads, through the sidecar ÷ direct",
        measured: format!("Median of {ROUNDS} rounds, in brackets the least and the most"),
        columns: &["read", "direct", "through", "through ÷ direct"],
        lines,
    };
    report::publish(&section, write)?;
    sidecar.stop().await?;
    upstream.stop().await
}

fn spicepod(upstream: &str) -> String {
    let mut text = String::from("version: v1\nkind: Spicepod\nname: bench\ndatasets:\n");
    for case in &CASES {
        let table = case.table.name();
        text.push_str(&format!("  - from: spice.ai:http://{upstream}/{table}\n    name: {table}\n"));
    }
    text
}

/// One round, both ways: the time of one read.
struct Sample {
    direct: Duration,
    through: Duration,
}

/// Rounds of both ways in turn, so that what the machine does besides hits both alike.
async fn compare(case: &Case, direct: &mut FlightClient, through: &mut FlightClient) -> Result<Vec<Sample>> {
    round(case, direct).await?;
    round(case, through).await?;
    let mut samples = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let direct = round(case, direct).await?;
        let through = round(case, through).await?;
        samples.push(Sample { direct, through });
    }
    Ok(samples)
}

/// The time of one read, the mean of a round.
async fn round(case: &Case, client: &mut FlightClient) -> Result<Duration> {
    let started = Instant::now();
    for _ in 0..case.reads {
        let rows = read(case.table, client).await?;
        if rows != case.table.rows() {
            return Err(format!("{}: {rows} rows instead of {}", case.name, case.table.rows()).into());
        }
    }
    Ok(started.elapsed() / case.reads)
}

/// Runs `SELECT *` over the table and counts the rows that arrive.
async fn read(table: Table, client: &mut FlightClient) -> Result<usize> {
    let mut rows = 0;
    sidecar::ask(client, &format!("SELECT * FROM {}", table.name()), |batch| rows += batch.num_rows())
        .await?;
    Ok(rows)
}

fn line(case: &Case, samples: &[Sample]) -> Vec<String> {
    let direct = Spread::of(samples.iter().map(|sample| sample.direct.as_secs_f64()));
    let through = Spread::of(samples.iter().map(|sample| sample.through.as_secs_f64()));
    let ratio = Spread::of(samples.iter().map(|s| s.through.as_secs_f64() / s.direct.as_secs_f64()));
    let bytes = case.table.bytes();
    vec![case.name.to_owned(), time(&direct, bytes), time(&through, bytes), ratio.shown(1.0, 2, "")]
}

/// Milliseconds, and the rate where there is enough to speak of one.
fn time(spread: &Spread, bytes: usize) -> String {
    let text = spread.shown(1e3, 3, " ms");
    if bytes <= 1_000_000 {
        return text;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown without decimals")]
    let rate = bytes as f64 / spread.median / 1e6;
    format!("{text}, {rate:.0} MB/s")
}
