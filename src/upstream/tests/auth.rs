//! Who asks: keys, tokens, how often a Handshake is made.

use std::sync::atomic::Ordering;

use super::super::testing::{Handshake, Script, Server, connect, spice};
use super::super::{ErrorKind, Step};
use super::{collect, count, text};
use crate::config::Connector;

const KEY: &str = "hunter2-key";

fn locked(handshake: Handshake) -> Script {
    Script { key: Some(KEY.to_owned()), handshake, ..Script::default() }
}

#[tokio::test]
async fn one_handshake_for_many_queries_and_a_second_when_the_token_is_forgotten() {
    let server = Server::plain(locked(Handshake::Token)).await;
    let upstream = spice(&server.http(), &[("api_key", KEY)]);
    let handshakes = || server.script.handshakes.load(Ordering::SeqCst);
    let together = futures::future::join_all((0..20).map(|_| count(&upstream, "all"))).await;
    assert!(together.into_iter().all(|rows| rows.unwrap() == 4));
    assert_eq!(handshakes(), 1);
    *server.script.token.lock().unwrap() = "another".to_owned();
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert_eq!(handshakes(), 2);
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_without_tokens_is_shown_the_key() {
    for handshake in [Handshake::NoToken, Handshake::Unimplemented] {
        let server = Server::plain(locked(handshake)).await;
        let upstream = spice(&server.http(), &[("token", KEY)]);
        assert_eq!(count(&upstream, "all").await.unwrap(), 4);
        assert_eq!(server.script.handshakes.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_anonymous_caller_makes_no_handshake() {
    let server = Server::plain(Script::default()).await;
    let upstream = spice(&server.http(), &[]);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert_eq!(server.script.handshakes.load(Ordering::SeqCst), 0);

    let server = Server::plain(locked(Handshake::Token)).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: GetFlightInfo failed: Invalid credentials (the upstream asks for a key: set `spiceai_api_key`)");
}

#[tokio::test]
async fn a_wrong_key_names_the_param_and_is_not_repeated() {
    let server = Server::plain(locked(Handshake::Token)).await;
    let port = server.address.port();
    let upstream = spice(&server.http(), &[("api_key", "wrong-key")]);
    let error = collect(&upstream, "all").await.unwrap_err();
    assert_eq!((&error.kind, error.step), (&ErrorKind::Auth, Step::Handshake));
    insta::assert_snapshot!(text(&error, port), @"upstream http://127.0.0.1:PORT: Handshake failed: Invalid credentials: [redacted] (check `spiceai_api_key`: the key may be wrong, expired or of another environment; on an upstream of your own it must stand in `runtime.auth.api-key.keys`)");
    assert!(!format!("{error:?}").contains("wrong-key"));
    let mut steps = Vec::new();
    let verified = upstream.verify(|step, _| steps.push(step)).await.unwrap_err();
    assert_eq!((verified.step, steps), (Step::Handshake, vec![Step::Dns, Step::Tcp]));

    let params = [("endpoint", server.http()), ("username", "me".into()), ("password", "wrong-key".into())];
    let params: Vec<_> = params.iter().map(|(key, value): &(_, String)| (*key, value.as_str())).collect();
    let error = collect(&connect(Connector::FlightSql, "t", &params), "all").await.unwrap_err();
    insta::assert_snapshot!(text(&error, port), @"upstream http://127.0.0.1:PORT: Handshake failed: Invalid credentials: [redacted] (check `flightsql_username` and `flightsql_password`)");
}

#[tokio::test]
async fn an_upstream_that_repeats_the_key_is_silenced() {
    let server = Server::plain(locked(Handshake::Token)).await;
    let error = collect(&spice(&server.http(), &[("api_key", KEY)]), "bad").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: GetFlightInfo failed: SQL error: nonsense, said [redacted]");
}

#[tokio::test]
async fn verification_tells_its_steps() {
    let server = Server::plain(locked(Handshake::Token)).await;
    let upstream = spice(&server.http(), &[("api_key", KEY)]);
    let mut steps = Vec::new();
    upstream.verify(|step, detail| steps.push(format!("{step:?}: {detail}"))).await.unwrap();
    let shown = steps.join("\n").replace(&server.address.port().to_string(), "PORT");
    insta::assert_snapshot!(shown, @r"
    Dns: 127.0.0.1 is 127.0.0.1
    Tcp: connected to 127.0.0.1:PORT
    Handshake: token received
    ");
}
