//! Who gets in: keys on every route and call, TLS and client certificates, sockets, and files that change meanwhile.

mod dial;

mod keys;
mod rotation;
mod sockets;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;

use crate::support::client::batch;
use crate::support::sidecar::{Builder, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

/// How long something may take that happens within seconds.
const WAIT_MAX: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn items() -> Vec<RecordBatch> {
    batch([("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)])
}

/// An upstream, and what will be a sidecar with a dataset that is kept, one that clients write, and `runtime`.
async fn world(runtime: &str) -> (Upstream, Builder) {
    let upstream = Upstream::builder().table("items", items()).table("notes", items()).start().await;
    let datasets = [
        Dataset::of("items", &upstream).accelerated(""),
        Dataset::of("notes", &upstream).accelerated("refresh_mode: disabled").field("access: read_write"),
    ];
    let builder = Sidecar::builder().spicepod(&spicepod(&datasets, runtime));
    (upstream, builder)
}

async fn wait_until(what: &str, sidecar: &Sidecar, done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < WAIT_MAX, "waited for: {what}\n{}", sidecar.stderr());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
