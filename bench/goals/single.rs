//! One row from the upstream, one call after the other: what each way adds to a direct one.

use std::time::Instant;

use crate::Result;
use crate::context::Bench;
use crate::report::Spread;
use crate::shelf::SMALL;
use crate::table::{Finding, Findings};
use crate::ways::{DIRECT, ENVOY, SIDEWING, Samples, Way, Ways, figures, percentile};

pub const ROWS: &[&str] = &["one-row"];

const ROUNDS: usize = 15;
/// Calls of a way in a round.
const CALLS: usize = 200;

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let mut ways = Ways::start(bench, &[SMALL.to_owned()]).await?;
    let (mut times, mut added) = (Samples::default(), Samples::default());
    // No text comes twice.
    let mut id = 0;
    for round in 0..=ROUNDS {
        let count = ways.ways.len();
        let mut medians = Vec::with_capacity(count);
        for at in 0..count {
            let way = &mut ways.ways[(at + round + count - 1) % count];
            medians.push((way.name, median(way, &mut id).await?));
        }
        let direct = medians.iter().find(|(name, _)| *name == DIRECT).ok_or("no direct way")?.1;
        for (name, time) in medians.into_iter().filter(|_| round > 0) {
            times.add(name, time);
            if name != DIRECT {
                added.add(name, time - direct);
            }
        }
    }
    let seen = format!("added: {}; p50 {}", added.shown(1e3, 3, " ms"), times.shown(1e3, 3, " ms"));
    let figures = figures(seen, ways.missing());
    ways.stop().await?;
    Ok(vec![Finding { row: "one-row", ratio: of_medians(&added), figures }].into())
}

/// The median of a round's calls, in seconds.
async fn median(way: &mut Way, id: &mut usize) -> Result<f64> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        *id += 1;
        let begun = Instant::now();
        Way::row(&mut way.client, *id).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(percentile(&mut times, 50))
}

/// Sidewing's part ÷ Envoy's, round by round; a round in which Envoy added nothing tells nothing.
fn of_medians(added: &Samples) -> Option<Spread> {
    let (sidewing, envoy) = (added.of(SIDEWING)?, added.of(ENVOY)?);
    let rounds = sidewing.iter().zip(envoy).filter(|(_, envoy)| **envoy > 0.0);
    Some(Spread::of(rounds.map(|(sidewing, envoy)| sidewing / envoy)))
}
