//! DoExchange over real sockets: both forms, what the first message may be, and who is cut off.

use std::time::Duration;

use arrow::array::{Int64Array, StringViewArray};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::*;
use crate::acceleration::{MemoryLog, Retention};
use crate::proto::stream::{Epoch, Frame, Kind, Position, Subscribe};

fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let names = ids.clone().map(|id| format!("the name of the row with the number {id}"));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef),
        ("name", Arc::new(StringViewArray::from_iter_values(names))),
    ])
    .unwrap()
}

fn log(rows: &RecordBatch) -> MemoryLog {
    let log = MemoryLog::new("t".parse().unwrap(), rows.schema(), Retention::default());
    log.append(rows.clone()).unwrap();
    log
}

fn first(path: &[&str], app_metadata: impl Into<bytes::Bytes>) -> FlightData {
    let path = path.iter().map(|part| (*part).to_owned()).collect();
    FlightData::new().with_descriptor(FlightDescriptor::new_path(path)).with_app_metadata(app_metadata)
}

async fn exchange(client: &mut Client, first: FlightData) -> Result<Streaming<FlightData>, Status> {
    client.do_exchange(stream::iter([first])).await.map(tonic::Response::into_inner)
}

/// The ops of a stream of changes, as they come, with the ids of their rows.
async fn changes(decoder: &mut FlightDataDecoder, rows: usize) -> Vec<(String, Option<i64>)> {
    let mut changes = Vec::new();
    while changes.len() < rows {
        let message = decoder.next().await.unwrap().unwrap();
        let DecodedPayload::RecordBatch(batch) = message.payload else { continue };
        assert_eq!(batch.column(1).null_count(), batch.num_rows(), "there is no key");
        let (ops, data) = (batch.column(0).as_string::<i32>(), batch.column(2).as_struct());
        let ids = data.column(0).as_primitive::<Int64Type>();
        assert_eq!(data.column(1).data_type(), &DataType::Utf8, "views travel as plain strings");
        for row in 0..batch.num_rows() {
            changes.push((ops.value(row).to_owned(), data.is_valid(row).then(|| ids.value(row))));
        }
    }
    changes
}

#[tokio::test]
async fn a_stock_client_reads_a_table_and_then_its_changes() {
    let log = log(&rows(0..30_000));
    let (mut client, _scope) = flight(Fake::default().publishing(log.publication())).await;
    let answer = exchange(&mut client, first(&["t"], "")).await.unwrap();
    let mut decoder = FlightDataDecoder::new(answer.map_err(Into::into));
    let schema = decoder.next().await.unwrap().unwrap();
    let DecodedPayload::Schema(schema) = schema.payload else { panic!("the schema comes first") };
    insta::assert_snapshot!(format!("{:#?}", schema.fields()));
    let expected =
        |op: &str, ids: std::ops::Range<i64>| -> Vec<_> { ids.map(|id| (op.to_owned(), Some(id))).collect() };
    let truncate = [("t".to_owned(), None)];
    assert_eq!(changes(&mut decoder, 1).await, truncate);
    assert_eq!(changes(&mut decoder, 30_000).await, expected("r", 0..30_000));
    log.append(rows(30_000..30_003)).unwrap();
    assert_eq!(changes(&mut decoder, 3).await, expected("c", 30_000..30_003));
    log.replace(vec![rows(5..9)]).unwrap();
    assert_eq!(changes(&mut decoder, 1).await, truncate);
    assert_eq!(changes(&mut decoder, 4).await, expected("r", 5..9));
}

/// The frames of a stream until its first heartbeat, and its messages as one batch.
async fn frames(answer: &mut Streaming<FlightData>) -> (Vec<Frame>, Option<RecordBatch>) {
    let (mut frames, mut messages) = (Vec::new(), Vec::new());
    loop {
        let message = answer.next().await.unwrap().unwrap();
        let frame = Frame::decode(&message.app_metadata).unwrap();
        if frame.kind == Kind::Heartbeat {
            let has_rows = messages.len() > 1;
            return (frames, if has_rows { Some(decoded(messages).await) } else { None });
        }
        if !message.data_header.is_empty() {
            messages.push(message);
        }
        frames.push(frame);
    }
}

