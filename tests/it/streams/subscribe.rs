//! The real binary behind stock append streams. What is held is compared as a multiset, over HTTP: no row less, none
//! twice, and five equal rows are five.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tonic::Status;

use super::*;
use crate::support::client::Client;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Form, Method, Upstream};

const MODERN: Form = Form::Of2026 { ring: 1024 };
const FORMS: [Form; 2] = [Form::Of2024, MODERN];

/// From the last row's arrival until a count has proven that it was the last.
const PROOF: Duration = Duration::from_millis(500);

/// How often each row is there, by its number.
type Multiset = BTreeMap<i64, i64>;

fn multiset(ids: impl IntoIterator<Item = i64>) -> Multiset {
    let mut all = Multiset::new();
    ids.into_iter().for_each(|id| *all.entry(id).or_default() += 1);
    all
}

/// What the sidecar holds; none while it answers nothing.
async fn held(sidecar: &Sidecar) -> Option<Multiset> {
    let sql = "select id, count(*) as n, min(word) as w, max(word) as x from t group by id";
    let answer = sidecar.sql_as(sql, "application/json").await;
    if answer.status != 200 {
        return None;
    }
    let rows: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let counted = rows.iter().map(|row| {
        let id = row["id"].as_i64().unwrap();
        let word = format!("row {id}");
        assert_eq!((&row["w"], &row["x"]), (&Value::from(word.as_str()), &Value::from(word.as_str())));
        (id, row["n"].as_i64().unwrap())
    });
    Some(counted.collect())
}

/// Returns when exactly `expected` is held.
async fn wait_for(sidecar: &Sidecar, what: &str, expected: &Multiset) {
    sidecar.wait_until(what, async || held(sidecar).await.as_ref() == Some(expected)).await;
}

