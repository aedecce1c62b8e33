//! Rows that clients write: by DoPut and by Flight SQL ingest, acknowledged when they are there for good.

use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::files::noise;
use super::*;

const WRITTEN: &str = "access: read_write";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("g", DataType::Int64, true),
    ]))
}

/// Rows with these ids, all of one writer.
fn rows(ids: impl IntoIterator<Item = i64>, g: i64) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let gs = ints(ids.iter().map(|_| g));
    RecordBatch::try_new(schema(), vec![ints(ids), gs]).unwrap()
}

fn written(upstream: &Upstream, settings: &str) -> Dataset {
    Dataset::of("t", upstream).accelerated(&format!("refresh_mode: disabled, {settings}")).field(WRITTEN)
}

async fn world(settings: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let sidecar = start(&[written(&upstream, settings)], "").await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

async fn connect(sidecar: &Sidecar) -> FlightServiceClient<Channel> {
    let url = format!("http://{}", sidecar.flight_addr());
    FlightServiceClient::new(Channel::from_shared(url).unwrap().connect().await.unwrap())
}

fn to(table: &str) -> FlightDescriptor {
    FlightDescriptor::new_path(vec![table.to_owned()])
}

fn messages(
    descriptor: FlightDescriptor,
    batches: impl Stream<Item = RecordBatch> + Send + 'static,
) -> impl Stream<Item = FlightData> + Send + 'static {
    let encoder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor));
    encoder.build(batches.map(Ok::<_, FlightError>)).map(Result::unwrap)
}

/// The number in an acknowledgement.
fn acknowledged(result: arrow_flight::PutResult) -> u64 {
    serde_json::from_slice::<Value>(&result.app_metadata).unwrap()["rows"].as_u64().unwrap()
}

/// Puts to the end; the last acknowledgement.
async fn put(
    client: &mut FlightServiceClient<Channel>,
    table: &str,
    batches: Vec<RecordBatch>,
) -> Result<u64, Status> {
    let mut results = client.do_put(messages(to(table), stream::iter(batches))).await?.into_inner();
    let mut rows = None;
    while let Some(result) = results.message().await? {
        let now = acknowledged(result);
        assert!(rows < Some(now), "{rows:?}, then {now}");
        rows = Some(now);
    }
    Ok(rows.expect("an acknowledgement"))
}

/// A call that goes on, one batch at a time.
struct Call {
    batches: tokio::sync::mpsc::Sender<RecordBatch>,
    results: Streaming<arrow_flight::PutResult>,
}

impl Call {
    async fn begin(client: &mut FlightServiceClient<Channel>) -> Self {
        let (batches, sent) = tokio::sync::mpsc::channel(4);
        let sent = stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) });
        // The schema goes with the first batch.
        batches.send(rows([], 0)).await.unwrap();
        let results = client.do_put(messages(to("t"), sent)).await.unwrap().into_inner();
        Self { batches, results }
    }

    /// Sends a batch and waits until so many rows of the call are stored.
    async fn write(&mut self, batch: RecordBatch, stored: u64) {
        self.batches.send(batch).await.unwrap();
        while acknowledged(self.results.message().await.unwrap().unwrap()) < stored {}
    }
}

fn ingest(
    table: &str,
    if_exists: TableExistsOption,
    if_not_exist: TableNotExistOption,
) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist.into(),
            if_exists: if_exists.into(),
        }),
        table: table.to_owned(),
        ..CommandStatementIngest::default()
    }
}

async fn count(sidecar: &Sidecar) -> Value {
    sidecar.sql("select count(*) as n, count(distinct id) as d from t").await[0].clone()
}

