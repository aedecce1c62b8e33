//! Who may speak, in which session, and what ends what.

use super::*;

fn door() -> Fake {
    Fake::default().table("orders", vec![numbers(0..3)])
}

#[tokio::test]
async fn a_session_is_opened_used_and_ended() {
    let router = endpoint(door(), on());
    let session = Session::open(&router).await;
    let listed = session.ask("tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 5, "{listed}");
    let called =
        session.ask("tools/call", json!({ "name": "sql", "arguments": { "query": "select n from orders" } }));
    assert_eq!(called.await["result"]["structuredContent"]["row_count"], 3);
    assert_eq!(session.ask("ping", json!({})).await["result"], json!({}));
    let ended = send(&router, session.request("DELETE", "")).await;
    assert_eq!((ended.status().as_u16(), text(ended).await), (204, String::new()));
    for method in ["DELETE", "POST", "GET"] {
        let body = if method == "POST" { call(2, "tools/list", &json!({})) } else { String::new() };
        let lost = send(&router, session.request(method, body)).await;
        assert_eq!(lost.status(), 404, "{method}");
        assert!(text(lost).await.contains("McpSessionNotFound"), "{method}");
    }
}

#[tokio::test]
async fn every_version_with_a_handshake_is_spoken() {
    let router = endpoint(door(), on());
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let params = json!({
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let response = send(&router, request("POST", &[], call(0, "initialize", &params))).await;
        assert!(response.headers().contains_key("mcp-session-id"));
        assert_eq!(message(response).await["result"]["protocolVersion"], version);
    }
}

#[tokio::test]
async fn the_era_without_sessions_answers_json() {
    let router = endpoint(door(), on());
    let response = send(&router, modern("server/discover", json!({}))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(!response.headers().contains_key("mcp-session-id"));
    let found = message(response).await["result"].clone();
    assert!(found["supportedVersions"].as_array().unwrap().contains(&json!(MODERN)), "{found}");
    assert_eq!(
        found["capabilities"],
        json!({ "tools": {}, "resources": {} }),
        "nothing changes, nothing is promised"
    );
    assert!(found["instructions"].as_str().unwrap().contains("There is orders."), "{found}");
    let unknown = ask_modern(&router, "tools/call", json!({ "name": "drop", "arguments": {} })).await;
    assert!(unknown["error"]["message"].as_str().unwrap().contains("there is no tool `drop`; there is sql,"));
    let page = ask_modern(&router, "tools/list", json!({ "cursor": "2" })).await;
    assert_eq!(page["error"]["code"], -32602);
}

#[tokio::test]
async fn a_session_of_another_principal_is_not_there() {
    let bare = Router::new().route("/v1/mcp", route(door(), on()));
    let (mine, other) = (bare.clone().layer(shown_key("a")), bare.layer(shown_key("b")));
    let session = Session::open(&mine).await;
    let stolen = Session { router: other.clone(), id: session.id.clone() };
    assert_eq!(stolen.post(call(1, "tools/list", &json!({}))).await.status(), 404);
    for method in ["GET", "DELETE"] {
        assert_eq!(send(&other, stolen.request(method, "")).await.status(), 404, "{method}");
    }
    assert_eq!(session.ask("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn what_comes_from_elsewhere_is_refused_in_words() {
    let options = McpOptions {
        allowed_hosts: vec!["sidewing.pod".into()],
        allowed_origins: vec!["https://app.example".into()],
        ..on()
    };
    let router = endpoint(door(), options);
    let body = || call(1, "tools/list", &json!({}));
    for (headers, status, word) in [
        (vec![("host", "evil.example")], 403, "runtime.mcp.allowed_hosts"),
        (vec![("origin", "https://evil.example")], 403, "runtime.cors.allowed_origins"),
        // As far as the session that it lacks.
        (vec![("host", "sidewing.pod:1"), ("origin", "https://app.example")], 400, "Session ID"),
    ] {
        let answered = send(&router, request("POST", &headers, body())).await;
        assert_eq!(answered.status(), status, "{headers:?}");
        let said = text(answered).await;
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn where_anybody_could_ask_it_is_off() {
    let router = endpoint(door(), McpOptions { access: McpAccess::Off, ..on() });
    let answered = send(&router, modern("server/discover", json!({}))).await;
    assert_eq!(answered.status(), 403);
    let told = message(answered).await;
    assert_eq!(told["error"]["data"]["code"], "McpOff");
    assert!(told["error"]["message"].as_str().unwrap().contains("runtime.auth.api-key"), "{told}");
}

#[tokio::test]
async fn messages_are_bounded_and_read_strictly() {
    let router = endpoint(door(), on());
    let deep = "[".repeat(100_000);
    let large = " ".repeat(super::super::MESSAGE_BYTES_MAX + 1);
    for (body, status, code) in [
        (&*large, 413, "McpMessageTooLarge"),
        ("", 400, "McpMessageUnreadable"),
        ("{\"jsonrpc\":", 400, "McpMessageUnreadable"),
        (&*deep, 400, "McpMessageUnreadable"),
        ("[]", 400, "McpMessageInvalid"),
        ("{}", 400, "McpMessageInvalid"),
        ("7", 400, "McpMessageInvalid"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, "McpMessageInvalid"),
    ] {
        let answered = send(&router, request("POST", &[("x-request-id", "r-1")], body.to_owned())).await;
        assert_eq!(answered.status(), status, "{code}");
        let data = &message(answered).await["error"]["data"];
        assert_eq!((&data["code"], &data["request_id"]), (&json!(code), &json!("r-1")));
    }
    let put = send(&router, request("PUT", &[], "{}")).await;
    assert_eq!(put.status(), 405);
    let narrow = send(&router, request("POST", &[("accept", "application/json")], "{}")).await;
    assert_eq!(narrow.status(), 400);
}

fn slow_call(id: u64) -> String {
    call(id, "tools/call", &json!({ "name": "sql", "arguments": { "query": "slow" } }))
}

#[tokio::test]
async fn a_cancelled_request_ends_its_query() {
    let slow = Slow::new();
    let session = Session::open(&slow.endpoint()).await;
    let waiting = session.post(slow_call(7)).await;
    slow.is_begun().await;
    let noted = json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": { "requestId": 7, "reason": "had enough" },
    });
    assert_eq!(session.post(noted.to_string()).await.status(), 202);
    slow.is_dropped().await;
    let rest = timeout(WAIT, text(waiting)).await.expect("the stream ends");
    assert!(!rest.contains("result"), "{rest}");
    assert_eq!(session.ask("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_query() {
    let slow = Slow::new();
    let session = Session::open(&slow.endpoint()).await;
    let waiting = session.post(slow_call(7)).await;
    slow.is_begun().await;
    drop(waiting);
    slow.is_dropped().await;

    let slow = Slow::new();
    let router = slow.endpoint();
    let arguments = json!({ "name": "sql", "arguments": { "query": "slow" } });
    let waiting = send(&router, modern("tools/call", arguments));
    tokio::select! {
        answered = waiting => panic!("{answered:?}"),
        () = slow.is_begun() => {}
    }
    slow.is_dropped().await;
}

#[tokio::test]
async fn sessions_end_with_their_endpoint() {
    let slow = Slow::new();
    let router = slow.endpoint();
    let session = Session::open(&router).await;
    let listening = send(&router, session.request("GET", "")).await;
    assert_eq!(listening.status(), 200);
    assert_eq!(listening.headers()["content-type"], "text/event-stream");
    let waiting = session.post(slow_call(7)).await;
    slow.is_begun().await;
    drop((router, session));
    for stream in [listening, waiting] {
        timeout(WAIT, text(stream)).await.expect("the stream ends");
    }
    slow.is_dropped().await;
}
