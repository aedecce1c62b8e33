//! A result that is in the cache already, beside the least that the same listener can be asked.

use std::time::Instant;

use reqwest::Response;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::Result;
use crate::calls;
use crate::context::{Bench, dataset};
use crate::shelf::{SMALL, row_sql};
use crate::table::{Finding, Findings};
use crate::ways::{Samples, Way, percentile};

pub const ROWS: &[&str] = &["cached-flight", "cached-http"];

const ROUNDS: usize = 9;
const CALLS: usize = 500;
/// For longer than the bench.
const CACHE: &str = "runtime:\n  caching:\n    sql_results: {enabled: true, item_ttl: 1h}\n";
const KEY: usize = 7;

const CACHED: &str = "cached";
const CHECK: &str = "health check";
const HEALTH: &str = "GET /health";

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let upstream = bench.upstream("--shelf").await?;
    let sidecar = bench.sidecar(CACHE, &dataset(upstream.address("flight")?, SMALL, "")).await?;
    let flight = over_flight(sidecar.address("flight")?).await?;
    let http = over_http(sidecar.address("http")?).await?;
    sidecar.stop().await?;
    upstream.stop().await?;
    let finding = |row, samples: &Samples, under| Finding {
        row,
        ratio: samples.ratio(CACHED, under),
        figures: samples.shown(1e3, 3, " ms"),
    };
    Ok(vec![finding("cached-flight", &flight, CHECK), finding("cached-http", &http, HEALTH)].into())
}

/// Both on one connection.
async fn over_flight(address: &str) -> Result<Samples> {
    let channel = calls::channel(address).await?;
    let mut health = HealthClient::new(channel.clone());
    let mut client = calls::Client::new(channel);
    let mut samples = Samples::default();
    for round in 0..=ROUNDS {
        let (mut cached, mut checked) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
        for _ in 0..CALLS {
            let begun = Instant::now();
            Way::row(&mut client, KEY).await?;
            cached.push(begun.elapsed().as_secs_f64());
        }
        for _ in 0..CALLS {
            let begun = Instant::now();
            health.check(HealthCheckRequest { service: String::new() }).await?;
            checked.push(begun.elapsed().as_secs_f64());
        }
        if round > 0 {
            samples.add(CACHED, percentile(&mut cached, 50));
            samples.add(CHECK, percentile(&mut checked, 50));
        }
    }
    Ok(samples)
}

/// Both on one connection, HTTP/1.1.
async fn over_http(address: &str) -> Result<Samples> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (query, health) = (format!("http://{address}/v1/sql"), format!("http://{address}/health"));
    let mut samples = Samples::default();
    for round in 0..=ROUNDS {
        let (mut cached, mut checked) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
        for call in 0..CALLS {
            let begun = Instant::now();
            let answer = whole(client.post(&query).body(row_sql(KEY)).send().await?).await?;
            cached.push(begun.elapsed().as_secs_f64());
            if call > 0 && answer.as_deref() != Some("HIT") {
                return Err(format!("an answer that is not from the cache: {answer:?}").into());
            }
        }
        for _ in 0..CALLS {
            let begun = Instant::now();
            whole(client.get(&health).send().await?).await?;
            checked.push(begun.elapsed().as_secs_f64());
        }
        if round > 0 {
            samples.add(CACHED, percentile(&mut cached, 50));
            samples.add(HEALTH, percentile(&mut checked, 50));
        }
    }
    Ok(samples)
}

/// Reads an answer to its end; what it says of the cache.
async fn whole(answer: Response) -> Result<Option<String>> {
    let answer = answer.error_for_status()?;
    let status = answer.headers().get("results-cache-status").and_then(|value| value.to_str().ok());
    let status = status.map(str::to_owned);
    answer.bytes().await?;
    Ok(status)
}
