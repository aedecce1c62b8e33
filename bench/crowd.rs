//! What crowds cost the others: a client's latency beside idle, slow and many clients ÷ without them, and memory.

mod idlers;
mod memory;
mod process;
mod report;
mod sidecar;

use std::time::{Duration, Instant};

use arrow_flight::FlightClient;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use process::Process;
use report::{Section, Spread};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

const SPICEPOD: &str = "version: v1\nkind: Spicepod\nname: crowd\n";
const IDLE: usize = 5_000;
const SLOW_HEADS: usize = 1_000;
const BURST: usize = 1_000;
const CALLS: usize = 300;
const HALF_A_HEAD: &[u8] = b"POST /v1/sql HTTP/1.1\r\nhost: x\r\ncontent-le";
/// A million rows of a thousand bytes.
const GIGABYTE: &str = "WITH d(n) AS (SELECT unnest(generate_series(1, 100))) \
     SELECT repeat('x', 984) AS text, a.n * 10000 + b.n * 100 + c.n AS n FROM d a CROSS JOIN d b CROSS JOIN d c";

fn main() -> Result<()> {
    let keep = std::env::args().any(|argument| argument == "--write");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(keep))
}

async fn bench(keep: bool) -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("spicepod.yaml"), SPICEPOD)?;
    let mut lines = Vec::new();
    for measured in [Measured::Idle, Measured::SlowHeads, Measured::SlowReaders, Measured::Burst] {
        // A process of its own each: memory that one crowd took is not there for the next.
        let sidecar = sidecar::start(directory.path()).await?;
        lines.push(measured.line(&sidecar).await?);
        sidecar.stop().await?;
    }
    let section = Section {
        title: "Crowds",
        measured: format!("Latency: median of {CALLS} calls"),
        columns: &["crowd", "latency without", "latency with", "÷", "memory", "beside that"],
        lines,
    };
    report::publish(&section, keep)
}

#[derive(Clone, Copy)]
enum Measured {
    Idle,
    SlowHeads,
    SlowReaders,
    Burst,
}

impl Measured {
    async fn line(self, sidecar: &Process) -> Result<Vec<String>> {
        let mut client = sidecar::client(sidecar.address("flight")?).await?;
        let before = latency(&mut client).await?;
        let memory = memory(sidecar)?;
        let (name, after, grown, beside) = match self {
            Self::Idle => idle(sidecar, &mut client, memory).await?,
            Self::SlowHeads => slow_heads(sidecar, &mut client, memory).await?,
            Self::SlowReaders => slow_readers(sidecar, &mut client, memory).await?,
            Self::Burst => burst(sidecar, &mut client, memory).await?,
        };
        let ratio = format!("{:.2}", after.median / before.median);
        Ok(vec![name, before.shown(1e3, 2, " ms"), after.shown(1e3, 2, " ms"), ratio, grown, beside])
    }
}

/// What the crowd is called, the latency beside it, the memory that it took, and what else was seen.
type Seen = (String, Spread, String, String);

async fn idle(sidecar: &Process, client: &mut FlightClient, before: usize) -> Result<Seen> {
    let (address, begun) = (sidecar.address("flight")?, Instant::now());
    let crowd = idlers::accepted(address, IDLE).await?;
    let accepted_in = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = memory(sidecar)?.saturating_sub(before) as f64 / IDLE as f64 / 1024.0;
    let latency = latency(client).await?;
    drop(crowd);
    let name = format!("{IDLE} idle HTTP/2 connections");
    Ok((name, latency, format!("{each:.1} KiB each"), format!("accepted in {accepted_in:.2} s")))
}

async fn said(address: &str, words: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(words).await?;
    Ok(stream)
}

async fn slow_heads(sidecar: &Process, client: &mut FlightClient, before: usize) -> Result<Seen> {
    let address = sidecar.address("http")?;
    let mut crowd = try_join_all((0..SLOW_HEADS).map(|_| said(address, HALF_A_HEAD))).await?;
    let begun = Instant::now();
    let latency = latency(client).await?;
    let each = memory(sidecar)?.saturating_sub(before) as f64 / SLOW_HEADS as f64 / 1024.0;
    for stream in &mut crowd {
        // Said or not: what counts is the end.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let gone = begun.elapsed().as_secs_f64();
    let name = format!("{SLOW_HEADS} that say half a head");
    Ok((name, latency, format!("{each:.1} KiB each"), format!("let go after {gone:.1} s")))
}

async fn slow_readers(sidecar: &Process, client: &mut FlightClient, before: usize) -> Result<Seen> {
    let url = format!("http://{}/v1/sql", sidecar.address("http")?);
    let mut http = reqwest::Client::builder().no_proxy().build()?.post(url).body(GIGABYTE).send().await?;
    let mut reader = sidecar::client(sidecar.address("flight")?).await?;
    let mut batches = reader.do_get(arrow_flight::Ticket::new(GIGABYTE)).await?;
    let mut most = 0;
    for _ in 0..8 {
        http.chunk().await?.ok_or("the answer over HTTP ended")?;
        batches.try_next().await?.ok_or("the answer over Flight ended")?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(memory(sidecar)?.saturating_sub(before));
    }
    let latency = latency(client).await?;
    let memory = format!("{:.1} MiB", most as f64 / f64::from(1 << 20));
    Ok(("two slow readers of 1 GB".to_owned(), latency, memory, "one over HTTP, one over Flight".to_owned()))
}

async fn burst(sidecar: &Process, client: &mut FlightClient, before: usize) -> Result<Seen> {
    let url = format!("http://{}/v1/sql", sidecar.address("http")?);
    let client_of_http = reqwest::Client::builder().no_proxy().build()?;
    let flight = sidecar.address("flight")?;
    let mut readers = try_join_all((0..BURST / 2).map(|_| sidecar::client(flight))).await?;
    let sql = |n: usize| format!("SELECT count(*) FROM (SELECT unnest(generate_series(1, 10000 + {n})))");
    let begun = Instant::now();
    let over_http = try_join_all((0..BURST / 2).map(|n| {
        let request = client_of_http.post(&url).body(sql(n));
        async move { Ok::<_, Error>(request.send().await?.status().as_u16() == 200) }
    }));
    let over_flight = readers.iter_mut().enumerate().map(|(n, reader)| async move {
        match reader.do_get(arrow_flight::Ticket::new(sql(BURST + n))).await {
            Ok(batches) => batches.all(async |batch| batch.is_ok()).await,
            Err(_) => false,
        }
    });
    let (over_http, over_flight) = tokio::join!(over_http, futures::future::join_all(over_flight));
    let answered = over_http?.into_iter().chain(over_flight).filter(|answered| *answered).count();
    let took = begun.elapsed().as_secs_f64();
    let latency = latency(client).await?;
    let grown = memory(sidecar)?.saturating_sub(before) as f64 / f64::from(1 << 20);
    let name = format!("after {BURST} queries at once");
    Ok((name, latency, format!("{grown:.1} MiB"), format!("{answered} answered in {took:.2} s")))
}

/// Of one-row queries over Flight, in seconds.
async fn latency(client: &mut FlightClient) -> Result<Spread> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        sidecar::ask(client, "SELECT 1", |_| {}).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(Spread::of(times.into_iter()))
}

/// The memory that the process holds now, in bytes.
fn memory(sidecar: &Process) -> Result<usize> {
    memory::of(sidecar.id()?, "VmRSS")
}
