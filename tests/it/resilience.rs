//! Upstreams that are late, die, refuse, reset and lie: what the application sees of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::support::client::{Order, assert_same, batch};
use crate::support::pki::Pki;
use crate::support::port::ClosedPort;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

/// "Within seconds": the ten seconds after which no new attempt is made, and some for a slow machine.
const FAIL_MAX: Duration = Duration::from_secs(20);

/// Rows enough for several batches and several messages.
const MANY_ROWS: i64 = 60_000;

const AGGREGATE: &str = "select status, count(*) as n from orders group by status order by status";

fn orders(rows: i64) -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let status = |id| if id % 3 == 0 { "open" } else { "closed" };
    batch([("id", ids), ("status", Arc::new(StringArray::from_iter_values((0..rows).map(status))))])
}

async fn upstream() -> Upstream {
    Upstream::builder().table("orders", orders(10)).start().await
}

async fn sidecar_of(upstream: &Upstream) -> Sidecar {
    let sidecar = sidecar_at(upstream).start().await;
    sidecar.wait_ready().await;
    upstream.clear();
    sidecar
}

fn sidecar_at(upstream: &Upstream) -> crate::support::sidecar::Builder {
    Sidecar::builder().spicepod(&spicepod(&[Dataset::of("orders", upstream)], ""))
}

