//! What cannot be subscribed to, in words; and what no client can say that would harm the others.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use arrow::array::StringArray;

/// Subscribers of one process.
const SUBSCRIBERS_MAX: usize = 1024;
/// Requests of one connection.
const STREAMS_MAX: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn names_are_read_as_everywhere_and_others_refused() {
    let tables = [("t", table(rows(0..10))), ("far", table(rows(0..10)))];
    let upstream = Upstream::builder().tables(tables).start().await;
    let datasets = [Dataset::of("t", &upstream).accelerated(""), Dataset::of("far", &upstream)];
    let views = "views:\n  - name: v\n    sql: select * from t\n";
    let sidecar = start(&datasets, views).await;
    for path in
        [&["t"][..], &["spice", "public", "t"], &["spice.public.t"], &["public", "t"], &["public.T"], &["T"]]
    {
        let subscribe = Subscribe { held: None }.encode();
        let mut answer = exchange(&sidecar, first(path, subscribe)).await.unwrap();
        let message = answer.message().await.unwrap().unwrap();
        assert_eq!(Frame::decode(&message.app_metadata).unwrap().kind, Kind::Snapshot, "{path:?}");
    }
    let mut said = String::new();
    for path in [&["nope"][..], &["no", "such", "t"], &["far"], &["v"], &["information_schema", "tables"]] {
        let status = exchange(&sidecar, first(path, Bytes::new())).await.unwrap_err();
        said.push_str(&format!("{path:?}\n  {:?}: {}\n", status.code(), status.message()));
    }
    insta::assert_snapshot!(said.replace(&upstream.url(), "http://upstream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_ends_every_stream() {
    let upstream = Upstream::builder().table("t", table(rows(0..10))).start().await;
    let dataset = Dataset::of("t", &upstream).accelerated("").field("on_schema_change: sync_all_columns");
    let sidecar = start(&[dataset], "").await;
    let (mut peer, mut stock) = (Peer::subscribe(&sidecar).await, Stock::subscribe(&sidecar).await);
    peer.catch_up(&sidecar).await;
    stock.catch_up(&sidecar).await;
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    upstream.replace("t", batch([("id", ints(0..2)), ("at", ints(0..2)), ("name", names)]));
    refresh(&sidecar, "").await;
    let peer_told = loop {
        if let Err(status) = peer.take().await {
            break status;
        }
    };
    for told in [peer_told, stock.take().await.unwrap_err()] {
        let words = "dataset t: the dataset's schema has changed; subscribe again";
        assert_eq!((told.code(), told.message()), (Code::Aborted, words));
    }
    let mut again = Peer::resume(&sidecar, peer.epoch, rows(0..10)).await;
    again.catch_up(&sidecar).await;
    assert_eq!(again.kinds[0], Kind::Snapshot);
}

/// Whatever stands in a first message, the answer is a stream or a status, and the next client is served.
#[tokio::test(flavor = "multi_thread")]
async fn no_first_message_harms_the_others() {
    let upstream = Upstream::builder().table("t", table(rows(0..10))).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let mut client = client(&sidecar).await;
    for seed in 0..300 {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut bytes = |most: usize| {
            let length = dice.random_range(0..most);
            (0..length).map(|_| dice.random()).collect::<Vec<u8>>()
        };
        let mut metadata =
            Subscribe { held: Some(Position { epoch: Epoch::random(), sequence: 3 }) }.encode().to_vec();
        metadata.extend(bytes(9));
        if seed % 3 == 0 {
            metadata = bytes(300);
        }
        let path = match seed % 5 {
            0 => vec![String::from_utf8_lossy(&bytes(40)).into_owned(); 3],
            1 => vec![String::new(), "t".to_owned()],
            _ => vec!["t".to_owned()],
        };
        let descriptor = FlightDescriptor { r#type: (seed % 7) as i32 - 2, cmd: bytes(40).into(), path };
        let message = FlightData {
            flight_descriptor: (seed % 11 != 0).then_some(descriptor),
            data_header: bytes(60).into(),
            app_metadata: metadata.into(),
            data_body: bytes(60).into(),
        };
        match client.do_exchange(stream::iter([message])).await {
            Ok(answer) => {
                let message = answer.into_inner().message().await.unwrap().unwrap();
                assert!(!message.data_header.is_empty(), "seed {seed}: the schema comes first");
            }
            Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "seed {seed}: {status}"),
        }
    }
    let mut peer = Peer::subscribe(&sidecar).await;
    peer.catch_up(&sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_subscribers_are_served_and_no_more() {
    let upstream = Upstream::builder().table("t", table(rows(0..10))).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let mut open = Vec::new();
    let mut connection = client(&sidecar).await;
    for count in 0..SUBSCRIBERS_MAX {
        if count % (STREAMS_MAX / 2) == 0 {
            connection = client(&sidecar).await;
        }
        let answer = connection.do_exchange(stream::iter([first(&["t"], Bytes::new())])).await;
        open.push(answer.unwrap_or_else(|status| panic!("subscriber {count}: {status}")).into_inner());
    }
    let refused = exchange(&sidecar, first(&["t"], Bytes::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("as many subscribers as may be (1024)"), "{refused}");
    // Each of them is told what is new.
    upstream.swap("t", table(rows(0..11))).await;
    refresh(&sidecar, "").await;
    for answer in &mut open[..2] {
        for _ in 0..5 {
            timeout(WAIT_MAX, answer.message()).await.unwrap().unwrap().unwrap();
        }
    }
    drop(open);
    let is_free = async || exchange(&sidecar, first(&["t"], Bytes::new())).await.is_ok();
    sidecar.wait_until("there is room again", is_free).await;
}
