//! The results cache of the real binary: exact where the data is kept here, asked for where it is not, said in headers.

use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::Ticket;
use futures::TryStreamExt;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const REFRESH: &str = "/v1/datasets/t/acceleration/refresh";
const SQL: &str = "select min(g) as a, max(g) as b, count(*) as n from t";

/// A thousand rows that all carry one number.
fn numbered(g: i64) -> Vec<RecordBatch> {
    let ints = |values: Vec<i64>| -> ArrayRef { std::sync::Arc::new(Int64Array::from(values)) };
    batch([("id", ints((0..1_000).collect())), ("g", ints(vec![g; 1_000]))])
}

async fn upstream() -> Upstream {
    Upstream::builder().table("t", numbered(1)).table("u", numbered(1)).start().await
}

/// `settings` are those of `sql_results`, in YAML's flow form.
async fn start(datasets: &[Dataset], settings: &str) -> Sidecar {
    let runtime = format!("runtime: {{caching: {{sql_results: {{{settings}}}}}}}\n");
    let sidecar = Sidecar::builder().spicepod(&spicepod(datasets, &runtime)).start().await;
    sidecar.wait_ready().await;
    sidecar
}

/// An answer and what its headers say of the cache.
#[derive(Debug)]
struct Told {
    code: u16,
    status: String,
    x_cache: String,
    scope: String,
    vary: String,
    control: String,
    body: String,
}

async fn ask(sidecar: &Sidecar, sql: &str, headers: &[(&str, &str)]) -> Told {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}/v1/sql", sidecar.http_addr())).body(sql.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    let header = |name: &str| match response.headers().get(name) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => "-".to_owned(),
    };
    Told {
        code: response.status().as_u16(),
        status: header("results-cache-status"),
        x_cache: header("x-cache"),
        scope: header("results-cache-scope"),
        vary: header("vary"),
        control: header("cache-control"),
        body: response.text().await.unwrap(),
    }
}

/// The status of the cache, of an answer that must succeed.
async fn status(sidecar: &Sidecar, sql: &str, headers: &[(&str, &str)]) -> String {
    let told = ask(sidecar, sql, headers).await;
    assert_eq!(told.code, 200, "{sql} {headers:?}: {told:?}");
    told.status
}

