//! Each setting of an accelerated dataset does what it says.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int8Array, IntervalMonthDayNanoArray, LargeStringArray, ListArray, StringViewArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampSecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalMonthDayNano};

use super::*;
use crate::support::sidecar::Finished;

const HOUR: i64 = 3_600;

/// Seconds since the epoch.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn of_seconds(dataset: Dataset) -> Dataset {
    dataset.field("time_column: at").field("time_format: unix_seconds")
}

fn at(folder: &Path, mode: &str) -> String {
    format!("mode: {mode}, params: {{file_path: {}}}", folder.display())
}

async fn names(sidecar: &Sidecar) -> Value {
    sidecar.sql("select name from t order by name").await
}

async fn is_ready(sidecar: &Sidecar) {
    sidecar.wait_until("it is ready", async || status(sidecar).await["status"] == "Ready").await;
}

async fn says(sidecar: &Sidecar, words: &str) {
    let is_told = async || {
        let told = status(sidecar).await;
        told["status"] == "Error" && told["error_message"].as_str().is_some_and(|text| text.contains(words))
    };
    sidecar.wait_until(&format!("the state says `{words}`"), is_told).await;
}

async fn check(dataset: Dataset) -> Finished {
    let pod = spicepod(&[dataset], "");
    Sidecar::builder().spicepod(&pod).finish("check").await
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_cron_lines_and_jitter_refresh_by_themselves() {
    let tables = ["every", "cron", "jitter"];
    let upstream = Upstream::builder().tables(tables.map(|name| (name, numbered(1)))).start().await;
    let datasets = [
        Dataset::of("every", &upstream).accelerated("refresh_check_interval: 50ms"),
        Dataset::of("cron", &upstream).accelerated("refresh_cron: '* * * * * *'"),
        Dataset::of("jitter", &upstream).accelerated(
            "refresh_check_interval: 50ms, refresh_jitter_enabled: true, refresh_jitter_max: 20ms",
        ),
    ];
    let sidecar = start(&datasets, "").await;
    sidecar.wait_ready().await;
    for g in 2..4 {
        for table in tables {
            upstream.swap(table, numbered(g)).await;
        }
        for table in tables {
            let sql = format!("select min(g) as g from {table}");
            let is_new = async || sidecar.sql(&sql).await == json!([{"g": g}]);
            sidecar.wait_until(&format!("{table} is refreshed"), is_new).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_refreshes_what_was_restored_always_or_when_due() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = |when: &str| {
        let settings =
            format!("refresh_check_interval: 1h, refresh_on_startup: {when}, {}", at(folder.path(), "file"));
        Dataset::of("t", &upstream).accelerated(&settings)
    };
    let first = start(&[dataset("auto")], "").await;
    is_ready(&first).await;
    first.terminate().await;
    upstream.swap("t", numbered(2)).await;
    upstream.clear();
    let auto = start(&[dataset("auto")], "").await;
    is_ready(&auto).await;
    assert_eq!(auto.sql("select min(g) as g from t").await, json!([{"g": 1}]));
    assert_eq!(status(&auto).await["acceleration"]["last_refresh"], Value::Null);
    assert_eq!(upstream.statements(), Vec::<String>::new());
    auto.terminate().await;
    let always = start(&[dataset("always")], "").await;
    let is_new =
        async || always.sql_as("select min(g) as g from t", "application/json").await.body.contains("2");
    always.wait_until("it is refreshed", is_new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_window_leaves_old_rows_out() {
    let rows = vec![(now() - 5 * HOUR, "old"), (now() - 60, "new")];
    let upstream = Upstream::builder().table("t", events(&rows)).start().await;
    let full = of_seconds(Dataset::of("t", &upstream).accelerated("refresh_data_window: 1h"));
    let append = of_seconds(
        Dataset::of("u", &upstream).table("t").accelerated("refresh_mode: append, refresh_data_window: 1h"),
    );
    let sidecar = start(&[full, append], "").await;
    sidecar.wait_ready().await;
    for table in ["t", "u"] {
        assert_eq!(
            sidecar.sql(&format!("select name from {table}")).await,
            json!([{"name": "new"}]),
            "{table}"
        );
    }
    assert!(upstream.statements().iter().all(|sql| sql.contains("WHERE")), "{:?}", upstream.statements());
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_sql_chooses_rows_and_columns_and_is_changed_until_the_restart() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let dataset = Dataset::of("t", &upstream)
        .accelerated("refresh_sql: 'select id from t where id < 3'")
        .field("on_schema_change: sync_all_columns");
    let sidecar = start(&[dataset], "").await;
    sidecar.wait_ready().await;
    assert_eq!(sidecar.sql("select * from t order by id").await, json!([{"id": 0}, {"id": 1}, {"id": 2}]));
    assert!(upstream.statements().iter().all(|sql| !sql.contains("\"g\"")), "{:?}", upstream.statements());
    let path = "/v1/datasets/t/acceleration";
    let sql = r#"{"refresh_sql": "select id, g from t where id = 7"}"#;
    assert_eq!(sidecar.patch(path, sql).await.status, 200);
    refresh(&sidecar, "").await;
    assert_eq!(sidecar.sql("select * from t").await, json!([{"id": 7, "g": 1}]));
    assert_eq!(sidecar.patch(path, r#"{"refresh_sql": null}"#).await.status, 200);
    refresh(&sidecar, "").await;
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 3}]));
    for (body, code) in [("{", 400), (r#"{"refresh_sql": "drop table t"}"#, 400)] {
        assert_eq!(sidecar.patch(path, body).await.status, code, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_is_tried_again_as_often_as_is_said() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let sidecar =
        start(&[Dataset::of("t", &upstream).accelerated("refresh_retry_max_attempts: 2")], "").await;
    sidecar.wait_ready().await;
    upstream.swap("t", numbered(2)).await;
    upstream.clear();
    let fault = Fault::BreakAfter { batches: 0, status: Status::internal("the disk broke") };
    upstream.inject(Method::DoGet, 3, fault);
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    let all = async || upstream.count(Method::DoGet) == 3 && status(&sidecar).await["status"] == "Error";
    sidecar.wait_until("three attempts have failed", all).await;
    assert_eq!(sidecar.sql("select min(g) as g from t").await, json!([{"g": 1}]));
    // The upstream is well again: who asks gets it, and one attempt is enough.
    refresh(&sidecar, "").await;
    assert_eq!(upstream.count(Method::DoGet), 4);
    assert_eq!(sidecar.sql("select min(g) as g from t").await, json!([{"g": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_takes_rows_out_without_the_upstream() {
    let rows = vec![(now() - 5 * HOUR, "old"), (now() - 60, "done"), (now() - 50, "new")];
    let upstream = Upstream::builder().table("t", events(&rows)).start().await;
    let retention = "retention_check_enabled: true, retention_check_interval: 50ms, retention_period: 2h, \
                     retention_sql: \"DELETE FROM t WHERE name = 'done' AND at < extract(epoch from now())\"";
    let sidecar = start(&[of_seconds(Dataset::of("t", &upstream).accelerated(retention))], "").await;
    sidecar.wait_ready().await;
    // Before a generation is seen at all.
    assert_eq!(names(&sidecar).await, json!([{"name": "new"}]));
    drop(sidecar);

    // A row that grows old while it is here.
    let rows = vec![(now() - 2, "soon"), (now() + HOUR, "later")];
    upstream.swap("t", events(&rows)).await;
    let retention = "retention_check_enabled: true, retention_check_interval: 50ms, retention_period: 4s";
    let sidecar = start(&[of_seconds(Dataset::of("t", &upstream).accelerated(retention))], "").await;
    sidecar.wait_ready().await;
    upstream.clear();
    let is_gone = async || names(&sidecar).await == json!([{"name": "later"}]);
    sidecar.wait_until("the old row is gone", is_gone).await;
    assert_eq!(upstream.statements(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_goes_on_where_retention_has_taken_everything_also_after_a_restart() {
    let old = now() - 100 * HOUR;
    let mut rows = vec![(old, "a"), (old + 10, "b")];
    let upstream = Upstream::builder().table("t", events(&rows)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "refresh_mode: append, retention_check_enabled: true, retention_check_interval: 1h, retention_period: 1h, {}",
        at(folder.path(), "file")
    );
    let dataset = of_seconds(Dataset::of("t", &upstream).accelerated(&settings));
    let first = start(std::slice::from_ref(&dataset), "").await;
    is_ready(&first).await;
    assert_eq!(names(&first).await, json!([]));
    let watermark = status(&first).await["acceleration"]["watermark"].clone();
    assert!(!watermark.is_null());
    first.terminate().await;

    upstream.clear();
    let second = start(&[dataset], "").await;
    second.wait_ready().await;
    assert_eq!(status(&second).await["acceleration"]["watermark"], watermark);
    rows.push((now(), "c"));
    upstream.swap("t", events(&rows)).await;
    refresh(&second, "").await;
    assert_eq!(names(&second).await, json!([{"name": "c"}]));
    let sent = upstream.statements();
    assert!(
        sent[0].contains(&format!("{}", old + 10)) && sent.iter().all(|sql| sql.contains("WHERE")),
        "{sent:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_grew_old_while_nothing_ran_go_before_the_next_refresh() {
    let rows = vec![(now() - 3, "old"), (now() + HOUR, "new")];
    let mut upstream = Upstream::builder().table("t", events(&rows)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = |retention: &str| {
        let settings = format!("refresh_check_interval: 1h, {retention}, {}", at(folder.path(), "file"));
        of_seconds(Dataset::of("t", &upstream).accelerated(&settings))
    };
    let keeps = dataset("retention_check_enabled: false");
    let forgets =
        dataset("retention_check_enabled: true, retention_check_interval: 1h, retention_period: 1s");
    let first = start(&[keeps], "").await;
    is_ready(&first).await;
    assert_eq!(names(&first).await, json!([{"name": "new"}, {"name": "old"}]));
    first.terminate().await;
    upstream.stop().await;
    let second = start(&[forgets], "").await;
    second.wait_ready().await;
    let is_gone = async || names(&second).await == json!([{"name": "new"}]);
    second.wait_until("the old row is gone", is_gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_row_is_held_the_source_answers() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let part = "refresh_sql: 'select g, id from t where id < 10'";
    let source = Dataset::of("t", &upstream).accelerated(&format!("{part}, on_zero_results: use_source"));
    let empty = Dataset::of("u", &upstream)
        .table("t")
        .accelerated("refresh_sql: 'select g, id from u where id < 10', on_zero_results: return_empty");
    let sidecar = start(&[source, empty], "").await;
    sidecar.wait_ready().await;
    upstream.clear();
    assert_eq!(sidecar.sql("select id, g from t where id = 7").await, json!([{"id": 7, "g": 1}]));
    assert_eq!(sidecar.sql("select id, g from u where id = 700").await, json!([]));
    assert_eq!(upstream.statements(), Vec::<String>::new());
    // The columns of the copy stand the other way round.
    assert_eq!(sidecar.sql("select * from t where id = 700").await, json!([{"g": 1, "id": 700}]));
    assert_eq!(upstream.statements().len(), 1, "{:?}", upstream.statements());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_held_twice_are_named() {
    let rows = |second: &str| events(&[(1, "a"), (1, "a"), (2, second)]);
    let upstream = Upstream::builder().table("t", rows("b")).start().await;
    let unique =
        "refresh_retry_enabled: false, primary_key: at, indexes: {name: unique, '(at, name)': enabled}";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(unique)], "").await;
    sidecar.wait_ready().await;
    // The same row twice is one row under a key.
    let all = json!([{"at": 1, "name": "a"}, {"at": 2, "name": "b"}]);
    assert_eq!(sidecar.sql("select * from t order by at").await, all);
    assert_eq!(sidecar.sql("select at from t where name = 'b' and at = 2").await, json!([{"at": 2}]));
    upstream.swap("t", rows("a")).await;
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    says(&sidecar, "two different rows have (name) = (a)").await;
    assert_eq!(sidecar.sql("select * from t order by at").await, all);
    let null: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    upstream.swap("t", batch([("at", null), ("name", Arc::new(StringArray::from(vec!["a", "b"])))])).await;
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    says(&sidecar, "NULL in the primary key (at)").await;
    assert_eq!(sidecar.sql("select * from t order by at").await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_in_a_unique_index_are_settled_beside_a_primary_key() {
    let upstream = Upstream::builder().table("t", events(&[(1, "a"), (2, "a"), (3, "b")])).start().await;
    let settings = |action: &str| {
        format!("primary_key: at, indexes: {{name: unique}}, on_conflict: {{name: {action}, at: {action}}}")
    };
    let datasets = ["upsert", "drop"]
        .map(|action| of_seconds(Dataset::of(action, &upstream).table("t").accelerated(&settings(action))));
    let sidecar = start(&datasets, "").await;
    sidecar.wait_ready().await;
    let all = |table: &str| format!("select at, name from \"{table}\" order by at");
    assert_eq!(sidecar.sql(&all("upsert")).await, json!([{"at": 2, "name": "a"}, {"at": 3, "name": "b"}]));
    assert_eq!(sidecar.sql(&all("drop")).await, json!([{"at": 1, "name": "a"}, {"at": 3, "name": "b"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schema_is_followed_refused_or_begun_anew() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let dataset = |change: &str| {
        Dataset::of(change, &upstream)
            .table("t")
            .accelerated("refresh_retry_enabled: false")
            .field(&format!("on_schema_change: {change}"))
    };
    let changes = ["fail", "sync_all_columns", "drop_and_recreate", "append_new_columns"];
    let sidecar = start(&changes.map(dataset), "").await;
    sidecar.wait_ready().await;
    let told = async |change: &str| {
        let answer = sidecar.http("/v1/datasets?status=true").await;
        let all: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
        all.into_iter().find(|one| one["name"] == change).unwrap()
    };
    let turn = async |change: &str, ends: &str| {
        let before = told(change).await["acceleration"]["last_refresh"].clone();
        let path = format!("/v1/datasets/{change}/acceleration/refresh");
        assert_eq!(sidecar.post(&path, "").await.status, 201);
        let has_ended = async || {
            let now = told(change).await;
            now["status"] == ends && (ends == "Error" || now["acceleration"]["last_refresh"] != before)
        };
        sidecar.wait_until(&format!("{change} ends with {ends}"), has_ended).await;
    };
    // `g` becomes a text, `id` goes, `new` comes.
    let text: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    upstream.replace("t", batch([("g", text), ("new", ints([3]))]));
    for change in ["sync_all_columns", "drop_and_recreate"] {
        turn(change, "Ready").await;
        assert_eq!(
            sidecar.sql(&format!("select * from {change}")).await,
            json!([{"g": "one", "new": 3}]),
            "{change}"
        );
        assert_eq!(told(change).await["acceleration"]["generation"], 2, "{change}");
    }
    // Columns that went are not followed by one that only takes new ones: it keeps what it has.
    turn("append_new_columns", "Error").await;
    let message = told("append_new_columns").await["error_message"].as_str().unwrap().to_owned();
    assert!(message.contains("`g` was Int64 and is Utf8") && message.contains("`id` is gone"), "{message}");
    assert_eq!(sidecar.sql("select count(*) as n from append_new_columns").await, json!([{"n": 10_000}]));

    turn("fail", "Error").await;
    let answer = sidecar.sql_as("select count(*) as n from fail", "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("on_schema_change: fail"), "{}", answer.body);
    // The columns are back, and so are the answers.
    upstream.replace("t", numbered(4));
    turn("fail", "Ready").await;
    assert_eq!(sidecar.sql("select min(g) as g from fail").await, json!([{"g": 4}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn file_create_begins_anew_and_file_update_needs_what_was_there() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = |mode: &str| Dataset::of("t", &upstream).accelerated(&at(&folder.path().join("t"), mode));
    let [file, create, update] = ["file", "file_create", "file_update"].map(dataset);
    let needs = start(std::slice::from_ref(&update), "").await;
    says(&needs, "mode: file_update asks for one").await;
    assert_eq!(needs.http("/v1/ready").await.status, 503);
    needs.terminate().await;

    let first = start(&[file], "").await;
    is_ready(&first).await;
    first.terminate().await;
    upstream.stop().await;
    let updates = start(&[update], "").await;
    updates.wait_ready().await;
    assert_eq!(updates.sql("select min(g) as g from t").await, json!([{"g": 1}]));
    updates.terminate().await;
    let creates = start(&[create], "").await;
    let answer = creates.sql_as("select min(g) as g from t", "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    upstream.restart().await;
    creates.wait_ready().await;
    assert_eq!(creates.sql("select min(g) as g from t").await, json!([{"g": 1}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_lie_beside_the_spicepod_or_in_the_data_folder() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let dataset = Dataset::of("t", &upstream).accelerated("mode: file, engine: arrow");
    let beside = start(std::slice::from_ref(&dataset), "").await;
    is_ready(&beside).await;
    assert!(beside.dir().join(".sidewing/data/t/manifest-1").exists());
    let folder = tempfile::tempdir().unwrap();
    let data = format!("runtime:\n  params:\n    data_dir: {}\n", folder.path().display());
    let elsewhere = start(std::slice::from_ref(&dataset), &data).await;
    is_ready(&elsewhere).await;
    assert!(folder.path().join("t/manifest-1").exists());
    // The folder is in use.
    let second = start(&[dataset], &data).await;
    says(&second, "is in use by another process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_dataset_is_filled_only_when_asked_and_one_that_is_not_enabled_is_remote() {
    let upstream = Upstream::builder().table("t", numbered(1)).table("u", numbered(1)).start().await;
    let off = Dataset::of("u", &upstream).field("acceleration: {enabled: false, refresh_check_interval: 1s}");
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("refresh_mode: disabled"), off], "").await;
    let is_disabled = async || status(&sidecar).await["status"] == "Disabled";
    sidecar.wait_until("it is disabled", is_disabled).await;
    assert_eq!(upstream.statements(), Vec::<String>::new());
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 0}]));
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    let is_full = async || sidecar.sql("select count(*) as n from t").await == json!([{"n": 10_000}]);
    sidecar.wait_until("it was asked", is_full).await;
    sidecar.wait_until("it is disabled again", is_disabled).await;
    upstream.clear();
    assert_eq!(sidecar.sql("select count(*) as n from u").await, json!([{"n": 10_000}]));
    assert_eq!(upstream.statements().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_is_a_table_and_its_first_rows_are_appended() {
    let upstream = Upstream::builder().table("t", events(&[])).start().await;
    let dataset = of_seconds(Dataset::of("t", &upstream).accelerated("refresh_mode: append"));
    let sidecar = start(&[dataset], "").await;
    sidecar.wait_ready().await;
    assert_eq!(sidecar.sql("select count(*) as n, max(at) as at from t").await[0]["n"], 0);
    let rows = [(5, "a"), (4, "b"), (5, "a")];
    for rows in [&rows[..0], &rows[..2], &rows[..]] {
        upstream.swap("t", events(rows)).await;
        refresh(&sidecar, "").await;
        assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": rows.len()}]));
    }
    // A row of a far future is a watermark as any other: only what is later is asked for.
    upstream.swap("t", events(&[(5, "a"), (now() + 1_000 * HOUR, "future"), (now(), "behind")])).await;
    refresh(&sidecar, "").await;
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 5}]));
    upstream.swap("t", events(&[(now() + 1_000 * HOUR + 60, "later"), (now() + 60, "missed")])).await;
    refresh(&sidecar, "").await;
    let rows = names(&sidecar).await;
    assert_eq!(rows.as_array().unwrap().len(), 6, "{rows}");
    assert!(!rows.to_string().contains("missed"), "{rows}");
}

/// Three rows of a type each, a NULL among them.
fn of_every_type() -> Vec<(&'static str, ArrayRef)> {
    let codes = Int8Array::from(vec![Some(1), None, Some(0)]);
    let long = "a text that is longer than the twelve bytes of a view";
    let texts = vec![Some(""), None, Some(long)];
    let decimals = Decimal128Array::from(vec![Some(-5), None, Some(i128::from(i64::MAX) * 7)]);
    let lists = vec![Some(vec![Some(1), None]), None, Some(vec![])];
    let structs = StructArray::from(vec![(
        Arc::new(Field::new("inner", DataType::Utf8, true)),
        Arc::new(StringArray::from(texts.clone())) as ArrayRef,
    )]);
    vec![
        ("word", Arc::new(DictionaryArray::new(codes, Arc::new(StringArray::from(vec!["x", "y"]))))),
        ("seen", Arc::new(StringViewArray::from(texts.clone()))),
        ("large", Arc::new(LargeStringArray::from(texts.clone()))),
        ("bytes", Arc::new(BinaryViewArray::from_iter(texts.iter().map(|text| text.map(str::as_bytes))))),
        ("float", Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::NAN)]))),
        ("short", Arc::new(Float32Array::from(vec![Some(f32::NEG_INFINITY), None, Some(f32::MIN_POSITIVE)]))),
        ("tiny", Arc::new(UInt8Array::from(vec![Some(0), None, Some(255)]))),
        ("huge", Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)]))),
        ("decimal", Arc::new(decimals.with_precision_and_scale(30, 3).unwrap())),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("day", Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(2_932_896)]))),
        (
            "far",
            Arc::new(TimestampSecondArray::from(vec![Some(-62_135_596_800), None, Some(253_402_300_799)])),
        ),
        (
            "zoned",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1)]).with_timezone("+02:00")),
        ),
        ("hour", Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_999_999)]))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ("struct", Arc::new(structs)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_kept_in_memory_in_files_and_over_a_restart() {
    let mut upstream = Upstream::builder().table("t", batch(of_every_type())).start().await;
    let folder = tempfile::tempdir().unwrap();
    let filed = |resident: bool| {
        let path = folder.path().join(format!("t-{resident}"));
        format!("mode: file, params: {{file_path: {}, resident: {resident}}}", path.display())
    };
    let settings = [("memory", String::new()), ("both", filed(true)), ("files", filed(false))];
    let datasets =
        settings.map(|(name, settings)| Dataset::of(name, &upstream).table("t").accelerated(&settings));
    let questions = [
        "select * from t",
        "select count(*) as n, min(float) as a, max(float) as b, max(decimal) as c, min(far) as d from t",
        "select word, float, huge, seen from t where float = 0",
        "select word, float, huge, seen from t where float > 5",
        "select word, float, huge, seen from t where word = 'y'",
        "select word, float, huge, seen from t where seen is null",
        "select word, float, huge, seen from t where huge = 18446744073709551615",
        "select word, float, huge, seen from t where far < arrow_cast(0, 'Timestamp(Second, None)')",
    ];
    let mut expected = Vec::new();
    for sql in questions {
        expected.push(upstream.query(sql).await);
    }
    let answers = async |sidecar: &Sidecar, names: &[&str]| {
        let mut client = sidecar.flight_client().await;
        for name in names {
            for (sql, expected) in questions.iter().zip(&expected) {
                let sql = sql.replace("from t", &format!("from {name}"));
                let answer = client.query(&sql).await.unwrap();
                assert_same(&sql, &answer.batches, expected, Order::Any);
            }
        }
    };
    let first = start(&datasets, "").await;
    first.wait_ready().await;
    answers(&first, &["memory", "both", "files"]).await;
    first.terminate().await;
    upstream.stop().await;
    let second = start(&datasets[1..], "").await;
    second.wait_ready().await;
    answers(&second, &["both", "files"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_files_cannot_hold_is_named() {
    let span = IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::new(1, 2, 3))]);
    let rows = batch([("id", ints([1])), ("span", Arc::new(span) as ArrayRef)]);
    let upstream = Upstream::builder().table("t", rows).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("mode: file")], "").await;
    says(&sidecar, "column `span` has the type Interval(MonthDayNano), which cannot be kept on disk").await;
    let memory = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    memory.wait_ready().await;
    assert_eq!(memory.sql("select id from t").await, json!([{"id": 1}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_a_schema_and_odd_columns_are_kept_too() {
    let at: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
    let rows = batch([("Event Time", at), ("Ünit", Arc::new(StringArray::from(vec!["a", "b"])))]);
    let upstream = Upstream::builder().table("t", rows).start().await;
    let settings = "mode: file, refresh_mode: append, primary_key: '(\"Ünit\", \"Event Time\")', \
                    retention_check_enabled: true, retention_check_interval: 1h, \
                    retention_sql: 'DELETE FROM sales.\"Old Orders\" WHERE length(\"Ünit\") > 1'";
    let dataset = Dataset::of("sales.\"Old Orders\"", &upstream)
        .table("t")
        .accelerated(settings)
        .field("time_column: Event Time")
        .field("time_format: unix_seconds");
    let sidecar = start(&[dataset], "").await;
    sidecar.wait_ready().await;
    let sql = "select \"Event Time\" as at from sales.\"Old Orders\" where \"Ünit\" = 'b'";
    assert_eq!(sidecar.sql(sql).await, json!([{"at": 7}]));
    let path = "/v1/datasets/sales.%22Old%20Orders%22/acceleration/refresh";
    let answer = sidecar.post(path, "").await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_kept_are_refused_before_anything_runs() {
    let at_nothing =
        |settings: &str| of_seconds(Dataset::at("t", "http://127.0.0.1:1").accelerated(settings));
    let wrong = "retention_check_enabled: true, retention_check_interval: 1s, \
                 retention_sql: 'DELETE FROM other WHERE at < 3'";
    let refused = check(at_nothing(wrong)).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("retention_sql is `DELETE FROM t WHERE <condition>`"), "{said}");
}
