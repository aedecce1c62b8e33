//! Upstreams that fail, vanish and come back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::testing::{Script, Server, spice};
use super::super::{CircuitState, ErrorKind, Step};
use super::{collect, count, text};
use crate::task::Scope;

#[tokio::test]
async fn two_unavailable_answers_are_not_noticed() {
    let server = Server::plain(Script { unavailable: 2.into(), ..Script::default() }).await;
    assert_eq!(count(&spice(&server.http(), &[]), "all").await.unwrap(), 4);
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_load_balancers_page_counts_as_unavailable() {
    let server = Server::plain(Script { http: (2.into(), 503), ..Script::default() }).await;
    assert_eq!(count(&spice(&server.http(), &[]), "all").await.unwrap(), 4);

    let server = Server::plain(Script { http: (1000.into(), 502), ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 5);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: the answer is HTTP status 502 Bad Gateway instead of gRPC (a load balancer or gateway answered: is the upstream behind it up?)");

    let server = Server::plain(Script { http: (1000.into(), 404), ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 1);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: the answer is HTTP status 404 Not Found instead of gRPC (the server at this port has no Flight service; check host, port and gateway routes)");
    let server = Server::plain(Script { http: (1000.into(), 200), ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: the answer is not gRPC: its content-type is `text/html` (check that the port is the upstream's Flight port)");
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let server = Server::plain(Script::default()).await;
    let upstream = spice(&server.http(), &[]);
    for (sql, kind) in [
        ("bad", ErrorKind::Refused),
        ("broken", ErrorKind::Planning),
        ("quota", ErrorKind::ResourceExhausted),
    ] {
        let before = server.script.calls.load(Ordering::SeqCst);
        assert_eq!(collect(&upstream, sql).await.unwrap_err().kind, kind);
        assert_eq!(server.script.calls.load(Ordering::SeqCst), before + 1, "{sql} was retried");
    }
    let before = server.script.calls.load(Ordering::SeqCst);
    assert_eq!(collect(&upstream, "retryable").await.unwrap_err().kind, ErrorKind::Passing);
    assert_eq!(server.script.calls.load(Ordering::SeqCst), before + 5);
}

#[tokio::test]
async fn connections_cut_every_so_often_fail_no_query() {
    let server = Server::plain(Script { cut_every: Some(50), ..Script::default() }).await;
    let upstream = spice(&server.http(), &[]);
    let workers = (0..8).map(|_| async {
        for _ in 0..60 {
            assert_eq!(count(&upstream, "all").await.unwrap(), 4);
        }
    });
    futures::future::join_all(workers).await;
    assert!(server.script.connections.load(Ordering::SeqCst) > 10);
}

#[tokio::test]
async fn after_the_first_batch_nothing_is_retried() {
    let server = Server::plain(Script { breaks: true, ..Script::default() }).await;
    let mut stream = spice(&server.http(), &[]).query("all").await.unwrap().batches;
    assert_eq!(stream.try_next().await.unwrap().unwrap().num_rows(), 2);
    let error = stream.try_next().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(stream.try_next().await.unwrap().is_none());
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_host() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let upstream = spice(&format!("http://127.0.0.1:{port}"), &[]);
    let error = upstream.verify(|_, _| {}).await.unwrap_err();
    assert_eq!((&error.kind, error.step), (&ErrorKind::Connect, Step::Tcp));
    insta::assert_snapshot!(text(&error, port), @"upstream http://127.0.0.1:PORT: UnableToVerifyEndpointConnection: failed to connect to 127.0.0.1:PORT over TCP: 127.0.0.1:PORT: connection refused (are the host and port correct? check that the upstream runs and that no firewall is in between)");
    let begun = Instant::now();
    assert_eq!(collect(&upstream, "all").await.unwrap_err().kind, ErrorKind::Connect);
    assert!(begun.elapsed() < Duration::from_secs(5));

    let error = spice("http://no-such-host.invalid:1", &[]).verify(|_, _| {}).await.unwrap_err();
    assert_eq!((&error.kind, error.step), (&ErrorKind::Dns, Step::Dns));
    assert!(error.message.contains("`no-such-host.invalid`"), "{error}");
}

/// A port where something else than Flight listens.
async fn stranger(says: &'static [u8]) -> (u16, Scope) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scope = Scope::new();
    scope.spawn("stranger", async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut heard = [0; 64];
            let _ = socket.read(&mut heard).await;
            let _ = socket.write_all(says).await;
        }
    });
    (port, scope)
}

#[tokio::test]
async fn servers_of_another_kind() {
    let (port, http1) = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = spice(&format!("http://127.0.0.1:{port}"), &[]).verify(|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    insta::assert_snapshot!(text(&error, port), @"upstream http://127.0.0.1:PORT: the server speaks HTTP/1.1, not the HTTP/2 that Flight needs (check that the port is the upstream's Flight port, not its HTTP port)");
    http1.cancel();

    let (port, mute) = stranger(b"").await;
    let error = spice(&format!("http://127.0.0.1:{port}"), &[]).verify(|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("closed the connection at once"), "{error}");
    mute.cancel();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = Instant::now();
    let error = spice(&format!("http://127.0.0.1:{port}"), &[]).verify(|_, _| {}).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(4));
    insta::assert_snapshot!(text(&error, port), @"upstream http://127.0.0.1:PORT: the server accepts connections but does not answer (check that the upstream runs and that the port is its Flight port)");
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_again() {
    let server = Server::plain(Script::default()).await;
    let address = server.address;
    let upstream = spice(&server.http(), &[]);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    server.stop().await;
    let error = collect(&upstream, "all").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Five attempts failed: now nothing is sent.
    let begun = Instant::now();
    let error = collect(&upstream, "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CircuitOpen, "{error}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let server = Server::start_at(address, Script::default(), None).await;
    let begun = Instant::now();
    while count(&upstream, "all").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(upstream.health().endpoints[0].circuit, CircuitState::Closed);
    drop(server);
}

/// Passes bytes on until it is frozen; connections made after that pass again.
pub(super) async fn freezer(
    to: std::net::SocketAddr,
) -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>, Scope) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    let (scope, inner) = (Scope::new(), Scope::new());
    scope.spawn("freezer", async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut frozen = frozen.clone();
            frozen.mark_unchanged();
            inner.spawn("freezer-connection", async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = frozen.changed() => std::future::pending().await,
                }
            });
        }
    });
    (address, freeze, scope)
}

#[tokio::test]
async fn a_connection_that_went_silent_is_found_dead_by_its_pings() {
    let server = Server::plain(Script::default()).await;
    let (address, freeze, _scope) = freezer(server.address).await;
    let upstream = spice(&format!("http://{address}"), &[]);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    freeze.send(true).unwrap();
    let begun = Instant::now();
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert!((4..=11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_slow_upstream_that_answers_pings_is_not_cut() {
    let server = Server::plain(Script { waits: true.into(), ..Script::default() }).await;
    let mut stream = spice(&server.http(), &[]).query("all").await.unwrap().batches;
    assert!(stream.try_next().await.unwrap().is_some());
    let more = tokio::time::timeout(Duration::from_secs(11), stream.try_next()).await;
    assert!(more.is_err(), "the call was ended");
}

#[tokio::test]
async fn a_server_that_complains_about_pings_gets_a_quieter_connection() {
    let script = Script { unavailable: 1.into(), unavailable_words: "Too many pings", ..Script::default() };
    let server = Server::plain(script).await;
    assert_eq!(count(&spice(&server.http(), &[]), "all").await.unwrap(), 4);
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 2);
}
