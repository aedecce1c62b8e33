//! What protects an upstream: circuits, limits, and endpoints that stand in for each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio::net::TcpListener;

use super::super::testing::{Script, Server, connect, spice, target};
use super::super::{CircuitState, ErrorKind, Limits, Pool, PoolOptions, Upstream};
use super::trouble::freezer;
use super::{collect, count};
use crate::config::Connector::SpiceAi;

/// A list of endpoints.
fn listed(endpoints: &[&str]) -> Arc<Upstream> {
    connect(SpiceAi, "t", &[("endpoint", endpoints.join(", ").as_str())])
}

fn circuits(upstream: &Upstream) -> Vec<CircuitState> {
    upstream.health().endpoints.into_iter().map(|endpoint| endpoint.circuit).collect()
}

async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn the_users_own_errors_open_nothing() {
    let server = Server::plain(Script::default()).await;
    let upstream = spice(&server.http(), &[("max_message_size", "1MB")]);
    for _ in 0..10 {
        for sql in ["bad", "broken", "missing", "quota", "big 2000000"] {
            let error = collect(&upstream, sql).await.unwrap_err();
            assert_ne!(error.kind, ErrorKind::CircuitOpen, "{sql}: {error}");
        }
    }
    assert_eq!(collect(&upstream, "retryable").await.unwrap_err().kind, ErrorKind::Passing);
    assert_eq!(circuits(&upstream), [CircuitState::Closed]);
}

#[tokio::test]
async fn an_upstream_that_says_unavailable_is_left_alone_until_a_probe_succeeds() {
    let server = Server::plain(Script { unavailable: 1000.into(), ..Script::default() }).await;
    let upstream = spice(&server.http(), &[]);
    assert_eq!(collect(&upstream, "all").await.unwrap_err().kind, ErrorKind::Unavailable);
    let calls = server.script.calls.load(Ordering::SeqCst);
    assert_eq!(calls, 5);
    assert_eq!(collect(&upstream, "all").await.unwrap_err().kind, ErrorKind::CircuitOpen);
    assert_eq!(server.script.calls.load(Ordering::SeqCst), calls, "something was sent");
    let health = upstream.health();
    assert!(health.endpoints[0].since.is_some());
    assert_eq!(health.endpoints[0].last_error.as_deref(), Some("GetFlightInfo failed: injected"));

    tokio::time::sleep(Duration::from_secs(1)).await;
    let crowd = futures::future::join_all((0..50).map(|_| collect(&upstream, "all"))).await;
    assert_eq!(server.script.calls.load(Ordering::SeqCst), calls + 1, "one probe");
    let is_probe = |error: &&super::super::UpstreamError| error.kind == ErrorKind::Unavailable;
    assert_eq!(crowd.iter().filter_map(|answer| answer.as_ref().err()).filter(is_probe).count(), 1);

    server.script.unavailable.store(0, Ordering::SeqCst);
    let begun = Instant::now();
    while count(&upstream, "all").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(circuits(&upstream), [CircuitState::Closed]);
    assert_eq!(upstream.health().endpoints[0].last_error, None);
}

#[tokio::test]
async fn streams_that_break_count_and_those_that_end_do_not() {
    let server = Server::plain(Script { breaks: true, ..Script::default() }).await;
    let upstream = spice(&server.http(), &[]);
    for _ in 0..40 {
        let Ok(mut stream) = upstream.query("all").await else { break };
        while stream.batches.try_next().await.is_ok_and(|batch| batch.is_some()) {}
    }
    // Each call succeeded and each of its streams broke: half of the outcomes are failures.
    assert_eq!(circuits(&upstream), [CircuitState::Open]);
}

