//! One row from the upstream, 64 calls at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::Result;
use crate::calls;
use crate::context::Bench;
use crate::shelf::SMALL;
use crate::table::{Finding, Findings};
use crate::ways::{ENVOY, SIDEWING, Samples, Way, Ways, figures};

pub const ROWS: &[&str] = &["queries-64"];

const ROUNDS: usize = 9;
/// Of a way in a round.
const QUERIES: usize = 3_000;
/// Several, so that a proxy whose workers take whole connections can use all of them.
const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 64;

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let ways = Ways::start(bench, &[SMALL.to_owned()]).await?;
    let mut crowds = Vec::new();
    for way in &ways.ways {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(calls::connect(&way.address).await?);
        }
        crowds.push((way.name, clients));
    }
    let mut rates = Samples::default();
    let ids = Arc::new(AtomicUsize::new(0));
    for round in 0..=ROUNDS {
        let count = crowds.len();
        for at in 0..count {
            let (name, clients) = &crowds[(at + round + count - 1) % count];
            let took = seconds(clients, &ids).await?;
            if round > 0 {
                rates.add(name, QUERIES as f64 / took);
            }
        }
    }
    let figures = figures(format!("{}; queries/s", rates.shown(1.0, 0, "")), ways.missing());
    drop(crowds);
    ways.stop().await?;
    Ok(vec![Finding { row: "queries-64", ratio: rates.ratio(SIDEWING, ENVOY), figures }].into())
}

/// Of so many queries, each with a key that nobody has asked for.
async fn seconds(clients: &[calls::Client], ids: &Arc<AtomicUsize>) -> Result<f64> {
    let end = ids.load(Ordering::Relaxed) + QUERIES;
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    for at in 0..IN_FLIGHT {
        let (mut client, ids) = (clients[at % clients.len()].clone(), Arc::clone(ids));
        callers.spawn(async move {
            loop {
                let id = ids.fetch_add(1, Ordering::Relaxed);
                if id >= end {
                    return Ok::<_, crate::Error>(());
                }
                Way::row(&mut client, id).await?;
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(begun.elapsed().as_secs_f64())
}
