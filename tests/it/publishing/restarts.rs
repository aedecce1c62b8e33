//! Subscribers that come again: they are sent what they miss, where what they hold is known.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_is_sent_what_is_missing() {
    let mut all = rows(0..200_000);
    let upstream = Upstream::builder().table("t", table(all.clone())).start().await;
    let sidecar = start(&[appended(&upstream, "")], "").await;
    let mut peer = Peer::subscribe(&sidecar).await;
    peer.catch_up(&sidecar).await;
    let whole = metric(&sidecar, "append_stream_sent_bytes").await;
    assert!(whole > 200_000 * 16, "{whole}");
    let (epoch, held) = (peer.epoch, std::mem::take(&mut peer.held));
    drop(peer);

    all.extend(rows(200_000..200_500));
    upstream.swap("t", table(all.clone())).await;
    refresh(&sidecar, "").await;
    let mut peer = Peer::resume(&sidecar, epoch, held).await;
    peer.catch_up(&sidecar).await;
    assert_eq!(peer.kinds, [Kind::Resume, Kind::Rows]);
    assert_eq!(peer.held, all);
    let more = metric(&sidecar, "append_stream_sent_bytes").await - whole;
    assert!(more < whole / 100, "{more} bytes for 500 rows, {whole} for 200000");
    assert_eq!(metric(&sidecar, "append_stream_resumes").await, 1);
    assert_eq!(metric(&sidecar, "append_stream_sent_rows").await, 200_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_gone_on_from_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    killed(&format!("mode: file, params: {{file_path: {}}}", path.display()), Kind::Resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_files_alone_is_gone_on_from_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let mode = format!("mode: file, params: {{file_path: {}, resident: false}}", path.display());
    killed(&mode, Kind::Resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_memory_is_sent_anew_after_a_kill() {
    killed("mode: memory", Kind::Snapshot).await;
}

async fn killed(mode: &str, expected: Kind) {
    let mut all = rows(0..50_000);
    let upstream = Upstream::builder().table("t", table(all.clone())).start().await;
    let datasets = [appended(&upstream, mode)];
    let sidecar = start(&datasets, "").await;
    let mut peer = Peer::subscribe(&sidecar).await;
    peer.catch_up(&sidecar).await;
    all.extend(rows(50_000..50_100));
    upstream.swap("t", table(all.clone())).await;
    refresh(&sidecar, "").await;
    peer.catch_up(&sidecar).await;
    let (epoch, mut held) = (peer.epoch, std::mem::take(&mut peer.held));
    drop(peer);
    sidecar.kill().await;

    // Some rows were not on the subscriber's own disk.
    held.truncate(50_050);
    let sidecar = start(&datasets, "").await;
    let mut peer = Peer::resume(&sidecar, epoch, held).await;
    peer.catch_up(&sidecar).await;
    assert_eq!(peer.kinds[0], expected);
    all.extend(rows(50_100..50_110));
    upstream.swap("t", table(all.clone())).await;
    refresh(&sidecar, "").await;
    peer.catch_up(&sidecar).await;
    assert_eq!(peer.held, all);
    assert_eq!(peer.epoch == epoch, expected == Kind::Resume);
    let fewer = if expected == Kind::Resume { 60 } else { 50_110 };
    assert_eq!(metric(&sidecar, "append_stream_sent_rows").await, fewer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_sent_is_no_position() {
    let upstream = Upstream::builder().table("t", table(rows(0..100))).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let mut peer = Peer::subscribe(&sidecar).await;
    peer.catch_up(&sidecar).await;
    for (epoch, held) in [(Some(Epoch::random()), rows(0..7)), (peer.epoch, rows(0..101))] {
        let mut again = Peer::resume(&sidecar, epoch, held).await;
        again.catch_up(&sidecar).await;
        assert_eq!(again.kinds, [Kind::Snapshot, Kind::Rows, Kind::Whole]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_process_is_told() {
    let upstream = Upstream::builder().table("t", table(rows(0..100))).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let (mut peer, mut stock) = (Peer::subscribe(&sidecar).await, Stock::subscribe(&sidecar).await);
    peer.catch_up(&sidecar).await;
    stock.catch_up(&sidecar).await;
    let told = async {
        loop {
            if let Err(status) = peer.take().await {
                break status;
            }
        }
    };
    let (ended, peer_told) = tokio::join!(sidecar.terminate(), told);
    for told in [peer_told, stock.take().await.unwrap_err()] {
        assert_eq!(
            (told.code(), told.message()),
            (Code::Unavailable, "sidewing is shutting down; subscribe again")
        );
    }
    assert_eq!(ended.code, Some(0));
}