/// Returns when a call of `method` is at work upstream.
async fn wait_for_call(upstream: &Upstream, method: Method) {
    let arrived = async {
        while upstream.count(method) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(FAIL_MAX, arrived).await.unwrap_or_else(|_| panic!("no {method:?} came"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_absent_at_start_is_waited_for() {
    let closed = ClosedPort::any();
    let port = closed.number();
    let url = format!("http://127.0.0.1:{port}");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::at("orders", &url)], "")).start().await;
    let health = sidecar.http("/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    sidecar
        .wait_until("the dataset is in error", async || {
            sidecar.http("/v1/datasets?status=true").await.body.contains("Error")
        })
        .await;
    let ready = sidecar.http("/v1/ready").await;
    assert_eq!(ready.status, 503);
    let reason = format!("{}\n{}", ready.body, sidecar.http("/v1/ready?verbose=true").await.body);
    assert!(reason.contains("orders") && reason.contains(&port.to_string()), "{reason}");
    let answer = sidecar.sql_as(AGGREGATE, "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("orders") && answer.body.contains(&port.to_string()), "{}", answer.body);

    let upstream = Upstream::builder().table("orders", orders(10)).port(port).start().await;
    sidecar.wait_ready().await;
    assert_eq!(sidecar.sql("select count(*) as n from orders").await, serde_json::json!([{"n": 10}]));
    drop(upstream);
    let ended = sidecar.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_in_mid_work_is_told_and_forgotten() {
    let mut upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    sidecar.sql(AGGREGATE).await;
    upstream.stop().await;
    for _ in 0..3 {
        let started = Instant::now();
        let answer = sidecar.sql_as(AGGREGATE, "application/json").await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(started.elapsed() < FAIL_MAX, "{:?}", started.elapsed());
        assert!(answer.body.contains(&upstream.addr().port().to_string()), "{}", answer.body);
    }
    assert_eq!(sidecar.http("/health").await.status, 200);
    upstream.restart().await;
    sidecar
        .wait_until("a query succeeds again", async || {
            sidecar.sql_as(AGGREGATE, "application/json").await.status == 200
        })
        .await;
    sidecar.sql(AGGREGATE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_runs_as_the_upstream_dies_ends_within_seconds() {
    let mut upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    upstream.inject(Method::DoGet, 1, Fault::Hang);
    let started = Instant::now();
    let dies = async {
        wait_for_call(&upstream, Method::DoGet).await;
        upstream.stop().await;
    };
    let (answer, ()) = tokio::join!(sidecar.sql_as(AGGREGATE, "application/json"), dies);
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(started.elapsed() < FAIL_MAX, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_and_two_unavailable_answers_are_invisible() {
    let (queries, every) = match std::env::var_os("SIDEWING_LONG") {
        Some(_) => (5_000, 1_000),
        None => (1_500, 500),
    };
    let upstream = upstream().await;
    upstream.reset_every(every);
    let sidecar = sidecar_of(&upstream).await;
    upstream.inject(Method::GetFlightInfo, 1, Fault::Status(Status::unavailable("injected")));
    upstream.inject(Method::DoGet, 2, Fault::Status(Status::unavailable("injected")));
    for query in 0..queries {
        // Each statement is new, so that no cache answers for the upstream.
        let sql = format!("select count(*) as n from orders where id <> -{}", query + 1);
        let answer = sidecar.sql_as(&sql, "application/json").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "[{\"n\":10}]"), "query {query}");
    }
    let resets = upstream.received().len() / every;
    assert!(resets >= 2 && upstream.connections() > 2, "{resets} resets");
}

#[tokio::test(flavor = "multi_thread")]
async fn goaway_under_concurrent_queries_is_invisible() {
    let upstream = upstream().await;
    upstream.goaway_every(50);
    let sidecar = sidecar_of(&upstream).await;
    let work = |worker: usize| {
        let sidecar = &sidecar;
        async move {
            for query in 0..100 {
                let sql = format!("select count(*) as n from orders where id <> -{worker}{query}");
                let answer = sidecar.sql_as(&sql, "application/json").await;
                assert_eq!(answer.status, 200, "{worker}.{query}: {}", answer.body);
            }
        }
    };
    futures::future::join_all((1..=4).map(work)).await;
    assert!(upstream.connections() > 4, "{} connections", upstream.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_retried() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    let retryable = {
        let mut metadata = MetadataMap::new();
        metadata.insert("spiceai-retryable", "1".parse().unwrap());
        Status::with_metadata(Code::InvalidArgument, "connection reset", metadata)
    };
    for (case, fault) in [
        Fault::Status(Status::unavailable("busy")),
        Fault::Status(Status::deadline_exceeded("late")),
        Fault::Status(Status::internal("h2 protocol error: error reading a body from connection")),
        Fault::Status(Status::unknown("transport error")),
        Fault::Status(Status::cancelled("operation was canceled")),
        Fault::Status(retryable),
        Fault::Http503,
        Fault::Reset,
    ]
    .into_iter()
    .enumerate()
    {
        for method in [Method::GetFlightInfo, Method::DoGet] {
            upstream.clear();
            upstream.inject(method, 1, fault.clone());
            let sql = format!("select count(*) as n from orders where id <> -{}", case + 1);
            let answer = sidecar.sql_as(&sql, "application/json").await;
            assert_eq!(answer.status, 200, "{method:?} {fault:?}: {}", answer.body);
            // Retried as it was: scans would have asked for columns.
            assert!(upstream.statements().iter().all(|s| s.to_lowercase().contains("count(")), "{fault:?}");
            upstream.heal();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_that_stays_down_is_503() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    upstream.inject(Method::GetFlightInfo, usize::MAX, Fault::Http503);
    upstream.inject(Method::DoGet, usize::MAX, Fault::Http503);
    let started = Instant::now();
    let answer = sidecar.sql_as(AGGREGATE, "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(started.elapsed() < FAIL_MAX, "{:?}", started.elapsed());
    assert!(!answer.body.contains("compression flag"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_is_not_hammered() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    let busy = Fault::Status(Status::unavailable("busy"));
    upstream.inject(Method::GetFlightInfo, usize::MAX, busy.clone());
    upstream.inject(Method::DoGet, usize::MAX, busy);
    let started = Instant::now();
    let ask = |n: usize| {
        let sidecar = &sidecar;
        async move { sidecar.sql_as(&format!("select {n} from orders"), "application/json").await.status }
    };
    let statuses = futures::future::join_all((0..200).map(ask)).await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    // 200 requests, a fifth more for retries, and ten a second over the budget's window of ten seconds;
    // some slack for probes.
    let allowed = 240 + 10 * (started.elapsed().as_secs() as usize + 10) + 10;
    let calls = upstream.received().len();
    assert!(calls <= allowed, "{calls} calls in {:?}, allowed are {allowed}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_is_never_taken_as_whole() {
    let upstream = Upstream::builder().table("orders", orders(MANY_ROWS)).start().await;
    let sidecar = sidecar_of(&upstream).await;
    let sql = "select id, status from orders";
    for accept in ["application/json", "text/csv"] {
        let status = Status::unavailable("broken in the middle");
        upstream.inject(Method::DoGet, 1, Fault::BreakAfter { batches: 3, status });
        let cut = sidecar.try_sql_as(sql, accept).await;
        assert!(cut.is_err(), "{accept}: {} bytes came as a whole answer", cut.unwrap().body.len());
        assert_eq!(upstream.count(Method::DoGet), 1, "nothing is retried after the first batch");
        upstream.clear();
    }
    let status = Status::unavailable("broken in the middle");
    upstream.inject(Method::DoGet, 1, Fault::BreakAfter { batches: 3, status });
    let mut client = sidecar.flight_client().await;
    let error = client.query(sql).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(error.message().contains("broken in the middle"), "{error:?}");
    assert_eq!(client.query(sql).await.unwrap().num_rows(), usize::try_from(MANY_ROWS).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_the_upstream_cannot_plan_falls_back_to_scans() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    // Its tickets are known from now on.
    sidecar.sql("select count(*) from orders").await;
    for (case, status) in [
        Status::invalid_argument("no such function"),
        Status::unimplemented("not here"),
        Status::internal("Error during planning: cannot"),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.clear();
        // The statement whole, and the part of it that would be sent instead.
        upstream.refuse(2, &status);
        // Each statement is new, so that nothing is known of it.
        let columns = ["status", "status, status as again", "status, status as once_more"][case];
        let sql =
            format!("select {columns}, count(*) + {case} as n from orders group by status order by status");
        let rows = sidecar.sql(&sql).await;
        let counts: Vec<_> = (0..2).map(|row| rows[row]["n"].as_i64().unwrap() - case as i64).collect();
        assert_eq!(counts, [6, 4], "{status:?}");
        let statements = upstream.statements();
        let last = statements.last().map(|sql| sql.to_lowercase()).unwrap_or_default();
        assert!(
            !last.is_empty() && !last.contains("group by"),
            "{status:?}: the scan went upstream: {statements:#?}"
        );
        let first = upstream.received().into_iter().find_map(|call| call.sql).unwrap_or_default();
        assert!(first.to_lowercase().contains("group by"), "it was forwarded first: {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_failures_are_told_and_do_not_fall_back() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    for (case, status) in [
        Status::resource_exhausted("out of memory upstream"),
        Status::permission_denied("not for you"),
        Status::unavailable("gone for good"),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.clear();
        upstream.inject(Method::GetFlightInfo, usize::MAX, Fault::Status(status.clone()));
        upstream.inject(Method::DoGet, usize::MAX, Fault::Status(status.clone()));
        let sql = format!("select status, count(*) + {case} from orders group by status");
        let answer = sidecar.sql_as(&sql, "application/json").await;
        assert!((502..=504).contains(&answer.status), "{status:?}: {} {}", answer.status, answer.body);
        assert!(answer.body.contains(status.message()) && answer.body.contains("orders"), "{}", answer.body);
        upstream.heal();
        let asked = upstream.received().into_iter().filter(|call| call.method != Method::GetSchema);
        let asked: Vec<_> = asked.filter_map(|call| call.sql).collect();
        assert!(
            !asked.is_empty() && asked.iter().all(|sql| sql.to_lowercase().contains("group by")),
            "{asked:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_few_and_repeated_when_a_token_expires() {
    let upstream = Upstream::builder().table("orders", orders(10)).api_key("the-key-1").start().await;
    let dataset = Dataset::of("orders", &upstream).param("spiceai_api_key", "${secrets:KEY}");
    let builder = Sidecar::builder().spicepod(&spicepod(&[dataset], ""));
    let sidecar = builder.secret("KEY", "the-key-1").start().await;
    sidecar.wait_ready().await;
    sidecar.sql(AGGREGATE).await;
    upstream.clear();
    for n in 0..20 {
        sidecar.sql(&format!("select {n} as n from orders")).await;
    }
    assert_eq!(upstream.count(Method::Handshake), 0, "one handshake a channel, not one a query");
    upstream.expire_tokens();
    for n in 20..25 {
        sidecar.sql(&format!("select {n} as n from orders")).await;
    }
    assert_eq!(upstream.count(Method::Handshake), 1);
    let bearer = |call: &crate::support::upstream::Call| {
        call.metadata.get("authorization").is_some_and(|value| value.starts_with("Bearer token-"))
    };
    let calls = upstream.received();
    assert!(calls.iter().filter(|call| call.method != Method::Handshake).all(bearer), "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_live_shortly_are_renewed() {
    let upstream = Upstream::builder().table("orders", orders(10)).api_key("the-key-2");
    // Longer than a call and its repetition take on a busy machine.
    let upstream = upstream.token_lifetime(Duration::from_secs(1)).start().await;
    let dataset = Dataset::of("orders", &upstream).param("spiceai_api_key", "${secrets:KEY}");
    let builder = Sidecar::builder().spicepod(&spicepod(&[dataset], ""));
    let sidecar = builder.secret("KEY", "the-key-2").start().await;
    sidecar.wait_ready().await;
    for _ in 0..4 {
        sidecar.sql(AGGREGATE).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_without_tokens_or_handshakes_work() {
    let orders = || orders(10);
    let silent =
        Upstream::builder().table("orders", orders()).api_key("the-key-3").without_token().start().await;
    let open = Upstream::builder().table("orders", orders()).without_handshake().start().await;
    for upstream in [&silent, &open] {
        let dataset = Dataset::of("orders", upstream).param("spiceai_api_key", "${secrets:KEY}");
        let builder = Sidecar::builder().spicepod(&spicepod(&[dataset], ""));
        let sidecar = builder.secret("KEY", "the-key-3").start().await;
        sidecar.wait_ready().await;
        sidecar.sql(AGGREGATE).await;
    }
    sidecar_of(&open).await.sql(AGGREGATE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_endpoints_are_read_and_unreachable_locations_fall_back() {
    let upstream = Upstream::builder().table("orders", orders(1000)).start().await;
    let closed = ClosedPort::any();
    let far = vec![format!("grpc://127.0.0.1:{}", closed.number())];
    upstream.set_endpoints(vec![vec![], far, vec!["arrow-flight-reuse-connection://?".to_owned()]]);
    let datasets = [Dataset::of("orders", &upstream), Dataset::flightsql("scanned", "orders", &upstream)];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    for table in ["orders", "scanned"] {
        let answer = client.query(&format!("select id, status from {table}")).await.unwrap();
        assert_same(table, &answer.batches, &orders(1000), Order::Any);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_sql_upstream_gets_flight_sql() {
    let upstream =
        Upstream::builder().table("orders", orders(10)).flight_sql_only().login("ann", "pw-of-ann");
    let upstream = upstream.start().await;
    let dataset = Dataset::flightsql("orders", "orders", &upstream)
        .param("flightsql_username", "ann")
        .param("flightsql_password", "${secrets:PW}");
    let forwarded = dataset.clone().param("flightsql_dialect", "datafusion");
    for dataset in [dataset, forwarded] {
        let builder = Sidecar::builder().spicepod(&spicepod(&[dataset], ""));
        let sidecar = builder.secret("PW", "pw-of-ann").start().await;
        sidecar.wait_ready().await;
        let mut client = sidecar.flight_client().await;
        let expected = upstream.query(AGGREGATE).await;
        let answer = client.query(AGGREGATE).await.unwrap();
        assert_same("flight sql", &answer.batches, &expected, Order::Kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets_of_one_upstream_share_a_channel() {
    let pki = Pki::new();
    let tables = ["a", "b", "c", "d", "e", "f"];
    let builder = Upstream::builder().tls(pki.server("localhost"));
    let upstream = builder.tables(tables.map(|name| (name, orders(1)))).start().await;
    let datasets = tables.map(|name| Dataset::of(name, &upstream).ca(&pki.ca_file()));
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    upstream.clear();
    for table in tables {
        sidecar.sql(&format!("select count(*) from {table}")).await;
    }
    let mut used: Vec<_> = upstream.received().into_iter().map(|call| call.connection).collect();
    used.dedup();
    assert_eq!(used.len(), 1, "connections used: {used:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_is_not_kept_is_an_error() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    let other: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    upstream.promise_schema(Some(batch([("something", other)])[0].schema()));
    let answer = sidecar.sql_as("select id, status from orders where id < 5", "application/json").await;
    assert!((500..=504).contains(&answer.status), "{} {}", answer.status, answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_waited_for() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    upstream.inject(Method::DoGet, 1, Fault::Delay(Duration::from_secs(12)));
    // Longer than the pings' patience and the retries' end: the upstream still works on it.
    let answer = sidecar.sql_as(AGGREGATE, "application/json").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(upstream.count(Method::DoGet), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_query_end() {
    let upstream = upstream().await;
    let sidecar = sidecar_of(&upstream).await;
    upstream.inject(Method::DoGet, 1, Fault::Delay(Duration::from_secs(2)));
    let http = sidecar.http_addr().to_owned();
    let query = reqwest::Client::builder().no_proxy().build().unwrap();
    let query = query.post(format!("http://{http}/v1/sql")).body(AGGREGATE).send();
    let end = async {
        wait_for_call(&upstream, Method::DoGet).await;
        sidecar.terminate().await
    };
    let (answer, ended) = tokio::join!(query, end);
    let answer = answer.expect("an answer in spite of SIGTERM");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