/// A metric's value; zero where it is not there would be a mistake.
async fn metric(sidecar: &Sidecar, name: &str) -> f64 {
    let text = sidecar.metrics().await;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Asks for a refresh, and returns when the sidecar says that it has ended.
async fn refresh(sidecar: &Sidecar) {
    let last = async || {
        let answer = sidecar.http("/v1/datasets?status=true").await;
        let all: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let t = all.as_array().unwrap().iter().find(|dataset| dataset["name"] == "t").unwrap().clone();
        (t["acceleration"]["last_refresh"].clone(), t["status"].clone())
    };
    let (before, _) = last().await;
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    let is_done = async || {
        let (now, status) = last().await;
        now != before && status == "Ready"
    };
    sidecar.wait_until("the refresh has ended", is_done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_kept_data_is_a_hit_until_a_refresh() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let first = ask(&sidecar, SQL, &[]).await;
    assert_eq!((first.status.as_str(), first.x_cache.as_str()), ("MISS", "Miss from spiceai"), "{first:?}");
    let again = ask(&sidecar, "SELECT min(g) AS a, max(g) AS b,\n count(*) AS n FROM T -- again", &[]).await;
    assert_eq!((again.status.as_str(), again.x_cache.as_str()), ("HIT", "Hit from spiceai"), "{again:?}");
    assert_eq!((again.scope.as_str(), again.vary.as_str(), again.control.as_str()), ("shared", "-", "-"));
    assert_eq!(again.body, first.body);

    upstream.replace("t", numbered(2));
    refresh(&sidecar).await;
    let new = ask(&sidecar, SQL, &[]).await;
    assert_eq!((new.status.as_str(), new.body.as_str()), ("MISS", r#"[{"a":2,"b":2,"n":1000}]"#));
    assert_eq!(status(&sidecar, SQL, &[]).await, "HIT");

    assert_eq!(metric(&sidecar, "results_cache_hits").await, 2.0);
    assert_eq!(metric(&sidecar, "results_cache_misses").await, 2.0);
    assert_eq!(metric(&sidecar, "results_cache_requests").await, 4.0);
    assert_eq!(metric(&sidecar, "results_cache_items_count").await, 1.0);
    assert_eq!(metric(&sidecar, r#"results_cache_evictions{reason="invalidated"}"#).await, 1.0);
    assert_eq!(metric(&sidecar, r#"results_cache_evictions{reason="size"}"#).await, 0.0);
    assert_eq!(metric(&sidecar, "results_cache_max_size_bytes").await, f64::from(128 << 20));
    assert!(metric(&sidecar, "results_cache_size_bytes").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_less_than_what_was_acknowledged() {
    let upstream = upstream().await;
    let views = "views:\n  - {name: v, sql: 'SELECT * FROM t'}\n";
    let spicepod = spicepod(&[Dataset::of("t", &upstream).accelerated("")], views);
    let sidecar = Sidecar::builder().spicepod(&spicepod).start().await;
    sidecar.wait_ready().await;
    let acknowledged = std::sync::atomic::AtomicI64::new(1);
    let writes = async {
        for g in 2..25 {
            upstream.replace("t", numbered(g));
            refresh(&sidecar).await;
            acknowledged.store(g, std::sync::atomic::Ordering::SeqCst);
        }
        acknowledged.store(i64::MAX, std::sync::atomic::Ordering::SeqCst);
    };
    let read = async |sql: &str| {
        let mut asked = 0;
        loop {
            let least = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
            if least == i64::MAX {
                return asked;
            }
            let row = sidecar.sql(sql).await[0].clone();
            let (a, b) = (row["a"].as_i64().unwrap(), row["b"].as_i64().unwrap());
            assert!(a >= least && a == b && row["n"] == 1_000, "{row}, {least} was acknowledged");
            asked += 1;
        }
    };
    let of_view = SQL.replace("from t", "from v");
    let (_, one, two, three) = futures::join!(writes, read(SQL), read(SQL), read(&of_view));
    let hits = metric(&sidecar, "results_cache_hits").await;
    assert!(hits > 0.0, "{} asked, none was cached", one + two + three);
    assert_eq!(sidecar.sql(SQL).await, json!([{"a": 24, "b": 24, "n": 1_000}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_queries_that_come_together_reach_the_upstream_once() {
    let upstream = upstream().await;
    let datasets = [Dataset::of("u", &upstream)];
    let sidecar = start(&datasets, "enabled: true, item_ttl: 1h").await;
    upstream.clear();
    upstream.inject(Method::DoGet, 1, Fault::Delay(Duration::from_millis(1_500)));
    let sql = "select sum(id) as s from u";
    let asked = (0..12).map(|_| ask(&sidecar, sql, &[]));
    let told = futures::future::join_all(asked).await;
    for told in &told {
        assert_eq!((told.code, told.body.as_str()), (200, r#"[{"s":499500}]"#), "{told:?}");
    }
    assert_eq!(told.iter().filter(|told| told.status == "MISS").count(), 1, "{told:#?}");
    assert_eq!(upstream.statements().len(), 1, "{:#?}", upstream.statements());
    assert_eq!(metric(&sidecar, "results_cache_misses").await, 1.0);
    assert_eq!(metric(&sidecar, "results_cache_hits").await, 11.0);

    // A failure is everybody's, and nobody's after that.
    let other = "select max(id) as s from u";
    upstream.inject(Method::DoGet, 1, Fault::Status(Status::invalid_argument("no")));
    upstream.inject(Method::DoGet, 1, Fault::Status(Status::resource_exhausted("busy")));
    let told = futures::future::join_all((0..3).map(|_| ask(&sidecar, other, &[]))).await;
    assert!(told.iter().any(|told| told.code == 503 && told.body.contains("busy")), "{told:#?}");
    assert_eq!(ask(&sidecar, other, &[]).await.body, r#"[{"s":999}]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_no_answer_from_others() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("u", &upstream)], "enabled: true, item_ttl: 1h").await;
    upstream.clear();
    upstream.inject(Method::DoGet, 1, Fault::Delay(Duration::from_secs(4)));
    let sql = "select sum(id) as s from u";
    let mut impatient = Box::pin(ask(&sidecar, sql, &[]));
    let is_upstream = sidecar.wait_until("the first is upstream", async || upstream.count(Method::DoGet) > 0);
    tokio::select! {
        told = &mut impatient => panic!("answered at once: {told:?}"),
        () = is_upstream => {}
    }
    let leave = async {
        let both = async || metric(&sidecar, "results_cache_requests").await == 2.0;
        sidecar.wait_until("the second waits", both).await;
        drop(impatient);
    };
    let (told, ()) = futures::join!(ask(&sidecar, sql, &[]), leave);
    assert_eq!(upstream.statements().len(), 1, "{:#?}", upstream.statements());
    assert_eq!((told.code, told.body.as_str()), (200, r#"[{"s":499500}]"#), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_an_upstream_is_cached_where_the_spicepod_says_so() {
    let upstream = upstream().await;
    let sql = "select max(g) as g from u";
    for (settings, expected) in [
        ("", ["BYPASS", "BYPASS"]),
        ("enabled: true, item_ttl: 1h", ["MISS", "HIT"]),
        ("enabled: true, item_ttl: 0s", ["MISS", "MISS"]),
        ("enabled: false, item_ttl: 1h", ["-", "-"]),
    ] {
        upstream.replace("u", numbered(1));
        let datasets = [Dataset::of("u", &upstream), Dataset::of("t", &upstream).accelerated("")];
        let sidecar = start(&datasets, settings).await;
        let first = ask(&sidecar, sql, &[]).await;
        upstream.replace("u", numbered(2));
        let second = ask(&sidecar, sql, &[]).await;
        assert_eq!([first.status.as_str(), second.status.as_str()], expected, "{settings}");
        let is_old = expected[1] == "HIT";
        assert_eq!(second.body, if is_old { r#"[{"g":1}]"# } else { r#"[{"g":2}]"# }, "{settings}");
        // One side from here, one from there: the upstream decides.
        let mixed = "select count(*) as n from t join u on t.id = u.id";
        assert_eq!(status(&sidecar, mixed, &[]).await, expected[0], "{settings}");
        assert_eq!(status(&sidecar, mixed, &[]).await, expected[1], "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_of_the_same_name_has_other_results() {
    let upstream = upstream().await;
    let dataset = Dataset::of("t", &upstream).accelerated("").field("on_schema_change: drop_and_recreate");
    let sidecar = start(&[dataset], "").await;
    let sql = "select * from t order by id limit 1";
    for expected in ["MISS", "HIT"] {
        let told = ask(&sidecar, sql, &[]).await;
        assert_eq!((told.status.as_str(), told.body.as_str()), (expected, r#"[{"id":0,"g":1}]"#));
    }
    upstream.replace("t", batch([("id", std::sync::Arc::new(Int64Array::from(vec![7])) as ArrayRef)]));
    refresh(&sidecar).await;
    for expected in ["MISS", "HIT"] {
        let told = ask(&sidecar, sql, &[]).await;
        assert_eq!((told.status.as_str(), told.body.as_str()), (expected, r#"[{"id":7}]"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_may_ask_its_source_counts_as_upstream() {
    let upstream = upstream().await;
    let dataset = Dataset::of("t", &upstream).accelerated("on_zero_results: use_source");
    let sidecar = start(&[dataset], "").await;
    assert_eq!(status(&sidecar, SQL, &[]).await, "BYPASS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_result_is_answered_and_fetched_anew_once() {
    let upstream = upstream().await;
    let settings = "enabled: true, item_ttl: 0s, stale_while_revalidate_ttl: 1h";
    let sidecar = start(&[Dataset::of("u", &upstream)], settings).await;
    let sql = "select max(g) as g from u";
    let first = ask(&sidecar, sql, &[]).await;
    assert_eq!(first.status, "MISS");
    assert_eq!(first.control, "max-age=0, stale-while-revalidate=3600");
    upstream.replace("u", numbered(2));
    upstream.clear();
    upstream.inject(Method::DoGet, 1, Fault::Delay(Duration::from_secs(3)));
    for told in futures::future::join_all((0..5).map(|_| ask(&sidecar, sql, &[]))).await {
        assert_eq!((told.status.as_str(), told.body.as_str()), ("STALE", r#"[{"g":1}]"#), "{told:?}");
    }
    assert_eq!(metric(&sidecar, "results_cache_swr_background_query_count").await, 1.0);
    assert_eq!(metric(&sidecar, "results_cache_stale_swr_count").await, 5.0);
    let is_new =
        async || ask(&sidecar, sql, &[("cache-control", "max-stale=3600")]).await.body == r#"[{"g":2}]"#;
    sidecar.wait_until("it was fetched anew", is_new).await;
    assert_eq!(status(&sidecar, sql, &[("cache-control", "min-fresh=1")]).await, "MISS");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_say_how_fresh() {
    let mut upstream = upstream().await;
    let datasets = [Dataset::of("u", &upstream), Dataset::of("t", &upstream).accelerated("")];
    let sidecar = start(&datasets, "enabled: true, item_ttl: 1h").await;
    let sql = "select max(g) as g from u";
    let control = |text: &'static str| [("cache-control", text)];
    let told = ask(&sidecar, sql, &control("only-if-cached")).await;
    assert_eq!((told.code, told.body.contains("only-if-cached")), (504, true), "{told:?}");
    assert_eq!(status(&sidecar, sql, &control("no-store")).await, "BYPASS");
    assert_eq!(status(&sidecar, sql, &[]).await, "MISS");
    assert_eq!(status(&sidecar, sql, &control("only-if-cached")).await, "HIT");
    upstream.replace("u", numbered(2));
    let told = ask(&sidecar, sql, &control("no-cache")).await;
    assert_eq!((told.status.as_str(), told.body.as_str()), ("BYPASS", r#"[{"g":2}]"#));
    let told = ask(&sidecar, sql, &[]).await;
    assert_eq!((told.status.as_str(), told.body.as_str()), ("HIT", r#"[{"g":2}]"#), "it was kept");
    assert_eq!(status(&sidecar, sql, &control("min-fresh=7200")).await, "MISS");

    let own = ask(&sidecar, sql, &[("spice-cache-key", "mine")]).await;
    assert_eq!((own.status.as_str(), own.vary.as_str()), ("MISS", "Spice-Cache-Key"));
    assert_eq!(status(&sidecar, sql, &[("spice-cache-key", "mine")]).await, "HIT");
    let other = ask(&sidecar, "select min(id) as g from u", &[("spice-cache-key", "mine")]).await;
    assert_eq!(other.body, r#"[{"g":0}]"#, "a key stands for no statement");
    for (header, value) in [("spice-cache-key", "not a key"), ("cache-control", "min-fresh=soon")] {
        let told = ask(&sidecar, sql, &[(header, value)]).await;
        assert_eq!((told.code, told.body.contains(header)), (400, true), "{told:?}");
    }

    upstream.stop().await;
    assert_eq!(ask(&sidecar, sql, &control("min-fresh=7200")).await.code, 503);
    let told = ask(&sidecar, sql, &control("min-fresh=7200, stale-if-error=60")).await;
    assert_eq!((told.code, told.status.as_str()), (200, "STALE"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_by_itself_is_not_cached() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "enabled: true, item_ttl: 1h").await;
    for sql in [
        "select random() as r from t limit 1",
        "select now() as r, g from t limit 1",
        "select id from t where current_date > date '2020-01-01' limit 1",
        "select uuid() as u from t limit 1",
        "select 1 as one",
        "select count(*) as n from information_schema.tables",
        "explain select g from t",
        "show tables",
    ] {
        assert_eq!(status(&sidecar, sql, &[]).await, "BYPASS", "{sql}");
        assert_eq!(status(&sidecar, sql, &[]).await, "BYPASS", "{sql}");
    }
    assert_eq!(metric(&sidecar, "results_cache_requests").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_too_large_pass_through_whole() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "max_size: 40KB").await;
    let sql = "select id, g from t";
    for _ in 0..2 {
        assert_eq!(status(&sidecar, sql, &[]).await, "MISS");
        let rows = sidecar.sql(sql).await;
        assert_eq!(rows.as_array().unwrap().len(), 1_000);
    }
    assert_eq!(metric(&sidecar, "results_cache_items_count").await, 0.0);
    // What was cut from large chunks is small.
    for at in 0..30 {
        let sql = format!("select id from t where id > {at} order by id limit 3");
        assert_eq!(status(&sidecar, &sql, &[]).await, "MISS");
        assert_eq!(status(&sidecar, &sql, &[]).await, "HIT");
    }
    let size = metric(&sidecar, "results_cache_size_bytes").await;
    assert!(size > 0.0 && size <= 40_000.0, "{size}");
    assert!(metric(&sidecar, r#"results_cache_evictions{reason="size"}"#).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_statements_are_hits_too() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let chain = (0..2_400).map(|at| format!("id <> -{at}")).collect::<Vec<_>>().join(" and ");
    let union = vec!["select g from t where id = 1"; 200].join(" union all ");
    let deep = format!("select {} 1 {} as n from t limit 1", "(".repeat(45), ")".repeat(45));
    for sql in [format!("select count(*) as n from t where {chain}"), union, deep] {
        assert_eq!(status(&sidecar, &sql, &[]).await, "MISS");
        assert_eq!(status(&sidecar, &sql, &[]).await, "HIT");
        assert_eq!(status(&sidecar, &format!("{sql} -- as a plan"), &[]).await, "HIT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_says_the_same_in_metadata() {
    let upstream = upstream().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let mut client = sidecar.flight_client().await;
    let mut get = async |control: Option<&'static str>, key: Option<&'static str>| {
        let mut request = tonic::Request::new(Ticket::new(SQL));
        let metadata = request.metadata_mut();
        control.map(|text| metadata.insert("cache-control", text.parse().unwrap()));
        key.map(|text| metadata.insert("spice-cache-key", text.parse().unwrap()));
        let response = client.inner().do_get(request).await?;
        let said = |name: &str| response.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        let said = (said("results-cache-status"), said("x-cache"));
        let messages: Vec<_> = response.into_inner().try_collect().await?;
        assert!(messages.len() > 1, "a schema and rows");
        Ok::<_, Status>(said)
    };
    let said = |status: &str, x_cache: Option<&str>| (Some(status.to_owned()), x_cache.map(str::to_owned));
    assert_eq!(get(Some("only-if-cached"), None).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(get(None, None).await.unwrap(), said("MISS", Some("Miss from spiceai")));
    assert_eq!(get(None, None).await.unwrap(), said("HIT", Some("Hit from spiceai")));
    assert_eq!(get(Some("no-cache"), None).await.unwrap(), said("BYPASS", None));
    assert_eq!(get(None, Some("mine")).await.unwrap(), said("MISS", Some("Miss from spiceai")));
    let refused = get(None, Some("not a key")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message().contains("spice-cache-key")),
        (Code::InvalidArgument, true)
    );
    // Over HTTP it is the same result.
    assert_eq!(status(&sidecar, SQL, &[]).await, "HIT");

    let answer = client.query(SQL).await.unwrap();
    assert_eq!(answer.batches[0].column(2).as_primitive::<Int64Type>().value(0), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_is_taken_with_advice() {
    let upstream = upstream().await;
    let dataset = Dataset::of("u", &upstream);
    let runtime = "runtime: {results_cache: {enabled: true, item_ttl: 1h, cache_max_size: 1MB}}\n";
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], runtime)).start().await;
    sidecar.wait_ready().await;
    let sql = "select max(g) as g from u";
    assert_eq!(status(&sidecar, sql, &[]).await, "MISS");
    assert_eq!(status(&sidecar, sql, &[]).await, "HIT");
    assert_eq!(metric(&sidecar, "results_cache_max_size_bytes").await, 1_000_000.0);
    let said = format!("{}{}", sidecar.stdout(), sidecar.stderr());
    assert!(said.contains("`runtime.results_cache` is called `runtime.caching.sql_results` now"), "{said}");
}