#[tokio::test]
async fn a_sidewing_is_told_which_rows_each_message_brings() {
    let all = rows(0..100_000);
    let log = log(&all);
    let (mut client, _scope) = flight(Fake::default().publishing(log.publication())).await;
    log.publication().known_whole(77);
    let subscribe = |held| first(&["t"], Subscribe { held }.encode());
    let mut answer = exchange(&mut client, subscribe(None)).await.unwrap();
    let (told, batch) = frames(&mut answer).await;
    assert_eq!(batch.unwrap().column(0), all.column(0));
    let epoch = told[0].epoch;
    let kinds = |told: &[Frame]| told.iter().map(|frame| frame.kind).collect::<Vec<_>>();
    assert_eq!((told[0].kind, told[0].first, told[0].last, told[0].head), (Kind::Snapshot, 0, 0, 100_000));
    assert!(told.len() > 4, "several messages of rows");
    let brought = &told[1..told.len() - 1];
    let mut last = 0;
    for frame in brought {
        assert_eq!((frame.kind, frame.first, frame.epoch), (Kind::Rows, last + 1, epoch));
        assert!(frame.watermark_unix_nanos == 77 && frame.sent_unix_nanos > 1 << 60);
        last = frame.last;
    }
    let whole = told.last().unwrap();
    assert_eq!((whole.kind, whole.last, whole.head), (Kind::Whole, 100_000, 100_000));

    log.append(rows(0..5)).unwrap();
    let (told, _) = frames(&mut answer).await;
    assert_eq!(kinds(&told), [Kind::Rows]);
    assert_eq!((told[0].first, told[0].last, told[0].head), (100_001, 100_005, 100_005));

    let held = Some(Position { epoch, sequence: 100_001 });
    let mut answer = exchange(&mut client, subscribe(held)).await.unwrap();
    let (told, batch) = frames(&mut answer).await;
    assert_eq!(kinds(&told), [Kind::Resume, Kind::Rows, Kind::Whole]);
    assert_eq!((told[0].last, told[1].first, told[1].last), (100_001, 100_002, 100_005));
    assert_eq!(batch.unwrap().column(0), rows(1..5).column(0));

    let held = Some(Position { epoch: Epoch::random(), sequence: 1 });
    let mut answer = exchange(&mut client, subscribe(held)).await.unwrap();
    let (told, _) = frames(&mut answer).await;
    assert_eq!(told[0].kind, Kind::Snapshot);
}

#[tokio::test]
async fn dictionaries_go_ahead_of_their_rows_without_a_frame() {
    let words = (0..20_000).map(|row| Some(format!("word {}", row % 7)));
    let batch = dictionary(words);
    let log = log(&batch);
    let (mut client, _scope) = flight(Fake::default().publishing(log.publication())).await;
    let mut answer = exchange(&mut client, first(&["t"], Subscribe { held: None }.encode())).await.unwrap();
    let (mut messages, mut unframed, mut last) = (Vec::new(), 0, 0);
    while last < 20_000 {
        let message = answer.next().await.unwrap().unwrap();
        match Frame::decode(&message.app_metadata) {
            Some(frame) => last = frame.last,
            None => unframed += 1,
        }
        messages.push(message);
    }
    assert!(unframed > 0, "a dictionary");
    assert_eq!(cast(decoded(messages).await.column(0), &DataType::Utf8).unwrap().len(), 20_000);

    let answer = exchange(&mut client, first(&["t"], "")).await.unwrap();
    let mut decoder = FlightDataDecoder::new(answer.map_err(Into::into));
    let mut data: Vec<ArrayRef> = Vec::new();
    while data.iter().map(|data| data.len()).sum::<usize>() < 20_001 {
        if let DecodedPayload::RecordBatch(batch) = decoder.next().await.unwrap().unwrap().payload {
            data.push(Arc::clone(batch.column(2)));
        }
    }
    assert!(data[0].is_null(0), "of the truncation");
    let words: Vec<ArrayRef> =
        data[1..].iter().map(|data| cast(data.as_struct().column(0), &DataType::Utf8).unwrap()).collect();
    let words: Vec<&dyn Array> = words.iter().map(AsRef::as_ref).collect();
    assert_eq!(&arrow::compute::concat(&words).unwrap(), &cast(batch.column(0), &DataType::Utf8).unwrap());
}

