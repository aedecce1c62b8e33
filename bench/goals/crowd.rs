//! Idle connections: does each cost as much memory among 10,000 as among 1,000?

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;
use crate::context::Bench;
use crate::idlers;
use crate::launch::Launch;
use crate::proc;
use crate::report::Spread;
use crate::table::{Finding, Findings};
use crate::ways::ratio;

pub const ROWS: &[&str] = &["connections"];

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 10_000;
/// Files that a process has open beside its connections.
const OTHER_FILES: u64 = 500;
const SETTLED_AFTER: Duration = Duration::from_secs(1);

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let count = bench.scaled(CONNECTIONS);
    // The sidecar inherits it.
    let allowed = allowed(count as u64 + OTHER_FILES)?;
    let count = count.min(usize::try_from(allowed.saturating_sub(OTHER_FILES))?);
    let (mut many, mut few, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (memory, seconds) = crowd(bench, count).await?;
        many.push(memory);
        accepted.push(seconds);
        few.push(crowd(bench, count / 10).await?.0);
    }
    let growth = ratio(&many, &few);
    let [many, few] = [many, few].map(|values| Spread::of(values.into_iter()).shown(1.0 / 1024.0, 1, " KiB"));
    let accepted = Spread::of(accepted.into_iter()).shown(1.0, 2, " s");
    let figures = format!("{many} each of {count}, accepted in {accepted}; {few} each of {}", count / 10);
    Ok(vec![Finding { row: "connections", ratio: Some(growth), figures }].into())
}

/// Bytes that each connection takes, and the seconds until all were accepted. A process of its own each.
async fn crowd(bench: &Bench, count: usize) -> Result<(f64, f64)> {
    let sidecar = Launch::of(&bench.spicepod("", "")?).await?;
    sidecar.ready().await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let before = proc::resident(sidecar.id()?)?;
    let begun = Instant::now();
    let crowd = idlers::accepted(&sidecar.flight, count).await?;
    let seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED_AFTER).await;
    let memory = (proc::resident(sidecar.id()?)? - before) / count as f64;
    drop(crowd);
    sidecar.stop().await?;
    Ok((memory, seconds))
}

/// Raises the number of open files to `wanted` where it is lower and that is allowed; what it is then.
fn allowed(wanted: u64) -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= wanted {
        return Ok(now);
    }
    let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum })?;
    Ok(raised)
}
