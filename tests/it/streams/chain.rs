//! Core → edge → edge, three processes on files: rows are written to the first while each is killed in turn.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use futures::{TryStreamExt, stream};
use tonic::transport::Channel;

use super::*;
use crate::support::port::ClosedPort;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const KILLS: usize = 9;

/// One process of the chain, that always comes back at the same address.
struct Hop {
    port: ClosedPort,
    dataset: String,
}

impl Hop {
    fn new(from: &str, folder: &Path, name: &str, is_core: bool) -> Self {
        let path = folder.join(name);
        let settings = format!("mode: file, params: {{file_path: {}}}", path.display());
        let dataset = Dataset::at("t", from);
        let dataset = match is_core {
            true => dataset
                .accelerated(&format!("refresh_mode: disabled, {settings}"))
                .field("access: read_write"),
            false => dataset.accelerated(&format!("refresh_mode: append, {settings}")),
        };
        Self { port: ClosedPort::any(), dataset: spicepod(&[dataset], "") }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    async fn start(&self) -> Sidecar {
        Sidecar::builder().flight_port(self.port.number()).spicepod(&self.dataset).start().await
    }
}

/// Writes `ids`; which of them were stored for certain is told by the answer.
async fn put(
    address: &str,
    ids: std::ops::Range<i64>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut client =
        FlightServiceClient::new(Channel::from_shared(format!("http://{address}"))?.connect().await?);
    let rows = stream::iter([Ok(rows(ids))]);
    let to = FlightDescriptor::new_path(vec!["t".to_owned()]);
    let messages = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(to)).build(rows);
    let messages: Vec<FlightData> = messages.try_collect().await?;
    let _: Vec<PutResult> = client.do_put(stream::iter(messages)).await?.into_inner().try_collect().await?;
    Ok(())
}

/// The numbers that a sidecar holds, in order; none while it does not answer.
async fn ids(sidecar: &Sidecar) -> Option<Vec<i64>> {
    let answer = sidecar.try_sql_as("select id from t order by id", "application/json").await.ok()?;
    if answer.status != 200 {
        return None;
    }
    let rows: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
    Some(rows.iter().map(|row| row["id"].as_i64().unwrap()).collect())
}

async fn received_bytes(sidecar: &Sidecar) -> u64 {
    let state = sidecar.http("/v1/datasets?status=true").await;
    let state: serde_json::Value = serde_json::from_str(&state.body).unwrap();
    state[0]["acceleration"]["stream"]["received_bytes"].as_u64().unwrap()
}

/// Kills each in turn, and starts it again.
async fn take_turns(hops: [&Hop; 3], mut running: Vec<Sidecar>) -> Vec<Sidecar> {
    for turn in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(250 + 70 * turn as u64)).await;
        let at = turn % hops.len();
        running.remove(at).kill().await;
        running.insert(at, hops[at].start().await);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_through_two_hops_whoever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::builder().table("t", vec![rows([])]).start().await;
    let core = Hop::new(&upstream.url(), folder.path(), "core", true);
    let edge = Hop::new(&core.url(), folder.path(), "edge", false);
    let leaf = Hop::new(&edge.url(), folder.path(), "leaf", false);
    let running = vec![core.start().await, edge.start().await, leaf.start().await];
    for sidecar in &running {
        sidecar.wait_ready().await;
    }
    let (next, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let address = format!("127.0.0.1:{}", core.port.number());
    let write = async {
        let mut stored = BTreeSet::new();
        while !is_over.load(Ordering::Relaxed) {
            let from = next.fetch_add(20, Ordering::Relaxed);
            // A call that was cut off is not made again: its rows are there once, or not at all.
            if put(&address, from..from + 20).await.is_ok() {
                stored.extend(from..from + 20);
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        stored
    };
    let kill = async {
        let running = take_turns([&core, &edge, &leaf], running).await;
        is_over.store(true, Ordering::Relaxed);
        running
    };
    let (stored, running) = tokio::join!(write, kill);
    let [core, edge, leaf] = running.as_slice() else { panic!("three of them") };
    let all = ids(core).await.unwrap();
    let different: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(different.len(), all.len(), "no row is there twice");
    assert!(stored.is_subset(&different), "what was acknowledged is there");
    assert!(stored.len() > 1_000, "{} rows were written", stored.len());
    for sidecar in [edge, leaf] {
        sidecar.wait_until("every row has come", async || ids(sidecar).await.as_ref() == Some(&all)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reconnect_only_what_is_missing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::builder().table("t", vec![rows([])]).start().await;
    let core = Hop::new(&upstream.url(), folder.path(), "core", true);
    let edge = Hop::new(&core.url(), folder.path(), "edge", false);
    let (first, second) = (core.start().await, edge.start().await);
    first.wait_ready().await;
    second.wait_ready().await;
    put(first.flight_addr(), 0..100_000).await.unwrap();
    let numbers = |many: i64| (0..many).collect::<Vec<_>>();
    second.wait_until("the rows are here", async || ids(&second).await == Some(numbers(100_000))).await;
    let whole = received_bytes(&second).await;

    // The core is away for a while, and so is the edge, and rows are written in between.
    first.kill().await;
    second.kill().await;
    let first = core.start().await;
    first.wait_ready().await;
    put(first.flight_addr(), 100_000..100_300).await.unwrap();
    let second = edge.start().await;
    second.wait_until("the rest is here", async || ids(&second).await == Some(numbers(100_300))).await;
    let rest = received_bytes(&second).await;
    let metrics = second.metrics().await;
    for line in [
        "append_stream_received_rows{dataset=\"t\"} 300".to_owned(),
        format!("append_stream_received_bytes{{dataset=\"t\"}} {rest}"),
        "append_stream_repeated_rows{dataset=\"t\"} 0".to_owned(),
        "append_stream_connected{dataset=\"t\"} 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert!(rest < whole / 50, "{rest} bytes for 300 rows, {whole} for 100000");
}