#[tokio::test]
async fn what_names_no_dataset_is_refused_in_words() {
    let log = log(&rows(0..3));
    let (mut client, _scope) = flight(Fake::default().publishing(log.publication())).await;
    let mut said = String::new();
    let command = FlightData::new().with_descriptor(FlightDescriptor::new_cmd("select 1"));
    let long = "x".repeat(5000);
    for bad in [
        FlightData::new(),
        command,
        first(&[], ""),
        first(&[""], ""),
        first(&["no", "pe"], ""),
        first(&[&long], ""),
    ] {
        let status = exchange(&mut client, bad).await.unwrap_err();
        said.push_str(&format!("{:?}: {}\n", status.code(), status.message()));
    }
    let nothing = client.do_exchange(stream::empty()).await.unwrap_err();
    said.push_str(&format!("{:?}: {}\n", nothing.code(), nothing.message()));
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn a_key_is_asked_for_first() {
    let log = log(&rows(0..3));
    let options =
        FlightOptions { tls: None, access: Access::new(vec![ApiKey::reading(Secret::new("k".into()))]) };
    let (mut client, _scope) = flight_with(Fake::default().publishing(log.publication()), options).await;
    let status = exchange(&mut client, FlightData::new()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "Invalid credentials"));
}

#[tokio::test]
async fn headers_come_before_rows_and_the_client_may_say_more() {
    let publication = crate::acceleration::Publication::new("t".parse().unwrap(), Retention::default());
    let (mut client, _scope) = flight(Fake::default().publishing(&publication)).await;
    let before = Arc::strong_count(&publication);
    // Its side stays open, and says what means nothing.
    let (say, said) = tokio::sync::mpsc::channel(8);
    say.send(first(&["t"], "")).await.unwrap();
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut answer = client.do_exchange(said).await.unwrap().into_inner();
    for _ in 0..20 {
        say.send(FlightData::new().with_data_body("abc")).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(200), answer.next()).await.is_err(), "there is nothing to tell");
    assert_eq!(Arc::strong_count(&publication), before + 1, "one subscription");
    drop((say, answer));
    let ended = async {
        while Arc::strong_count(&publication) > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), ended).await.expect("a client that goes away ends its subscription");
}

#[tokio::test]
async fn the_end_of_the_process_is_told_at_once() {
    let log = log(&rows(0..3));
    let (mut client, scope) = flight(Fake::default().publishing(log.publication())).await;
    let mut answer = exchange(&mut client, first(&["t"], Subscribe { held: None }.encode())).await.unwrap();
    frames(&mut answer).await;
    let (ended, told) = tokio::join!(scope.shutdown(Duration::from_secs(20)), answer.next());
    let status = told.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "sidewing is shutting down; subscribe again")
    );
    assert_eq!(ended, Ok(()));
}

#[tokio::test]
async fn bytes_that_are_no_subscription_make_a_stock_client() {
    let log = log(&rows(0..3));
    let (client, _scope) = flight(Fake::default().publishing(log.publication())).await;
    let config = Config { cases: 60, ..Config::default() };
    let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, dice);
    let handle = tokio::runtime::Handle::current();
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let done = tokio::task::spawn_blocking(move || {
        runner.run(&bytes, |bytes| {
            let mut client = client.clone();
            let message = handle.block_on(async {
                let mut answer = exchange(&mut client, first(&["t"], bytes)).await.unwrap();
                answer.next().await.unwrap().unwrap()
            });
            prop_assert!(message.app_metadata.is_empty() && !message.data_header.is_empty());
            Ok(())
        })
    });
    done.await.unwrap().unwrap();
}