#[tokio::test]
async fn a_connection_that_dies_with_many_calls_is_one_failure() {
    let server = Server::plain(Script { waits: true.into(), ..Script::default() }).await;
    let upstream = spice(&server.http(), &[]);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = upstream.query("all").await.unwrap().batches;
        stream.try_next().await.unwrap().unwrap();
        streams.push(stream);
    }
    assert_eq!(upstream.health().endpoints[0].in_flight, 20);
    let address = server.address;
    server.stop().await;
    for mut stream in streams {
        stream.try_next().await.unwrap_err();
    }
    assert_eq!(circuits(&upstream), [CircuitState::Closed]);
    let _server = Server::start_at(address, Script::default(), None).await;
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert_eq!(upstream.health().endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn the_next_endpoint_answers_while_the_first_is_away_and_not_after() {
    let port = closed_port().await;
    let second = Server::plain(Script::default()).await;
    let upstream = listed(&[&format!("http://127.0.0.1:{port}"), &second.http()]);
    upstream.verify(|_, _| {}).await.unwrap();
    for _ in 0..20 {
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    }
    assert_eq!(circuits(&upstream)[1], CircuitState::Closed);
    let first = Server::start_at(format!("127.0.0.1:{port}").parse().unwrap(), Script::default(), None).await;
    let begun = Instant::now();
    while first.script.calls.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(6), "the first is not used again");
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = second.script.calls.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    }
    assert_eq!(second.script.calls.load(Ordering::SeqCst), calls, "the second is asked no more");
    assert_eq!(circuits(&upstream), [CircuitState::Closed; 2]);
}

#[tokio::test]
async fn nobody_waits_for_a_silent_first_endpoint_once_its_circuit_is_open() {
    // Listens, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = Server::plain(Script::default()).await;
    let upstream = listed(&[&format!("http://{}", silent.local_addr().unwrap()), &second.http()]);
    let begun = Instant::now();
    while circuits(&upstream)[0] == CircuitState::Closed {
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    }
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(slowest < Duration::from_secs(1), "one waited {slowest:?}");
}

#[tokio::test]
async fn all_endpoints_away_are_told_together() {
    let (first, second) = (closed_port().await, closed_port().await);
    let upstream = listed(&[&format!("http://127.0.0.1:{first}"), &format!("http://127.0.0.1:{second}")]);
    let error = collect(&upstream, "all").await.unwrap_err().to_string();
    let shown = error.replace(&first.to_string(), "FIRST").replace(&second.to_string(), "SECOND");
    insta::assert_snapshot!(shown, @"upstream http://127.0.0.1:SECOND: UnableToVerifyEndpointConnection: failed to connect to 127.0.0.1:SECOND over TCP: 127.0.0.1:SECOND: connection refused; nor does http://127.0.0.1:FIRST answer: UnableToVerifyEndpointConnection: failed to connect to 127.0.0.1:FIRST over TCP: 127.0.0.1:FIRST: connection refused (are the host and port correct? check that the upstream runs and that no firewall is in between)");
}

#[tokio::test]
async fn a_list_shares_channels_with_those_who_name_one_and_is_an_upstream_of_its_own() {
    let pool = Pool::new();
    let named = |endpoint: &str| pool.connect(&target(SpiceAi, "t", &[("endpoint", endpoint)])).unwrap();
    let (both, again) = (named("http://a:1, http://b:1"), named("http://a:1,http://b:1"));
    let (other, first) = (named("http://b:1, http://a:1"), named("http://a:1"));
    assert_eq!(both.id(), again.id());
    assert_ne!(both.id(), other.id());
    assert_ne!(both.id(), first.id());
    assert_eq!(both.endpoint(), "http://a:1, http://b:1");
}

#[tokio::test]
async fn a_call_without_an_answer_is_ended_and_says_what_may_be_done() {
    let server = Server::plain(Script::default()).await;
    let limits = Limits { establishment: Duration::from_millis(300), ..Limits::default() };
    let pool = Pool::with_options(PoolOptions { limits, ..PoolOptions::default() });
    let (address, freeze, _scope) = freezer(server.address).await;
    let upstream = pool.connect(&target(SpiceAi, &format!("http://{address}"), &[])).unwrap();
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    freeze.send(true).unwrap();
    let begun = Instant::now();
    assert_eq!(upstream.plan("all").await.unwrap().schema.fields().len(), 2, "on another connection");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    server.script.hangs.store(true, Ordering::SeqCst);
    let error = upstream.plan("all").await.unwrap_err();
    let shown = error.to_string().replace(&address.port().to_string(), "PORT");
    insta::assert_snapshot!(shown, @"upstream http://127.0.0.1:PORT: GetFlightInfo had no answer for 0.3 s (the upstream hangs, is overloaded or cannot be reached any more; for one that is slow by nature raise runtime.params.upstream_establishment_timeout)");
    assert_eq!(circuits(&upstream), [CircuitState::Open]);
}
