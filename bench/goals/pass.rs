//! Pass-through: a gigabyte that nobody has to look at, from the upstream to the client.

use std::time::Instant;

use crate::Result;
use crate::calls;
use crate::context::Bench;
use crate::proc;
use crate::report::Spread;
use crate::shelf;
use crate::table::{Finding, Findings};
use crate::ways::{ENVOY, NGINX, SIDEWING, Samples, Ways, figures, ratio};

pub const ROWS: &[&str] = &["pass-2mib", "pass-64kib", "cpu-2mib", "cpu-64kib", "growth-pass"];

/// Rounds that count; one more runs first and does not.
const ROUNDS: usize = 7;
const MEGABYTES: usize = 1000;
/// Less than this part of what was asked for is another answer.
const WHOLE: f64 = 0.99;

/// A size of messages, and the rows that it is measured for.
struct Case {
    message_bytes: usize,
    pass: &'static str,
    cpu: &'static str,
}

const CASES: [Case; 2] = [
    Case { message_bytes: 2 << 20, pass: "pass-2mib", cpu: "cpu-2mib" },
    Case { message_bytes: 64 << 10, pass: "pass-64kib", cpu: "cpu-64kib" },
];

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let megabytes = [bench.scaled(MEGABYTES), bench.scaled(MEGABYTES / 10)];
    let sizes = CASES.iter().flat_map(|case| megabytes.map(|size| shelf::big(case.message_bytes, size)));
    let mut ways = Ways::start(bench, &sizes.collect::<Vec<_>>()).await?;
    let mut rows = Vec::new();
    for case in &CASES {
        if bench.wants(case.pass) || bench.wants(case.cpu) {
            let [pass, cpu] = measured(case, &mut ways, megabytes[0]).await?;
            rows.extend([pass, cpu]);
        }
    }
    if bench.wants("growth-pass") {
        rows.push(growth(&mut ways, megabytes).await?);
    }
    ways.stop().await?;
    Ok(rows.into())
}

async fn measured(case: &Case, ways: &mut Ways, megabytes: usize) -> Result<[Finding; 2]> {
    let (mut rates, mut seconds) = (Samples::default(), Samples::default());
    let table = shelf::big(case.message_bytes, megabytes);
    for round in 0..=ROUNDS {
        let count = ways.ways.len();
        // Each round begins with another one, the first that counts with the direct one.
        for at in 0..count {
            let way = &mut ways.ways[(at + round + count - 1) % count];
            let before = proc::cpu_seconds(&way.processes)?;
            let took = read(&mut way.client, &table, megabytes).await?;
            if round > 0 {
                rates.add(way.name, megabytes as f64 / took);
                if !way.processes.is_empty() {
                    let spent = proc::cpu_seconds(&way.processes)? - before;
                    seconds.add(way.name, spent * 1e3 / megabytes as f64);
                }
            }
        }
    }
    let cpu = seconds.of(SIDEWING).map(|values| Spread::of(values.iter().copied()));
    Ok([
        Finding {
            row: case.pass,
            ratio: better(&rates).and_then(|peer| rates.ratio(SIDEWING, peer)),
            figures: figures(format!("{}; MB/s", rates.shown(1.0, 0, "")), ways.missing()),
        },
        Finding {
            row: case.cpu,
            ratio: cpu,
            figures: figures(format!("{}; s/GB", seconds.shown(1.0, 2, "")), ways.missing()),
        },
    ])
}

/// The proxy with the greater median.
fn better(rates: &Samples) -> Option<&'static str> {
    let known = [NGINX, ENVOY].into_iter().filter_map(|name| Some((name, rates.median(name)?)));
    known.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(name, _)| name)
}

/// Seconds of one read.
async fn read(client: &mut calls::Client, table: &str, megabytes: usize) -> Result<f64> {
    let begun = Instant::now();
    let read = calls::read(client, &format!("SELECT * FROM {table}")).await?;
    let (took, bytes) = (begun.elapsed().as_secs_f64(), read.body_bytes as f64 / 1e6);
    match bytes >= megabytes as f64 * WHOLE {
        true => Ok(took),
        false => Err(format!("{bytes:.1} MB of {table} in {} messages", read.messages).into()),
    }
}

/// The same through sidewing alone, large and a tenth of it.
async fn growth(ways: &mut Ways, [large, small]: [usize; 2]) -> Result<Finding> {
    let way = ways.ways.iter_mut().find(|way| way.name == SIDEWING).ok_or("no sidewing")?;
    let message_bytes = CASES[0].message_bytes;
    let (mut of_large, mut of_small) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (megabytes, times) in [(large, &mut of_large), (small, &mut of_small)] {
            let took = read(&mut way.client, &shelf::big(message_bytes, megabytes), megabytes).await?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    let growth = ratio(&of_large, &of_small);
    let [large, small] = [of_large, of_small].map(|times| Spread::of(times.into_iter()).shown(1e3, 0, " ms"));
    Ok(Finding { row: "growth-pass", ratio: Some(growth), figures: format!("{large} ÷ {small}") })
}
