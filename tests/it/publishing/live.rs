//! Subscribers beside refreshes: what they hold is what queries see, in the order of the table.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reaches_subscribers_of_both_forms() {
    let upstream = Upstream::builder().table("t", table(rows(0..1000))).start().await;
    let sidecar = start(&[appended(&upstream, "")], "").await;
    let (mut peer, mut stock) = (Peer::subscribe(&sidecar).await, Stock::subscribe(&sidecar).await);
    peer.catch_up(&sidecar).await;
    stock.catch_up(&sidecar).await;
    assert_eq!((peer.kinds.as_slice(), peer.head), (&[Kind::Snapshot, Kind::Rows, Kind::Whole][..], 1000));
    assert_eq!(stock.ops, ["t", "r"]);

    let mut all = rows(0..1000);
    for _ in 0..3 {
        let from = all.len() as i64;
        all.extend(rows(from..from + 10));
        upstream.swap("t", table(all.clone())).await;
        refresh(&sidecar, "").await;
        peer.catch_up(&sidecar).await;
        stock.catch_up(&sidecar).await;
        assert_eq!(peer.held, all, "in the order of the table");
    }
    assert_eq!(stock.ops, ["t", "r", "c"], "rows that come later are added");
    assert_eq!(stock.keys, None);

    // Other rows in their place.
    upstream.swap("t", table(rows(5000..5100))).await;
    refresh(&sidecar, r#"{"refresh_mode": "full"}"#).await;
    peer.catch_up(&sidecar).await;
    stock.catch_up(&sidecar).await;
    assert_eq!(stock.ops, ["t", "r", "c", "t", "r"]);
    assert!(peer.kinds.ends_with(&[Kind::Snapshot, Kind::Rows, Kind::Whole]), "{:?}", peer.kinds);
    assert_eq!(metric(&sidecar, "append_stream_subscribers").await, 2);
    assert_eq!(metric(&sidecar, "append_stream_snapshots").await, 4);
    assert_eq!(metric(&sidecar, "append_stream_sent_rows").await, 2 * (1030 + 100) + 2);
    // Nothing is new: a refresh that finds the same rows tells nobody.
    refresh(&sidecar, r#"{"refresh_mode": "full"}"#).await;
    assert_eq!(peer.take().await.unwrap().kind, Kind::Heartbeat);
    drop((peer, stock));
    let are_gone = async || metric(&sidecar, "append_stream_subscribers").await == 0;
    sidecar.wait_until("nobody is subscribed", are_gone).await;
}

/// Between a snapshot and the rows after it nothing is lost and nothing comes twice, however they meet.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_while_a_snapshot_streams_come_once() {
    streams_beside_appends("mode: memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_while_a_snapshot_streams_from_files_come_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    streams_beside_appends(&format!(
        "mode: file, params: {{file_path: {}, resident: false}}",
        path.display()
    ))
    .await;
}

async fn streams_beside_appends(mode: &str) {
    let seeds = if std::env::var_os("SIDEWING_LONG").is_some() { 200 } else { 12 };
    let mut all = rows(0..150_000);
    let upstream = Upstream::builder().table("t", table(all.clone())).start().await;
    let sidecar = start(&[appended(&upstream, mode)], "").await;
    let mut early = Peer::subscribe(&sidecar).await;
    early.catch_up(&sidecar).await;
    for seed in 0..seeds {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut peer, mut stock) = (Peer::subscribe(&sidecar).await, Stock::subscribe(&sidecar).await);
        for _ in 0..dice.random_range(1..4) {
            for _ in 0..dice.random_range(0..3) {
                peer.take().await.unwrap();
                stock.take().await.unwrap();
            }
            let from = all.len() as i64;
            all.extend(rows(from..from + dice.random_range(1..3000)));
            upstream.swap("t", table(all.clone())).await;
            match dice.random_bool(0.5) {
                // It may run while they read.
                true => assert_eq!(sidecar.post(REFRESH, "").await.status, 201),
                false => refresh(&sidecar, "").await,
            }
        }
        refresh(&sidecar, "").await;
        peer.catch_up(&sidecar).await;
        stock.catch_up(&sidecar).await;
        early.catch_up(&sidecar).await;
        assert_eq!((peer.epoch, &peer.held), (early.epoch, &early.held), "seed {seed}: one epoch, one order");
        assert_eq!(stock.held, early.held, "seed {seed}: the order of the table");
        assert_eq!(early.held.len(), all.len(), "seed {seed}");
    }
    assert_eq!(metric(&sidecar, "append_stream_data_loss").await, 0);
}

/// Appends, full refreshes of like and unlike rows, rows that are removed: whoever comes and goes ends with the table.
#[tokio::test(flavor = "multi_thread")]
async fn lives_of_a_dataset_reach_its_subscribers() {
    let upstream = Upstream::builder().table("t", table(rows(0..5000))).start().await;
    let sidecar = start(&[appended(&upstream, "")], "").await;
    for seed in 0..6 {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut all = rows(0..5000);
        let (mut peer, mut stock) = (Peer::subscribe(&sidecar).await, Stock::subscribe(&sidecar).await);
        for step in 0..8 {
            match dice.random_range(0..4) {
                0 | 1 => {
                    let from = all.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
                    all.extend(rows(from..from + dice.random_range(1..500)));
                }
                2 => all.retain(|_| dice.random_bool(0.9)),
                _ => {}
            }
            upstream.swap("t", table(all.clone())).await;
            refresh(&sidecar, r#"{"refresh_mode": "full"}"#).await;
            match dice.random_range(0..4) {
                0 => {
                    let (epoch, mut held) = (peer.epoch, std::mem::take(&mut peer.held));
                    held.truncate(dice.random_range(0..=held.len()));
                    peer = Peer::resume(&sidecar, epoch, held).await;
                }
                1 => stock = Stock::subscribe(&sidecar).await,
                2 => {
                    peer.catch_up(&sidecar).await;
                    stock.catch_up(&sidecar).await;
                }
                _ => {}
            }
            if step == 7 {
                peer.catch_up(&sidecar).await;
                stock.catch_up(&sidecar).await;
                assert_eq!(peer.held, stock.held, "seed {seed}: the order of the table");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_of_a_primary_key_are_named() {
    let upstream = Upstream::builder().table("t", table(rows(0..1000))).start().await;
    let settings = "primary_key: '(at, id)', on_conflict: {'(at, id)': upsert}";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(settings)], "").await;
    let mut stock = Stock::subscribe(&sidecar).await;
    stock.catch_up(&sidecar).await;
    assert_eq!(stock.keys, Some(vec!["at".to_owned(), "id".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_not_whole_is_waited_for() {
    let upstream = Upstream::builder().table("t", table(rows(0..1000))).start().await;
    upstream.inject(Method::DoGet, 1_000, Fault::Status(Status::resource_exhausted("busy")));
    let pod = spicepod(&[Dataset::of("t", &upstream).accelerated("")], "");
    let sidecar = Sidecar::builder().spicepod(&pod).start().await;
    let mut peer = Peer::subscribe(&sidecar).await;
    let mut stock = Stock::subscribe(&sidecar).await;
    // The headers are here; longer than between two heartbeats there is nothing.
    assert!(timeout(Duration::from_secs(3), peer.answer.message()).await.is_err());
    assert!(timeout(Duration::from_millis(10), stock.answer.message()).await.is_err());
    upstream.heal();
    sidecar.wait_ready().await;
    peer.catch_up(&sidecar).await;
    stock.catch_up(&sidecar).await;
    assert_eq!(peer.held, rows(0..1000));
}
