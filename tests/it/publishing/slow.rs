//! Subscribers that do not read hold up nobody, and are given up where something would be held for them too long.

use super::*;

/// More than all buffers between two processes hold.
const MANY: i64 = 1_500_000;

/// Rows of one generation, all others than those of another.
fn generation(number: i64) -> Vec<Row> {
    (0..MANY).map(|id| (id, number)).collect()
}

/// Reads until the stream ends.
async fn end(peer: &mut Peer) -> Status {
    loop {
        if let Err(status) = peer.take().await {
            return status;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_read_holds_up_nobody() {
    let upstream = Upstream::builder().table("t", table(generation(1))).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let mut stuck = Peer::subscribe(&sidecar).await;
    assert_eq!(stuck.take().await.unwrap().kind, Kind::Snapshot);
    let first = stuck.epoch;
    let mut reads = Peer::subscribe(&sidecar).await;
    reads.catch_up(&sidecar).await;
    for number in 2..4 {
        upstream.swap("t", table(generation(number))).await;
        refresh(&sidecar, "").await;
        reads.catch_up(&sidecar).await;
        assert_eq!(reads.held[0].1, number);
    }
    // It finishes what it was reading, and then is told what there is now.
    while stuck.coming.is_some() {
        stuck.take().await.unwrap();
    }
    assert_eq!((stuck.epoch, stuck.held[0].1), (first, 1));
    stuck.catch_up(&sidecar).await;
    assert_eq!(stuck.held, reads.held);
    assert_eq!(metric(&sidecar, "append_stream_data_loss").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_retention_bounds_how_long_is_waited_for_a_subscriber() {
    let status = cut_off("stream_retention: 1s").await;
    assert!(
        status.message().ends_with("(stream_retention is 1s); resubscribe and reconcile state"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_retention_bounds_how_much_is_held_for_subscribers() {
    let status = cut_off("stream_retention_bytes: 1MiB").await;
    assert!(status.message().contains("(stream_retention_bytes is 1048576 bytes); resubscribe"), "{status}");
}

async fn cut_off(params: &str) -> Status {
    let upstream = Upstream::builder().table("t", table(generation(1))).start().await;
    let dataset = Dataset::of("t", &upstream).accelerated(&format!("params: {{{params}}}"));
    let sidecar = start(&[dataset], "").await;
    let mut stuck = Peer::subscribe(&sidecar).await;
    assert_eq!(stuck.take().await.unwrap().kind, Kind::Snapshot);
    upstream.swap("t", table(generation(2))).await;
    refresh(&sidecar, "").await;
    let is_cut = async || metric(&sidecar, "append_stream_data_loss").await == 1;
    sidecar.wait_until("the slow subscriber is given up", is_cut).await;
    let status = end(&mut stuck).await;
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().starts_with("DoExchange subscriber fell behind and missed "), "{status}");
    // It comes again and is told all there is.
    let mut again = Peer::resume(&sidecar, stuck.epoch, std::mem::take(&mut stuck.held)).await;
    again.catch_up(&sidecar).await;
    assert_eq!(again.kinds[0], Kind::Snapshot);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_read_does_not_hold_up_the_end() {
    let upstream = Upstream::builder().table("t", table(generation(1))).start().await;
    let rest = "runtime:\n  shutdown_timeout: 20s\n";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], rest).await;
    let mut stuck = Peer::subscribe(&sidecar).await;
    assert_eq!(stuck.take().await.unwrap().kind, Kind::Snapshot);
    // With another code it waited for the time that a shutdown may take.
    assert_eq!(sidecar.terminate().await.code, Some(0));
}
