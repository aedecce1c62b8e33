//! What protects an upstream, and who asks it from waiting: circuits, addresses, failover, limits.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::Value;
use tonic::Status;

use crate::support::client::batch;
use crate::support::dns::NameServer;
use crate::support::pki::Pki;
use crate::support::port::ClosedPort;
use crate::support::proxy::Proxy;
use crate::support::sidecar::{HttpAnswer, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Builder, Fault, Method, Upstream};

const JSON: &str = "application/json";
/// A query's own time in these tests.
const TIMEOUT: Duration = Duration::from_secs(4);
const RUNTIME: &str = "runtime:\n  query: {timeout: 4s}\n";
/// What a busy machine adds to what is promised.
const SLACK: Duration = Duration::from_secs(2);
/// From the heal to the first success.
const HEAL_MAX: Duration = Duration::from_secs(5);
/// Pings, and then five connections that take three seconds each.
const OPEN_MAX: Duration = Duration::from_secs(45);

fn orders() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    batch([("id", ids)])
}

fn upstream() -> Builder {
    Upstream::builder().tables([("orders", orders()), ("kept", orders())])
}

/// A statement that no cache knows.
fn statement() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    format!("select count(*) as n from orders where id <> -{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

async fn ask(sidecar: &Sidecar) -> HttpAnswer {
    sidecar.sql_as(&statement(), JSON).await
}

fn code(answer: &HttpAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["code"].as_str().unwrap_or_default().to_owned()
}

/// A metric of the endpoint.
async fn metric(sidecar: &Sidecar, name: &str, endpoint: &str) -> Option<f64> {
    let text = sidecar.metrics().await;
    let start = format!("{name}{{endpoint=\"{endpoint}\"");
    let line = text.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Asks until the circuit is open; every query ends in its time.
async fn until_open(sidecar: &Sidecar) -> HttpAnswer {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = ask(sidecar).await;
        assert!(asked.elapsed() < TIMEOUT + SLACK, "{:?}: {}", asked.elapsed(), answer.body);
        assert!(answer.status >= 500, "{} {}", answer.status, answer.body);
        if code(&answer) == "UpstreamCircuitOpen" {
            return answer;
        }
        assert!(begun.elapsed() < OPEN_MAX, "the circuit does not open: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until there is an answer.
async fn until_answered(sidecar: &Sidecar) {
    let begun = Instant::now();
    loop {
        let answer = ask(sidecar).await;
        if answer.status == 200 {
            break;
        }
        assert!(begun.elapsed() < HEAL_MAX + SLACK, "{:?} after the heal: {}", begun.elapsed(), answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A sidecar behind a proxy, with one dataset that is asked there and one that is kept here.
async fn behind(proxy: &Proxy) -> Sidecar {
    let datasets = [Dataset::at("orders", &proxy.url()), Dataset::at("kept", &proxy.url()).accelerated("")];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, RUNTIME)).start().await;
    sidecar.wait_ready().await;
    sidecar
        .wait_until("the kept rows are here", async || {
            sidecar.sql_as("select count(*) as n from kept", JSON).await.body == "[{\"n\":10}]"
        })
        .await;
    assert_eq!(ask(&sidecar).await.status, 200);
    sidecar
}

/// While the circuit is open: queries fail at once and say why, kept data is answered.
async fn assert_open(sidecar: &Sidecar, proxy: &Proxy, answer: &HttpAnswer) {
    let endpoint = proxy.url();
    for words in ["`orders`", endpoint.as_str(), "since ", "the last: "] {
        assert!(answer.body.contains(words), "{words} in {}", answer.body);
    }
    assert_eq!(answer.status, 503);
    assert_eq!(sidecar.sql("select count(*) as n from kept").await, serde_json::json!([{"n": 10}]));
    let state = metric(sidecar, "upstream_circuit_state", &endpoint).await.unwrap();
    assert!(state > 0.0, "{state}");
    assert!(metric(sidecar, "upstream_circuit_opened", &endpoint).await.unwrap() >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_opens_the_circuit_and_is_used_again_within_five_seconds() {
    let upstream = upstream().start().await;
    let mut proxy = Proxy::start(upstream.addr()).await;
    let sidecar = behind(&proxy).await;
    assert_eq!(metric(&sidecar, "upstream_circuit_state", &proxy.url()).await, Some(0.0));
    proxy.silence();
    let answer = until_open(&sidecar).await;
    assert_open(&sidecar, &proxy, &answer).await;
    proxy.heal().await;
    until_answered(&sidecar).await;
    sidecar.wait_ready().await;
    assert_eq!(metric(&sidecar, "upstream_circuit_state", &proxy.url()).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_or_resets_opens_it_as_well() {
    let upstream = upstream().start().await;
    let mut proxy = Proxy::start(upstream.addr()).await;
    let sidecar = behind(&proxy).await;
    for refuses in [true, false] {
        match refuses {
            true => proxy.refuse().await,
            false => proxy.reset(),
        }
        let answer = until_open(&sidecar).await;
        assert_open(&sidecar, &proxy, &answer).await;
        let asked = Instant::now();
        ask(&sidecar).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        proxy.heal().await;
        until_answered(&sidecar).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_errors_leave_the_circuit_closed() {
    let upstream = upstream().start().await;
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("orders", &upstream)], "")).start().await;
    sidecar.wait_ready().await;
    for status in
        [Status::invalid_argument("no"), Status::resource_exhausted("too big"), Status::internal("plan")]
    {
        upstream.inject(Method::GetFlightInfo, 24, Fault::Status(status.clone()));
        for _ in 0..12 {
            let answer = ask(&sidecar).await;
            assert_ne!(code(&answer), "UpstreamCircuitOpen", "{status:?}: {}", answer.body);
        }
        upstream.heal();
        assert_eq!(ask(&sidecar).await.status, 200);
    }
    assert_eq!(metric(&sidecar, "upstream_circuit_opened", &upstream.url()).await, Some(0.0));
}

/// Two upstreams with one port, at two addresses of this machine.
async fn pair(pki: &Pki) -> (Upstream, Upstream) {
    let tls = || pki.server("core.test");
    let first = upstream().tls(tls()).start().await;
    let port = first.addr().port();
    let second = upstream().tls(tls()).ip(SECOND).port(port).start().await;
    (first, second)
}

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A sidecar that knows its upstream by a name.
async fn by_name(pki: &Pki, names: &NameServer, port: u16) -> Sidecar {
    let dataset = Dataset::at("orders", &format!("https://core.test:{port}")).ca(&pki.ca_file());
    let runtime = format!("runtime:\n  params: {{upstream_name_server: '{}'}}\n", names.addr());
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], &runtime)).start().await;
    sidecar.wait_ready().await;
    sidecar
}

/// Asks without a pause until it is told to stop; the number of queries and the first failure.
async fn load(sidecar: &Sidecar, is_over: &AtomicBool) -> (usize, Option<String>) {
    let (mut asked, mut failed) = (0, None);
    while !is_over.load(Ordering::SeqCst) {
        let answer = ask(sidecar).await;
        asked += 1;
        if answer.status != 200 || answer.body != "[{\"n\":10}]" {
            failed = failed.or(Some(format!("{} {}", answer.status, answer.body)));
        }
    }
    (asked, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_addresses_loses_no_query() {
    let pki = Pki::new();
    let (mut first, mut second) = pair(&pki).await;
    let names = NameServer::start(&[FIRST, SECOND], 1).await;
    let sidecar = by_name(&pki, &names, first.addr().port()).await;
    let is_over = AtomicBool::new(false);
    let restarts = async {
        let pause = || tokio::time::sleep(Duration::from_millis(1500));
        pause().await;
        for _ in 0..2 {
            first.drain().await;
            pause().await;
            first.restart().await;
            pause().await;
            pause().await;
            second.drain().await;
            pause().await;
            second.restart().await;
            pause().await;
            pause().await;
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let loads = futures::future::join_all((0..4).map(|_| load(&sidecar, &is_over)));
    let (done, ()) = tokio::join!(loads, restarts);
    let failures: Vec<_> = done.iter().filter_map(|(_, failed)| failed.as_deref()).collect();
    let asked: usize = done.iter().map(|(asked, _)| asked).sum();
    assert!(failures.is_empty(), "of {asked} queries: {failures:#?}\n{}", sidecar.stderr());
    assert!(asked > 50, "{asked} queries");
    for upstream in [&first, &second] {
        assert!(upstream.count(Method::DoGet) > asked / 20, "{} of {asked}", upstream.count(Method::DoGet));
    }
}

/// `localhost` is such a name where the upstream listens on one of its addresses.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_listens_does_not_keep_the_circuit_open() {
    let pki = Pki::new();
    let tls = pki.server("core.test");
    let mut only = upstream().tls(tls).ip(FIRST).start().await;
    let names = NameServer::start(&[FIRST, SECOND], 1).await;
    let sidecar = by_name(&pki, &names, only.addr().port()).await;
    for _ in 0..2 {
        only.stop().await;
        until_open(&sidecar).await;
        // The ejections of either address grow meanwhile.
        tokio::time::sleep(Duration::from_secs(6)).await;
        only.restart().await;
        until_answered(&sidecar).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_the_name_server_no_longer_names_are_left() {
    let pki = Pki::new();
    let (first, second) = pair(&pki).await;
    let names = NameServer::start(&[FIRST], 1).await;
    let port = first.addr().port();
    let sidecar = by_name(&pki, &names, port).await;
    let endpoint = format!("https://core.test:{port}");
    assert_eq!(ask(&sidecar).await.status, 200);
    assert_eq!(second.count(Method::DoGet), 0);
    assert_eq!(metric(&sidecar, "upstream_addresses", &endpoint).await, Some(1.0));
    names.set(&[SECOND]);
    let asked = names.asked();
    sidecar
        .wait_until("the second address is asked", async || {
            assert_eq!(ask(&sidecar).await.status, 200);
            second.count(Method::DoGet) > 0
        })
        .await;
    assert!(names.asked() > asked);
    first.clear();
    for _ in 0..5 {
        assert_eq!(ask(&sidecar).await.status, 200);
    }
    assert_eq!(first.count(Method::DoGet), 0);
    // Both: both are used.
    names.set(&[FIRST, SECOND]);
    sidecar
        .wait_until("the first address is asked again", async || {
            assert_eq!(ask(&sidecar).await.status, 200);
            first.count(Method::DoGet) > 0
        })
        .await;
    assert_eq!(metric(&sidecar, "upstream_addresses", &endpoint).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_endpoint_answers_while_the_first_is_away() {
    let mut first = upstream().start().await;
    let second = upstream().start().await;
    let both = format!("{}, {}", first.url(), second.url());
    // Another dataset with the same list: one statement may read both.
    let datasets = ["orders", "kept"].map(|name| Dataset::at(name, &both).table(name));
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    assert_eq!(ask(&sidecar).await.status, 200);
    let join = "select count(*) as n from orders o join kept k on o.id = k.id";
    assert_eq!(sidecar.sql(join).await, serde_json::json!([{"n": 10}]));
    assert!(
        first.statements().iter().any(|sql| sql.to_lowercase().contains("join")),
        "{:?}",
        first.statements()
    );
    assert_eq!(second.count(Method::DoGet), 0);
    first.stop().await;
    for _ in 0..20 {
        let answer = ask(&sidecar).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert!(second.count(Method::DoGet) >= 20);
    assert_eq!(sidecar.http("/v1/ready").await.status, 200);
    first.restart().await;
    first.clear();
    sidecar
        .wait_until("the first is asked again", async || {
            assert_eq!(ask(&sidecar).await.status, 200);
            first.count(Method::DoGet) > 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_than_may_be_are_under_way() {
    let upstream = upstream().start().await;
    let runtime =
        "runtime:\n  params: {upstream_max_concurrent_requests: 2}\n  query: {max_concurrent_queries: 64}\n";
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("orders", &upstream)], runtime)).start().await;
    sidecar.wait_ready().await;
    upstream.inject(Method::DoGet, 12, Fault::Delay(Duration::from_millis(200)));
    let answers = futures::future::join_all((0..12).map(|_| ask(&sidecar))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(upstream.most_at_once(Method::DoGet) <= 2, "{}", upstream.most_at_once(Method::DoGet));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_nothing_is_answered_soon_or_ended() {
    let upstream = upstream().start().await;
    let runtime = "runtime:\n  params: {upstream_establishment_timeout: 1s}\n";
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("orders", &upstream)], runtime)).start().await;
    sidecar.wait_ready().await;
    upstream.inject(Method::GetFlightInfo, usize::MAX, Fault::Hang);
    let asked = Instant::now();
    let answer = ask(&sidecar).await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("had no answer for 1 s"), "{}", answer.body);
    upstream.heal();
    until_answered(&sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_an_endpoint_are_there_from_the_start() {
    let closed = ClosedPort::any();
    let url = format!("http://127.0.0.1:{}", closed.number());
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::at("orders", &url)], "")).start().await;
    for name in [
        "upstream_requests",
        "upstream_errors",
        "upstream_retries",
        "upstream_reconnects",
        "upstream_handshakes",
        "upstream_received_bytes",
        "upstream_in_flight",
        "upstream_circuit_state",
        "upstream_circuit_opened",
        "upstream_addresses",
    ] {
        assert!(metric(&sidecar, name, &url).await.is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_list_is_refused_with_its_line() {
    let dataset = Dataset::at("orders", "https://a:1, http://b:1,").table("orders");
    let finished =
        Sidecar::builder().spicepod(&spicepod(&[dataset], "")).args(["--offline"]).finish("check").await;
    assert_eq!(finished.code, Some(2));
    insta::assert_snapshot!(finished.stderr);
}