/// For a while, exactly `expected` is held at every look.
async fn assert_stays(sidecar: &Sidecar, expected: &Multiset) {
    for _ in 0..25 {
        assert_eq!(held(sidecar).await.as_ref(), Some(expected));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn upstream(form: Form, ids: impl IntoIterator<Item = i64>) -> Upstream {
    Upstream::builder().table("t", vec![rows(ids)]).streams(form).start().await
}

fn dataset(upstream: &Upstream, settings: &str) -> Dataset {
    Dataset::of("t", upstream).accelerated(&format!("refresh_mode: append, {settings}"))
}

async fn start(dataset: &Dataset) -> Sidecar {
    Sidecar::builder().spicepod(&spicepod(std::slice::from_ref(dataset), "")).start().await
}

/// A sidecar that follows `t` and compares it every second.
async fn follow(upstream: &Upstream) -> Sidecar {
    start(&dataset(upstream, "refresh_check_interval: 1s")).await
}

/// The same, and it never compares but when a stream begins.
async fn follow_blindly(upstream: &Upstream) -> Sidecar {
    start(&dataset(upstream, "refresh_check_interval: 0")).await
}

async fn status(sidecar: &Sidecar) -> Value {
    let answer = sidecar.http("/v1/datasets?status=true").await;
    serde_json::from_str::<Value>(&answer.body).unwrap()[0].clone()
}

async fn wait_for_status(sidecar: &Sidecar, wanted: &str) {
    let is_there = async || status(sidecar).await["status"] == wanted;
    sidecar.wait_until(&format!("the state is {wanted}"), is_there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_rows_arrive_and_equal_rows_stay_as_many() {
    for form in FORMS {
        let upstream = upstream(form, [1, 2, 2]).await;
        let sidecar = follow(&upstream).await;
        let mut expected = multiset([1, 2, 2]);
        wait_for(&sidecar, "the snapshot", &expected).await;
        sidecar.wait_ready().await;
        for ids in [vec![3], vec![2], vec![7; 5], vec![7; 5], (100..10_000).collect(), vec![1, 3, 3]] {
            upstream.push("t", rows(ids.clone())).await;
            ids.into_iter().for_each(|id| *expected.entry(id).or_default() += 1);
            wait_for(&sidecar, &format!("pushed rows, {form:?}"), &expected).await;
        }
        assert_stays(&sidecar, &expected).await;
        assert_eq!(upstream.count(Method::DoExchange), 1, "one stream was enough");
    }
}

/// Twenty disasters while rows are pushed; `SIDEWING_SEED` chooses others.
async fn drops_under_load(form: Form) {
    let seed = std::env::var("SIDEWING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5);
    let mut dice = StdRng::seed_from_u64(seed);
    let upstream = upstream(form, 0..1_000).await;
    let sidecar = follow(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset(0..1_000)).await;
    let (is_over, is_resting) = (AtomicBool::new(false), AtomicBool::new(false));
    let pushed = AtomicI64::new(1_000);
    let push = async {
        let (mut next, mut dice) = (1_000, StdRng::seed_from_u64(seed));
        while !is_over.load(Ordering::Relaxed) {
            let many = dice.random_range(1..60);
            upstream.push("t", rows(next..next + many)).await;
            next += many;
            pushed.store(next, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..15))).await;
            while is_resting.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        next
    };
    let drop = async {
        for number in 0..20 {
            match dice.random_range(0..4) {
                0 => {}
                1 => upstream.inject(
                    Method::DoExchange,
                    1,
                    Fault::ResetAfter { bytes: dice.random_range(0..90_000) },
                ),
                2 => upstream.inject(Method::DoExchange, 1, Fault::Reset),
                _ => {
                    let status = Status::data_loss("resubscribe and reconcile state");
                    let batches = dice.random_range(0..6);
                    upstream.inject(Method::DoExchange, 1, Fault::BreakAfter { batches, status });
                }
            }
            // A stream is dropped, not the pause between two.
            sidecar.wait_until("a stream", async || upstream.subscribers() > 0).await;
            match number % 3 {
                0 => upstream.end_streams(),
                _ => upstream.cut(),
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(50..600))).await;
            // The waits between connections grow until one was proven whole, which rows that never pause delay.
            is_resting.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            let all = multiset(0..pushed.load(Ordering::Relaxed));
            wait_for(&sidecar, &format!("drop {number} is mended, {form:?}, seed {seed}"), &all).await;
            tokio::time::sleep(PROOF).await;
            is_resting.store(false, Ordering::Relaxed);
        }
        upstream.heal();
        is_over.store(true, Ordering::Relaxed);
    };
    let look = async {
        while !is_over.load(Ordering::Relaxed) {
            let seen = held(&sidecar).await.expect("what was once held answers");
            assert!(seen.values().all(|times| *times == 1), "a row is there twice: {form:?}, seed {seed}");
            assert!(seen.len() >= 1_000, "rows have gone: {form:?}, seed {seed}");
        }
    };
    let (all, (), ()) = tokio::join!(push, drop, look);
    wait_for(&sidecar, &format!("all rows, {form:?}, seed {seed}"), &multiset(0..all)).await;
    assert_stays(&sidecar, &multiset(0..all)).await;
    wait_for_status(&sidecar, "Ready").await;
    assert!(upstream.count(Method::DoExchange) > 20, "the stream was not interrupted");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drops_under_load_lose_nothing_and_repeat_nothing_in_2024() {
    drops_under_load(Form::Of2024).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_drops_under_load_lose_nothing_and_repeat_nothing_in_2026() {
    drops_under_load(MODERN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_told_of_a_loss_begins_again() {
    let upstream = upstream(MODERN, [1, 2]).await;
    let told = "DoExchange subscriber fell behind and missed 3 update(s) for dataset t; resubscribe and reconcile state";
    let fault = Fault::BreakAfter { batches: 3, status: Status::data_loss(told) };
    upstream.inject(Method::DoExchange, 1, fault);
    let sidecar = follow_blindly(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset([1, 2])).await;
    // The first of these arrives, the others meet the end.
    for id in 3..8 {
        upstream.push("t", rows([id])).await;
    }
    wait_for(&sidecar, "the rows after the loss", &multiset(1..8)).await;
    assert_eq!(upstream.count(Method::DoExchange), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_overflows_beside_the_snapshot_loses_nothing() {
    let lag = Duration::from_millis(300);
    let builder = Upstream::builder().table("t", vec![rows([0])]).streams(Form::Of2026 { ring: 4 });
    let upstream = builder.snapshot_lag(lag).start().await;
    let sidecar = follow_blindly(&upstream).await;
    sidecar.wait_until("it subscribes", async || upstream.subscribers() > 0).await;
    for id in 1..40 {
        upstream.push("t", rows([id])).await;
    }
    wait_for(&sidecar, "all rows", &multiset(0..40)).await;
    assert!(upstream.count(Method::DoExchange) > 1, "nothing overflowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_dark_is_replaced() {
    for form in FORMS {
        let upstream = upstream(form, [1]).await;
        let sidecar = follow_blindly(&upstream).await;
        wait_for(&sidecar, "the snapshot", &multiset([1])).await;
        upstream.blackhole();
        upstream.push("t", rows([2])).await;
        wait_for(&sidecar, "the row that was pushed into the dark", &multiset([1, 2])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_stream_sent_are_found_by_counting() {
    for form in FORMS {
        let upstream = upstream(form, [1, 5]).await;
        let sidecar = follow(&upstream).await;
        wait_for(&sidecar, "the snapshot", &multiset([1, 5])).await;
        upstream.write("t", rows([2, 5])).await;
        upstream.push("t", rows([3])).await;
        wait_for(&sidecar, &format!("what was lost, {form:?}"), &multiset([1, 2, 3, 5, 5])).await;
        assert_stays(&sidecar, &multiset([1, 2, 3, 5, 5])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_sent_again_because_of_another_repeats_nothing() {
    let upstream = upstream(Form::Of2024, [1, 1, 2]).await;
    let sidecar = follow(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset([1, 1, 2])).await;
    let mut client = Client::connect(upstream.addr()).await;
    let path = arrow_flight::FlightDescriptor::new_path(vec!["t".to_owned()]);
    let first = arrow_flight::FlightData::new().with_descriptor(path);
    let _other = client.inner().do_exchange(futures::stream::iter([first])).await.unwrap();
    assert_stays(&sidecar, &multiset([1, 1, 2])).await;
    upstream.push("t", rows([2])).await;
    wait_for(&sidecar, "a row that is new and not a repeat", &multiset([1, 1, 2, 2])).await;
    assert_stays(&sidecar, &multiset([1, 1, 2, 2])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_counted_before_they_are_written_are_no_reason_to_give_them_up() {
    let builder = Upstream::builder().table("t", vec![rows([1])]).streams(Form::Of2024);
    let upstream = builder.write_lag(Duration::from_millis(700)).start().await;
    let sidecar = follow(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset([1])).await;
    let push = async {
        for id in 2..8 {
            upstream.push("t", rows([id])).await;
        }
    };
    push.await;
    wait_for(&sidecar, "all rows", &multiset(1..8)).await;
    assert_stays(&sidecar, &multiset(1..8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_rows_upstream_are_believed_when_they_were_counted_twice() {
    for form in FORMS {
        let upstream = upstream(form, 0..100).await;
        let sidecar = follow(&upstream).await;
        wait_for(&sidecar, "the snapshot", &multiset(0..100)).await;
        upstream.clear();
        upstream.swap("t", vec![rows([1, 1, 500])]).await;
        wait_for(&sidecar, &format!("the rows of now, {form:?}"), &multiset([1, 1, 500])).await;
        let counts = upstream.statements().iter().filter(|sql| sql.contains("count(*)")).count();
        assert!(counts >= 2, "adopted after {counts} counts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_restarts_is_followed_with_what_it_still_has() {
    for form in FORMS {
        let mut upstream = upstream(form, 0..100).await;
        let sidecar = follow(&upstream).await;
        wait_for(&sidecar, "the snapshot", &multiset(0..100)).await;
        upstream.stop().await;
        upstream.restart().await;
        upstream.push("t", rows([100])).await;
        wait_for(&sidecar, "it came back with its rows", &multiset(0..101)).await;
        upstream.stop().await;
        assert_stays(&sidecar, &multiset(0..101)).await;
        upstream.swap("t", vec![rows([1])]).await;
        upstream.restart().await;
        wait_for(&sidecar, &format!("it came back without, {form:?}"), &multiset([1])).await;
        upstream.push("t", rows([2])).await;
        wait_for(&sidecar, "and goes on", &multiset([1, 2])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_overwritten_is_swapped_whole() {
    let generation = |id: i64| (0..20).map(|_| rows(std::iter::repeat_n(id, 500))).collect::<Vec<_>>();
    let builder = Upstream::builder().table("t", generation(0)).streams(MODERN);
    let upstream = builder.start().await;
    let sidecar = follow_blindly(&upstream).await;
    let whole = |id: i64| Multiset::from([(id, 10_000)]);
    wait_for(&sidecar, "the snapshot", &whole(0)).await;
    let is_over = AtomicBool::new(false);
    let overwrite = async {
        for id in 1..15 {
            upstream.overwrite("t", generation(id)).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        wait_for(&sidecar, "the last generation", &whole(14)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let look = async {
        let mut last = 0;
        while !is_over.load(Ordering::Relaxed) {
            let seen = held(&sidecar).await.expect("what was once held answers");
            let (id, count) = seen.first_key_value().expect("a generation");
            assert_eq!((seen.len(), *count), (1, 10_000), "a part of a generation: {seen:?}");
            assert!(*id >= last, "an older generation came back");
            last = *id;
        }
    };
    tokio::join!(overwrite, look);
    // Rows that follow a generation are appended to it.
    upstream.push("t", rows([99])).await;
    let mut expected = whole(14);
    expected.insert(99, 1);
    wait_for(&sidecar, "rows after it", &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_behind_is_in_error_until_it_has_caught_up() {
    let mut upstream = upstream(MODERN, [1]).await;
    let dataset =
        dataset(&upstream, "refresh_check_interval: 1s").param("append_stream_acceptable_lag", "2s");
    let sidecar = start(&dataset).await;
    wait_for_status(&sidecar, "Ready").await;
    // With nothing new it is not behind, however long.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(status(&sidecar).await["status"], "Ready");
    upstream.stop().await;
    wait_for_status(&sidecar, "Error").await;
    assert_eq!(held(&sidecar).await, Some(multiset([1])), "what is held goes on answering");
    upstream.restart().await;
    upstream.push("t", rows([2])).await;
    wait_for(&sidecar, "it has caught up", &multiset([1, 2])).await;
    wait_for_status(&sidecar, "Ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_updates_are_no_rows() {
    let upstream = upstream(MODERN, [1, 2]).await;
    let sidecar = follow(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset([1, 2])).await;
    upstream.broadcast("t", "d", &rows([1]));
    upstream.broadcast("t", "u", &rows([9]));
    upstream.push("t", rows([3])).await;
    wait_for(&sidecar, "the row after them", &multiset([1, 2, 3])).await;
    assert_stays(&sidecar, &multiset([1, 2, 3])).await;
    // What they stand for is seen in the upstream itself.
    upstream.swap("t", vec![rows([2, 9])]).await;
    wait_for(&sidecar, "what is left upstream", &multiset([2, 9])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schema_is_refused_or_followed() {
    let wide = |ids: Vec<i64>| {
        let narrow = rows(ids.clone());
        let [id, word] = [0, 1].map(|at| Arc::clone(narrow.column(at)));
        let new: ArrayRef = Arc::new(Int64Array::from(ids));
        RecordBatch::try_from_iter([("id", id), ("word", word), ("new", new)]).expect("three columns")
    };
    let upstream = upstream(Form::Of2024, [1]).await;
    let blocks = dataset(&upstream, "refresh_check_interval: 1s").param("append_stream_acceptable_lag", "2s");
    let blocks = start(&blocks).await;
    let follows =
        dataset(&upstream, "refresh_check_interval: 1s").field("on_schema_change: sync_all_columns");
    let follows = start(&follows).await;
    for sidecar in [&blocks, &follows] {
        wait_for(sidecar, "the snapshot", &multiset([1])).await;
    }
    upstream.replace("t", vec![wide(vec![1])]);
    upstream.push("t", wide(vec![2])).await;
    wait_for(&follows, "the rows of the new schema", &multiset([1, 2])).await;
    let sum = async || follows.sql("select sum(new) as s from t").await == serde_json::json!([{"s": 3}]);
    follows.wait_until("the new column is filled", sum).await;
    wait_for_status(&blocks, "Error").await;
    let told = status(&blocks).await["error_message"].as_str().unwrap().to_owned();
    assert!(told.contains("`new`") && told.contains("block"), "{told}");
    assert_eq!(held(&blocks).await, Some(multiset([1])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_served_and_then_goes_on() {
    for form in FORMS {
        let mut upstream = upstream(form, 0..100).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "refresh_check_interval: 1s, mode: file, params: {{file_path: {}}}",
            folder.path().join("t").display()
        );
        let dataset = dataset(&upstream, &settings);
        let first = start(&dataset).await;
        wait_for(&first, "the snapshot", &multiset(0..100)).await;
        upstream.push("t", rows([5, 100])).await;
        let mut expected = multiset((0..101).chain([5]));
        wait_for(&first, "a pushed row", &expected).await;
        first.kill().await;
        upstream.push("t", rows([101, 7])).await;
        upstream.stop().await;
        let second = start(&dataset).await;
        wait_for(&second, &format!("what was on disk, {form:?}"), &expected).await;
        upstream.restart().await;
        upstream.push("t", rows([102])).await;
        [101, 7, 102].into_iter().for_each(|id| *expected.entry(id).or_default() += 1);
        wait_for(&second, "what came meanwhile", &expected).await;
        assert_stays(&second, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_renewed() {
    let builder =
        Upstream::builder().table("t", vec![rows([1])]).streams(MODERN).api_key("key-of-the-stream");
    let upstream = builder.start().await;
    let dataset =
        dataset(&upstream, "refresh_check_interval: 0").param("spiceai_api_key", "${secrets:STREAM_KEY}");
    let builder =
        Sidecar::builder().spicepod(&spicepod(&[dataset], "")).secret("STREAM_KEY", "key-of-the-stream");
    let sidecar = builder.start().await;
    wait_for(&sidecar, "the snapshot", &multiset([1])).await;
    upstream.expire_tokens();
    upstream.end_streams();
    upstream.push("t", rows([2])).await;
    wait_for(&sidecar, "rows with another token", &multiset([1, 2])).await;
    upstream.inject(Method::DoExchange, 1, Fault::Status(Status::unauthenticated("once more")));
    upstream.end_streams();
    upstream.push("t", rows([3])).await;
    wait_for(&sidecar, "rows after a refusal", &multiset([1, 2, 3])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_upstream_is_sent_one_message_that_says_hello() {
    let upstream = upstream(MODERN, [1]).await;
    let sidecar = follow_blindly(&upstream).await;
    wait_for(&sidecar, "the snapshot", &multiset([1])).await;
    let calls = upstream.received();
    let call = calls.iter().find(|call| call.method == Method::DoExchange).expect("a subscription");
    assert_eq!(call.sql.as_deref(), Some("t"));
    let hello = sidewing::proto::stream::Subscribe::decode(&call.app_metadata);
    assert_eq!(hello.map(|hello| hello.held), Some(None), "it holds nothing, and knows positions");
}
