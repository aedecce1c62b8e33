//! Upstreams that fail, vanish and come back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::testing::{Script, Server, spice};
use super::super::{ErrorKind, Step};
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
    insta::assert_snapshot!(text(&error, server.address.port()), @"");

    let server = Server::plain(Script { http: (1000.into(), 404), ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 1);
    insta::assert_snapshot!(text(&error, server.address.port()), @"");
    let server = Server::plain(Script { http: (1000.into(), 200), ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    insta::assert_snapshot!(text(&error, server.address.port()), @"");
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
    assert_eq!(collect(&upstream, "retryable").await.unwrap_err().kind, ErrorKind::Unavailable);
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
    insta::assert_snapshot!(text(&error, port), @"");
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
    insta::assert_snapshot!(text(&error, port), @"");
    http1.cancel();

    let (port, mute) = stranger(b"").await;
    let error = spice(&format!("http://127.0.0.1:{port}"), &[]).verify(|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    insta::assert_snapshot!(text(&error, port), @"");
    mute.cancel();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = Instant::now();
    let error = spice(&format!("http://127.0.0.1:{port}"), &[]).verify(|_, _| {}).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(4));
    insta::assert_snapshot!(text(&error, port), @"");
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
    let server = Server::start_at(address, Script::default(), None).await;
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    drop(server);
}
