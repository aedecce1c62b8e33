//! Random messages: whatever comes, the endpoint answers, never with a 5xx, and goes on. `SIDEWING_LONG=1` sends more.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// A request whose id another one of its session has taken is never answered; nobody waits for it here.
const ANSWER_MAX: Duration = Duration::from_secs(5);

fn cases() -> u32 {
    if std::env::var_os("SIDEWING_LONG").is_some() { 200_000 } else { 600 }
}

fn word() -> impl Strategy<Value = String> {
    const WORDS: [&str; 22] = [
        "sql",
        "query",
        "limit",
        "table",
        "tables",
        "name",
        "arguments",
        "uri",
        "cursor",
        "protocolVersion",
        "capabilities",
        "clientInfo",
        "version",
        "requestId",
        "progressToken",
        "orders",
        "select n from orders",
        "2025-11-25",
        "2026-07-28",
        "sidewing://dataset/orders",
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
    ];
    prop_oneof![4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn method() -> impl Strategy<Value = String> {
    const METHODS: [&str; 18] = [
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "resources/subscribe",
        "subscriptions/listen",
        "prompts/list",
        "completion/complete",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "tasks/get",
        "skills/list",
    ];
    prop_oneof![6 => prop::sample::select(&METHODS[..]).prop_map(str::to_owned), 1 => ".{0,12}"]
}

/// Tool calls with arguments that are nearly right are a part of them.
fn params() -> impl Strategy<Value = Value> {
    let tools =
        prop::sample::select(&["sql", "list_datasets", "table_schema", "sample_data", "get_readiness"][..]);
    prop_oneof![
        2 => json_value(),
        1 => (tools, json_value()).prop_map(|(name, arguments)| json!({ "name": name, "arguments": arguments })),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![4 => any::<u32>().prop_map(Value::from), 1 => json_value()];
    let message = (method(), params(), prop::option::weighted(0.8, id)).prop_map(|(method, params, id)| {
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if let Some(id) = id {
            message["id"] = id;
        }
        message.to_string().into_bytes()
    });
    let broken =
        (body_of_any_json(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    prop_oneof![6 => message, 1 => broken, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

fn body_of_any_json() -> impl Strategy<Value = Vec<u8>> {
    json_value().prop_map(|value| value.to_string().into_bytes())
}

/// How the message is sent.
fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let version = prop_oneof![Just("2025-06-18".to_owned()), Just(MODERN.to_owned()), "[ -~]{0,12}",];
    (prop::option::of(version), prop::option::of(method().prop_filter("a header", |text| text.is_ascii())))
        .prop_map(|(version, method)| {
            let is_fit = |text: &String| text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
            let version = version.map(|version| ("mcp-protocol-version", version));
            let method = method.filter(is_fit).map(|method| ("mcp-method", method));
            version.into_iter().chain(method).collect()
        })
}

#[test]
fn no_message_panics_or_fails_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (router, session) = runtime.block_on(async {
        let router = endpoint(Fake::default().table("orders", vec![numbers(0..3)]), on());
        let session = Session::open(&router).await.id;
        (router, session)
    });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases()));
    let sent = (body(), headers(), any::<bool>());
    let outcome = runner.run(&sent, |(body, mut headers, in_session)| {
        if in_session {
            headers.push(("mcp-session-id", session.clone()));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let request = request("POST", &headers, body);
        let status = runtime.block_on(async {
            let response = send(&router, request).await;
            let status = response.status();
            let _ = timeout(ANSWER_MAX, response.into_body().collect()).await;
            status
        });
        prop_assert!(!status.is_server_error(), "{status}");
        Ok(())
    });
    outcome.unwrap();
    // It still answers, in both eras.
    runtime.block_on(async {
        let again = Session { router: router.clone(), id: session };
        assert_eq!(again.ask("tools/list", json!({})).await["result"]["tools"].as_array().unwrap().len(), 5);
        assert!(ask_modern(&router, "server/discover", json!({})).await["result"].is_object());
    });
}