fn told(error: &Status) -> String {
    let stored = error.metadata().get("x-rows-stored").map(|value| value.to_str().unwrap().to_owned());
    format!("{:?} {stored:?}: {}", error.code(), error.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_put_are_read_at_once_and_equal_ones_are_kept() {
    let (_upstream, sidecar) = world("").await;
    assert_eq!(count(&sidecar).await, json!({"n": 0, "d": 0}), "nothing is fetched");
    let mut client = connect(&sidecar).await;
    let sent = vec![rows(0..10, 1), rows(0..10, 1), rows([], 1), rows(10..15, 2)];
    assert_eq!(put(&mut client, "t", sent).await.unwrap(), 25);
    // The cache holds results of what was there before; none of them is answered now.
    for more in 1..20 {
        assert_eq!(count(&sidecar).await, json!({"n": 24 + more, "d": 15}));
        assert_eq!(put(&mut client, "t", vec![rows([3], 1)]).await.unwrap(), 1);
    }
    assert_eq!(put(&mut client, "T", vec![rows([], 1)]).await.unwrap(), 0);

    let mut sql = FlightSqlServiceClient::new_from_inner(connect(&sidecar).await);
    for (if_not_exist, schema, catalog) in [
        (TableNotExistOption::Fail, None, None),
        (TableNotExistOption::Create, Some("public"), None),
        (TableNotExistOption::Create, Some("public"), Some("spice")),
    ] {
        let command = CommandStatementIngest {
            schema: schema.map(str::to_owned),
            catalog: catalog.map(str::to_owned),
            ..ingest("t", TableExistsOption::Append, if_not_exist)
        };
        let batches = [rows(100..150, 3), rows(150..200, 3)].map(Ok);
        assert_eq!(sql.execute_ingest(command, stream::iter(batches)).await.unwrap(), 100);
    }
    assert_eq!(count(&sidecar).await, json!({"n": 344, "d": 115}));
    let metrics = sidecar.metrics().await;
    assert!(metrics.contains("flight_do_put_rows{dataset=\"t\"} 344"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_beside_each_other_lose_nothing_and_share_generations() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, sidecar) =
        world(&format!("mode: file, params: {{file_path: {}}}", folder.path().display())).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connect(&sidecar).await);
    }
    let puts = (0..200_i64).map(|at| {
        let mut client = clients[at as usize % 4].clone();
        async move { put(&mut client, "t", vec![rows([at, 1_000 + at], at)]).await.unwrap() }
    });
    let stored = future::join_all(puts).await;
    assert!(stored.iter().all(|rows| *rows == 2));
    assert_eq!(count(&sidecar).await, json!({"n": 400, "d": 400}));
    let generation = status(&sidecar).await["acceleration"]["generation"].as_u64().unwrap();
    assert!(generation < 150, "{generation} generations of 200 puts");
}

async fn survives(resident: &str) {
    let rounds = if std::env::var_os("SIDEWING_LONG").is_some() { 40 } else { 4 };
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let params = format!("mode: file, params: {{file_path: {}, {resident}}}", folder.path().display());
    let dataset = written(&upstream, &params);
    let mut sidecar = start(std::slice::from_ref(&dataset), "").await;
    sidecar.wait_ready().await;
    upstream.stop().await;
    let mut next = 0;
    let mut kept: std::collections::BTreeSet<i64> = Default::default();
    for round in 0..rounds {
        let mut client = connect(&sidecar).await;
        let mut call = Call::begin(&mut client).await;
        let stored = 1 + round * 3;
        for done in 1..=stored {
            call.write(rows([next], round), done as u64).await;
            kept.insert(next);
            next += 1;
        }
        // These may be there or not, once.
        let open: Vec<i64> = (next..next + 100).collect();
        next += 100;
        for id in &open {
            call.batches.send(rows([*id], round)).await.unwrap();
        }
        sidecar.kill().await;

        sidecar = start(std::slice::from_ref(&dataset), "").await;
        sidecar.wait_ready().await;
        let found = sidecar.sql("select id from t").await;
        let found: Vec<i64> =
            found.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        let distinct: std::collections::BTreeSet<i64> = found.iter().copied().collect();
        assert_eq!(found.len(), distinct.len(), "round {round}: a row twice");
        assert!(distinct.is_superset(&kept), "round {round}: {:?} are lost", kept.difference(&distinct));
        let more: Vec<i64> = distinct.difference(&kept).copied().collect();
        assert!(open.starts_with(&more), "round {round}: {more:?}");
        kept = distinct;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill() {
    survives("resident: true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill_in_files_alone() {
    survives("resident: false").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_what_was_acknowledged() {
    let (_upstream, sidecar) = world("").await;
    let mut client = connect(&sidecar).await;
    let mut call = Call::begin(&mut client).await;
    call.write(rows(0..3, 1), 3).await;
    call.write(rows(3..5, 1), 5).await;
    drop(call);
    drop(client);
    assert_eq!(count(&sidecar).await, json!({"n": 5, "d": 5}));
    assert_eq!(put(&mut connect(&sidecar).await, "t", vec![rows([7], 1)]).await.unwrap(), 1);
    assert_eq!(count(&sidecar).await, json!({"n": 6, "d": 6}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_fails_its_own_call_or_is_settled() {
    let (_upstream, sidecar) = world("primary_key: id").await;
    let mut client = connect(&sidecar).await;
    assert_eq!(put(&mut client, "t", vec![rows(0..5, 1)]).await.unwrap(), 5);
    // The very row again is no conflict.
    assert_eq!(put(&mut client, "t", vec![rows([4], 1)]).await.unwrap(), 1);
    let mut call = Call::begin(&mut client).await;
    call.write(rows([10, 11], 1), 2).await;
    let calls = (0..20_i64).map(|at| {
        let mut client = client.clone();
        let id = if at == 13 { 3 } else { 20 + at };
        async move { put(&mut client, "t", vec![rows([id], 9)]).await }
    });
    let ended = future::join_all(calls).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 19);
    let mut said = vec![told(ended[13].as_ref().unwrap_err())];
    call.batches.send(rows([12, 10], 2)).await.unwrap();
    // It hears of it without sending anything more.
    let error = call.results.try_collect::<Vec<_>>().await.unwrap_err();
    said.push(told(&error));
    let null = RecordBatch::try_new(
        schema(),
        vec![Arc::new(Int64Array::from(vec![None::<i64>])), Arc::new(Int64Array::from(vec![1]))],
    );
    let error = put(&mut client, "t", vec![null.unwrap()]).await.unwrap_err();
    said.push(told(&error));
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(count(&sidecar).await, json!({"n": 26, "d": 26}));

    let (_upstream, sidecar) = world("primary_key: id, on_conflict: {id: upsert}").await;
    let mut client = connect(&sidecar).await;
    put(&mut client, "t", vec![rows(0..5, 1), rows(3..7, 2)]).await.unwrap();
    assert_eq!(put(&mut client, "t", vec![rows([0], 3)]).await.unwrap(), 1);
    let found = sidecar.sql("select id, g from t order by id").await;
    let found: Vec<_> = found.as_array().unwrap().iter().map(|row| row["g"].as_i64().unwrap()).collect();
    assert_eq!(found, [3, 1, 1, 2, 2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_refused_in_words() {
    let upstream = Upstream::builder().table("t", numbered(1)).table("u", numbered(1)).start().await;
    let datasets = [written(&upstream, ""), Dataset::of("u", &upstream)];
    let sidecar = start(&datasets, "views:\n  - {name: v, sql: select * from t}\n").await;
    sidecar.wait_ready().await;
    let mut client = connect(&sidecar).await;
    let mut said = Vec::new();
    for table in ["nowhere", "u", "v"] {
        said.push(told(&put(&mut client, table, vec![rows([1], 1)]).await.unwrap_err()));
    }
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    for columns in [
        vec![("id", ints([1]))],
        vec![("id", ints([1])), ("g", texts)],
        vec![("id", ints([1])), ("g", ints([1])), ("more", ints([1]))],
    ] {
        said.push(told(&put(&mut client, "t", batch(columns)).await.unwrap_err()));
    }
    let large = messages(to("t"), stream::iter([rows([1], 1)])).map(|mut message| {
        if !message.data_body.is_empty() {
            message.data_body = vec![0; 17 << 20].into();
        }
        message
    });
    let ended = client.do_put(large).await.unwrap().into_inner().try_collect::<Vec<_>>().await;
    said.push(told(&ended.unwrap_err()));
    let mut sql = FlightSqlServiceClient::new_from_inner(client.clone());
    for (table, if_exists, if_not_exist) in [
        ("nowhere", TableExistsOption::Append, TableNotExistOption::Create),
        ("u", TableExistsOption::Append, TableNotExistOption::Fail),
        ("t", TableExistsOption::Replace, TableNotExistOption::Fail),
        ("t", TableExistsOption::Fail, TableNotExistOption::Create),
    ] {
        let command = ingest(table, if_exists, if_not_exist);
        let refused = sql.execute_ingest(command, stream::iter([Ok(rows([1], 1))])).await.unwrap_err();
        said.push(match refused {
            FlightError::Tonic(status) => told(&status),
            other => other.to_string(),
        });
    }
    let refused = sidecar.post(REFRESH, "").await;
    said.push(format!("refresh: {} {}", refused.status, refused.body.trim_end()));
    let refused = sidecar.patch("/v1/datasets/t/acceleration", r#"{"refresh_sql": null}"#).await;
    said.push(format!("refresh_sql: {} {}", refused.status, refused.body.trim_end()));
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(count(&sidecar).await, json!({"n": 0, "d": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_table_is_here_a_dataset_takes_no_rows() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    upstream.stop().await;
    let sidecar = start(&[written(&upstream, "")], "").await;
    let mut client = connect(&sidecar).await;
    let is_told = async || {
        let refused = put(&mut client.clone(), "t", vec![rows([1], 1)]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().starts_with("dataset `t` takes no rows yet: "), "{refused:?}");
        refused.message().contains("127.0.0.1")
    };
    sidecar.wait_until("the reason is told", is_told).await;
    upstream.restart().await;
    sidecar.wait_ready().await;
    assert_eq!(put(&mut client, "t", vec![rows([1], 1)]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_rows_and_keeps_the_others() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset =
        written(&upstream, &format!("mode: file, params: {{file_path: {}}}", folder.path().display()));
    let pod = spicepod(std::slice::from_ref(&dataset), "");
    // As if the disk were full: blocks of 512 or 1024 bytes.
    let limits = "trap '' XFSZ; ulimit -f 200";
    let sidecar = Sidecar::builder().spicepod(&pod).limits(limits).start().await;
    sidecar.wait_ready().await;
    let mut client = connect(&sidecar).await;
    assert_eq!(put(&mut client, "t", vec![rows(0..10, 1)]).await.unwrap(), 10);
    let refused = put(&mut client, "t", vec![rows((0..200_000).map(noise), 2)]).await.unwrap_err();
    let words = told(&refused);
    assert_eq!(refused.code(), Code::ResourceExhausted, "{words}");
    assert!(words.contains("cannot write") && words.contains("Some(\"0\")"), "{words}");
    assert_eq!(count(&sidecar).await, json!({"n": 10, "d": 10}));
    assert_eq!(put(&mut client, "t", vec![rows(10..20, 1)]).await.unwrap(), 10);
    sidecar.kill().await;
    let sidecar = Sidecar::builder().spicepod(&pod).limits(limits).start().await;
    sidecar.wait_ready().await;
    assert_eq!(count(&sidecar).await, json!({"n": 20, "d": 20}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_larger_than_memory_goes_into_files_or_is_stored_in_part() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let batches = || stream::iter((0..120_i64).map(|at| rows(at * 50_000..(at + 1) * 50_000, at)));
    for resident in [false, true] {
        let path = folder.path().join(resident.to_string());
        let params = format!("mode: file, params: {{file_path: {}, resident: {resident}}}", path.display());
        let sidecar = start(&[written(&upstream, &params)], TIGHT).await;
        sidecar.wait_ready().await;
        let mut client = connect(&sidecar).await;
        let results = client.do_put(messages(to("t"), batches())).await.unwrap().into_inner();
        let ended = results.map_ok(acknowledged).try_collect::<Vec<u64>>().await;
        let n = count_rows(&sidecar).await;
        match (resident, ended) {
            (false, Ok(stored)) => assert_eq!((stored.last().copied(), n), (Some(6_000_000), 6_000_000)),
            (true, Err(error)) => {
                let words = told(&error);
                assert_eq!(error.code(), Code::ResourceExhausted, "{words}");
                assert!(words.contains(&format!("Some(\"{n}\")")), "{n}: {words}");
                assert!((1..6_000_000).contains(&n), "{words}");
                // The first rows, and no gap.
                let last = sidecar.sql("select max(id) as m from t").await[0]["m"].as_u64().unwrap();
                assert_eq!(last + 1, n);
            }
            (_, ended) => panic!("resident: {resident}: {ended:?}"),
        }
    }
}

async fn count_rows(sidecar: &Sidecar) -> u64 {
    sidecar.sql("select count(*) as n from t").await[0]["n"].as_u64().unwrap()
}

fn in_folder(dataset: Dataset, folder: &Path, settings: &str) -> Dataset {
    let params = format!("refresh_mode: disabled, mode: file, params: {{file_path: {}}}", folder.display());
    dataset.accelerated(&format!("{params}, {settings}"))
}

/// What the state says once it has something to say.
async fn reason(sidecar: &Sidecar) -> String {
    sidecar.wait_until("the state is Error", async || status(sidecar).await["status"] == "Error").await;
    status(sidecar).await["error_message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_served_or_the_folder_is_left_alone() {
    let upstream = Upstream::builder().table("t", numbered(1)).table("other", numbered(2)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let read = || Dataset::of("t", &upstream);
    // What was fetched before anybody could write stays.
    let first = start(&[in_folder(read(), &path, "")], "").await;
    first.wait_ready().await;
    refresh_disabled(&first).await;
    first.terminate().await;
    let second = start(&[in_folder(read(), &path, "").field(WRITTEN)], "").await;
    second.wait_ready().await;
    assert_eq!(count_rows(&second).await, 10_000);
    put(&mut connect(&second).await, "t", vec![rows(10_000..10_007, 5)]).await.unwrap();
    second.terminate().await;

    let mut said = Vec::new();
    for dataset in [
        in_folder(read(), &path, ""),
        in_folder(read(), &path, "primary_key: id").field(WRITTEN),
        in_folder(read(), &path, "")
            .field(WRITTEN)
            .field("time_column: id")
            .field("time_format: unix_seconds"),
    ] {
        let refused = start(&[dataset], "").await;
        said.push(reason(&refused).await.replace(&path.display().to_string(), "FOLDER"));
        assert_eq!(refused.http("/v1/ready").await.status, 503);
        refused.terminate().await;
    }
    insta::assert_snapshot!(said.join("\n"));
    // Wherever the upstream is now, the rows are what they are.
    let moved = Dataset::of("t", &upstream).table("other");
    let moved = start(&[in_folder(moved, &path, "").field(WRITTEN)], "").await;
    moved.wait_ready().await;
    assert_eq!(count_rows(&moved).await, 10_007);
    moved.terminate().await;

    // Nothing whole is left: it is not begun anew over what a person may still mend.
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("manifest") {
            std::fs::write(entry.path(), b"x\n").unwrap();
        }
    }
    let damaged = start(&[in_folder(read(), &path, "").field(WRITTEN)], "").await;
    let words = reason(&damaged).await;
    assert!(words.contains("exist nowhere else") && words.contains("is damaged"), "{words}");
    let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().ends_with(".parquet")), "{names:?}");
}

/// Fills a table that is refreshed only when somebody asks.
async fn refresh_disabled(sidecar: &Sidecar) {
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    let is_full = async || count_rows(sidecar).await == 10_000;
    sidecar.wait_until("it is filled", is_full).await;
    sidecar.wait_until("it rests", async || status(sidecar).await["status"] == "Disabled").await;
}
