//! Federated reads, through the sidecar ÷ direct: one row, and 100 MB.
//!
//! Three processes on one machine: this client, the real binary as the sidecar, and an upstream that
//! serves frames encoded beforehand. What is measured is GetFlightInfo and DoGet until the last batch
//! is decoded. `bench/README.md` tells how to read the table.

mod process;
mod report;
mod upstream;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightClient, FlightDescriptor};
use futures::TryStreamExt;
use tonic::transport::Channel;

use process::Process;
use report::{Row, Sample};
use upstream::Table;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Rounds that count; one more runs first and does not.
const ROUNDS: usize = 7;
const READY_WITHIN: Duration = Duration::from_secs(30);

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
        Mode::Upstream => upstream::serve().await,
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
    let upstream = Process::start(&std::env::current_exe()?, &["--upstream"], directory.path()).await?;
    let direct_address = upstream.address("flight")?;
    std::fs::write(directory.path().join("spicepod.yaml"), spicepod(direct_address))?;
    let sidecar = start_sidecar(directory.path()).await?;

    let mut direct = client(direct_address).await?;
    let mut through = client(sidecar.address("flight")?).await?;
    let mut rows = Vec::new();
    for case in &CASES {
        rows.push(compare(case, &mut direct, &mut through).await?);
    }
    let text = report::render(&rows, ROUNDS);
    println!("\n{text}");
    if write {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/RESULTS.md"), text)?;
    }
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

async fn start_sidecar(directory: &Path) -> Result<Process> {
    let any = "127.0.0.1:0";
    let arguments = ["run", ".", "--http", any, "--flight", any, "--metrics", any];
    let sidecar = Process::start(Path::new(env!("CARGO_BIN_EXE_sidewing")), &arguments, directory).await?;
    let url = format!("http://{}/v1/ready", sidecar.address("http")?);
    let started = Instant::now();
    loop {
        let answer = reqwest::get(&url).await?;
        if answer.status().is_success() {
            return Ok(sidecar);
        }
        if started.elapsed() > READY_WITHIN {
            return Err(format!("the sidecar is not ready: {}", answer.text().await?).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn client(address: &str) -> Result<FlightClient> {
    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    let inner = FlightServiceClient::new(channel).max_decoding_message_size(64 << 20);
    Ok(FlightClient::new_from_inner(inner))
}

/// Rounds of both ways in turn, so that what the machine does besides hits both alike.
async fn compare(case: &Case, direct: &mut FlightClient, through: &mut FlightClient) -> Result<Row> {
    round(case, direct).await?;
    round(case, through).await?;
    let mut samples = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let direct = round(case, direct).await?;
        let through = round(case, through).await?;
        samples.push(Sample { direct, through });
    }
    Ok(Row { name: case.name, bytes: case.table.bytes(), samples })
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
    let statement = FlightDescriptor::new_cmd(format!("SELECT * FROM {}", table.name()));
    let info = client.get_flight_info(statement).await?;
    let mut rows = 0;
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        let mut batches = client.do_get(ticket).await?;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
        }
    }
    Ok(rows)
}
