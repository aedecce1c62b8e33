//! Lines in, lines out.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, split};

use super::*;
use crate::serve::mcp::{Descriptions, StdioError, serve_stdio};
use crate::task::Scope;

struct Talk {
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    to: WriteHalf<DuplexStream>,
    ended: tokio::sync::oneshot::Receiver<Result<(), StdioError>>,
    stop: CancellationToken,
    _scope: Scope,
}

impl Talk {
    fn with(door: Fake) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (say, ended) = tokio::sync::oneshot::channel();
        let (scope, stop) = (Scope::new(), CancellationToken::new());
        let token = stop.clone();
        scope.spawn("stdio", async move {
            let _ = say.send(serve_stdio(door, Descriptions::default(), split(theirs), token).await);
        });
        let (from, to) = split(ours);
        Self { lines: BufReader::new(from).lines(), to, ended, stop, _scope: scope }
    }

    async fn say(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.say(&call(1, method, &params)).await;
        let line = timeout(WAIT, self.lines.next_line()).await.unwrap().unwrap().expect("a line");
        serde_json::from_str(&line).unwrap()
    }

    async fn begin(&mut self) {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let answered = self.ask("initialize", params).await;
        assert_eq!(answered["result"]["serverInfo"]["name"], "sidewing", "{answered}");
        self.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    }

    async fn end(self) -> Result<(), StdioError> {
        timeout(WAIT, self.ended).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_conversation_ends_with_its_input() {
    let mut talk = Talk::with(Fake::default().table("orders", vec![numbers(0..3)]));
    talk.begin().await;
    let called = json!({ "name": "sql", "arguments": { "query": "select sum(n) as s from orders" } });
    let answered = talk.ask("tools/call", called).await;
    assert_eq!(answered["result"]["structuredContent"]["rows"], json!([{ "s": 3 }]), "{answered}");
    talk.say("no JSON at all").await;
    assert_eq!(talk.ask("ping", json!({})).await["result"], json!({}), "what is no message is passed over");
    talk.to.shutdown().await.unwrap();
    assert!(talk.end().await.is_ok());
}

#[tokio::test]
async fn an_input_without_a_word_is_no_error() {
    let mut talk = Talk::with(Fake::default());
    talk.to.shutdown().await.unwrap();
    assert!(talk.end().await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_it() {
    let mut talk = Talk::with(Fake::default());
    talk.begin().await;
    talk.stop.cancel();
    assert!(talk.end().await.is_ok());
}

#[tokio::test]
async fn a_client_that_does_not_begin_is_told() {
    let mut talk = Talk::with(Fake::default());
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let error = talk.end().await.unwrap_err();
    assert!(error.to_string().contains("`initialize`"), "{error}");
}

#[tokio::test]
async fn queries_end_with_the_request_and_with_the_conversation() {
    let called = json!({ "name": "sql", "arguments": { "query": "slow" } });
    let slow = Slow::new();
    let mut talk = Talk::with(slow.door.clone());
    talk.begin().await;
    talk.say(&call(5, "tools/call", &called)).await;
    slow.is_begun().await;
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#).await;
    slow.is_dropped().await;

    let slow = Slow::new();
    let mut talk = Talk::with(slow.door.clone());
    talk.begin().await;
    talk.say(&call(5, "tools/call", &called)).await;
    slow.is_begun().await;
    talk.to.shutdown().await.unwrap();
    talk.end().await.unwrap();
    slow.is_dropped().await;
}
