//! Many datasets of one upstream: does each cost as much among 2000 as among 1000?

use std::time::Duration;

use crate::Result;
use crate::context::Bench;
use crate::launch::Launch;
use crate::proc;
use crate::report::Spread;
use crate::shelf::SMALL;
use crate::table::{Finding, Findings};
use crate::ways::ratio;

pub const ROWS: &[&str] = &["datasets-start", "datasets-memory"];

const ROUNDS: usize = 5;
const COUNTS: [usize; 3] = [200, 1000, 2000];
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// One start: seconds until it listens, until it is ready, and bytes then.
#[derive(Clone, Copy)]
struct Start {
    listening: f64,
    ready: f64,
    memory: f64,
}

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let upstream = bench.upstream("--shelf").await?;
    let address = upstream.address("flight")?;
    let mut rounds: Vec<[Start; 3]> = Vec::new();
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        let empty = start(bench, address, 0).await?;
        let mut each = [empty; 3];
        for (at, count) in COUNTS.into_iter().enumerate() {
            let all = start(bench, address, bench.scaled(count)).await?;
            // What belongs to the datasets, by dataset; the listeners do not wait for them.
            let of_one = |all: f64, none: f64| (all - none) / bench.scaled(count) as f64;
            let (ready, memory) = (of_one(all.ready, empty.ready), of_one(all.memory, empty.memory));
            each[at] = Start { listening: all.listening, ready, memory };
        }
        rounds.push(each);
    }
    upstream.stop().await?;
    for (at, count) in COUNTS.into_iter().enumerate() {
        let median = |of: fn(&Start) -> f64| Spread::of(rounds.iter().map(|each| of(&each[at]))).median;
        figures.push(format!(
            "{}: listening after {:.0} ms, ready after {:.3} ms and {:.1} KiB each",
            bench.scaled(count),
            median(|start| start.listening) * 1e3,
            median(|start| start.ready) * 1e3,
            median(|start| start.memory) / 1024.0
        ));
    }
    let growth = |of: fn(&Start) -> f64| {
        let column = |at: usize| rounds.iter().map(|each| of(&each[at])).collect::<Vec<_>>();
        // 200 are here so soon that their time is mostly the start of the process: they are shown, not compared.
        Some(ratio(&column(2), &column(1)))
    };
    let figures = figures.join("; ");
    let rows = vec![
        Finding { row: "datasets-start", ratio: growth(|start| start.ready), figures: figures.clone() },
        Finding { row: "datasets-memory", ratio: growth(|start| start.memory), figures },
    ];
    Ok(rows.into())
}

async fn start(bench: &Bench, upstream: &str, count: usize) -> Result<Start> {
    let one = |at| format!("  - from: spice.ai:http://{upstream}/{SMALL}\n    name: d{at}\n");
    let sidecar = Launch::of(&bench.spicepod("", &(0..count).map(one).collect::<String>())?).await?;
    let ready = sidecar.ready().await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let memory = proc::resident(sidecar.id()?)?;
    let start = Start { listening: sidecar.listening, ready, memory };
    sidecar.stop().await?;
    Ok(start)
}
