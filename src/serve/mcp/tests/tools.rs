//! What the tools and resources answer.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, Decimal128Array, StringArray, UInt64Array};

use super::*;
use crate::query::{DatasetState, QueryError};
use crate::serve::fake::upstream_error;
use crate::serve::mcp::rows::{BYTES_MAX, ROWS_MAX};
use crate::upstream::ErrorKind;

fn router(door: Fake) -> Router {
    endpoint(door, on())
}

fn structured(result: &Value) -> &Value {
    assert_eq!(result["isError"], json!(false), "{result}");
    &result["structuredContent"]
}

/// The text of an error.
fn failed(result: &Value) -> &str {
    assert_eq!(result["isError"], json!(true), "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn the_tools_are_described() {
    let listed = ask_modern(&router(Fake::default()), "tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!((1..=64).contains(&name.len()) && name.chars().all(is_fit), "{name}");
        assert_eq!(tool["annotations"]["readOnlyHint"], json!(true), "{name}");
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&listed["result"]["tools"]).unwrap());
}

#[tokio::test]
async fn numbers_keep_their_digits() {
    let decimals = Decimal128Array::from(vec![12_345_678_901_234_567_890_123_456_789_012_345_678]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("z", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("a", Arc::new(decimals.with_precision_and_scale(38, 4).unwrap())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let router = router(Fake::default().table("t", vec![batch]));
    let result = tool(&router, "sql", json!({ "query": "select * from t" })).await;
    let rows = r#"[{"z":18446744073709551615,"a":1234567890123456789012345678901234.5678}]"#;
    assert_eq!(structured(&result)["rows"].to_string(), rows);
    assert!(result["content"][0]["text"].as_str().unwrap().contains(rows), "{result}");
    let columns = json!([
        { "name": "z", "type": "UInt64", "nullable": false },
        { "name": "a", "type": "Decimal128(38, 4)", "nullable": false },
    ]);
    assert_eq!(structured(&result)["columns"], columns);
}

#[tokio::test]
async fn rows_are_cut_with_a_note() {
    let router = router(Fake::default().table("t", vec![numbers(0..900), numbers(900..1200)]));
    let ask = async |arguments: Value| {
        let result = tool(&router, "sql", arguments).await;
        let found = structured(&result).clone();
        assert_eq!(json!(found["rows"].as_array().unwrap().len()), found["row_count"]);
        (found["row_count"].as_u64().unwrap(), found["truncated"].as_bool().unwrap(), found["note"].clone())
    };
    let (rows, is_cut, note) = ask(json!({ "query": "select n from t order by n" })).await;
    assert_eq!((rows, is_cut), (ROWS_MAX as u64, true));
    assert!(
        note.as_str().unwrap().starts_with("these are the first 1000 rows, there are more: narrow"),
        "{note}"
    );
    for limit in [1, 7, 1000] {
        let (rows, is_cut, _) = ask(json!({ "query": "select n from t", "limit": limit })).await;
        assert_eq!((rows, is_cut), (limit, true));
    }
    assert_eq!(ask(json!({ "query": "select n from t", "limit": 5_000 })).await.0, 1000, "never more");
    assert_eq!(ask(json!({ "query": "select n from t limit 1000" })).await, (1000, false, Value::Null));
    assert_eq!(ask(json!({ "query": "select n from t where n < 0" })).await, (0, false, Value::Null));
}

#[tokio::test]
async fn bytes_are_cut_with_a_note() {
    let texts = |sizes: &[usize]| {
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values(sizes.iter().map(|size| "x".repeat(*size))));
        RecordBatch::try_from_iter([("text", texts)]).unwrap()
    };
    let door = Fake::default()
        .table("wide", vec![texts(&[BYTES_MAX / 2, BYTES_MAX / 3, BYTES_MAX / 3])])
        .table("huge", vec![texts(&[BYTES_MAX, 1])]);
    let router = router(door);
    let result = tool(&router, "sample_data", json!({ "table": "wide" })).await;
    let found = structured(&result);
    assert_eq!((&found["row_count"], &found["truncated"]), (&json!(2), &json!(true)));
    assert!(
        found["note"]
            .as_str()
            .unwrap()
            .starts_with("these are the first 2 rows, more would be larger than 1 MiB")
    );
    let result = tool(&router, "sample_data", json!({ "table": "huge" })).await;
    assert_eq!(structured(&result)["rows"], json!([]));
    assert!(
        structured(&result)["note"]
            .as_str()
            .unwrap()
            .starts_with("no row is shown, the first alone is larger")
    );
}

#[tokio::test]
async fn errors_are_told_in_the_words_of_http() {
    let not_ready = QueryError::NotReady {
        dataset: "orders".into(),
        endpoint: Some("https://core:1".into()),
        reason: "no answer".into(),
    };
    let errors = [
        QueryError::Invalid { message: "no such column".into() },
        QueryError::ReadOnly { statement: "DROP TABLE".into() },
        not_ready,
        QueryError::QueueFull { running: 8, waiting: 1_000 },
        QueryError::Timeout { seconds: 1.5 },
        upstream_error(ErrorKind::Unavailable),
        upstream_error(ErrorKind::Auth),
    ];
    for error in errors {
        let (url, _scope) = crate::serve::fake::http(Fake::default().failing("bad", error.clone())).await;
        let asked = reqwest::Client::new().post(format!("{url}/v1/sql")).body("bad");
        let http: Value =
            asked.header("accept", "application/json").send().await.unwrap().json().await.unwrap();
        let result =
            tool(&router(Fake::default().failing("bad", error)), "sql", json!({ "query": "bad" })).await;
        let text = format!("{}: {}", http["code"].as_str().unwrap(), http["message"].as_str().unwrap());
        assert_eq!(failed(&result), text);
        for key in ["code", "message", "dataset", "endpoint"] {
            assert_eq!(result["structuredContent"][key], http[key], "{key} of {text}");
        }
    }
}

#[tokio::test]
async fn a_late_error_is_the_whole_result() {
    let broken = Fake::default().on("break", || {
        let batch = numbers(0..3);
        let late = Err(QueryError::Internal { message: "half way".into() });
        Ok(answer(batch.schema(), stream::iter([Ok(batch), late])))
    });
    let result = tool(&router(broken), "sql", json!({ "query": "break" })).await;
    assert_eq!(failed(&result), "Internal: internal error: half way");
}

#[tokio::test]
async fn wrong_arguments_are_told_to_the_agent() {
    let router = router(Fake::default().table("orders", vec![numbers(0..1)]));
    for (name, arguments, expected) in [
        ("sql", json!({}), "missing field `query`"),
        ("sql", json!({ "query": 7 }), "invalid type"),
        ("sql", json!({ "query": "select 1", "limit": -1 }), "invalid"),
        ("sql", json!({ "sql": "select 1" }), "unknown field `sql`, expected `query` or `limit`"),
        ("sql", json!({ "query": " " }), "EmptyStatement: "),
        ("list_datasets", json!({ "all": true }), "unknown field `all`"),
        ("table_schema", json!({ "tables": [] }), "send 1 to 20"),
        (
            "table_schema",
            json!({ "tables": ["orders", "nix"] }),
            "TableNotFound: there is no dataset or view `nix`; there is orders",
        ),
        ("sample_data", json!({ "table": "orders; select 1" }), "TableNotFound: "),
    ] {
        let result = tool(&router, name, arguments).await;
        assert!(failed(&result).contains(expected), "{}", failed(&result));
    }
}

fn odd_names() -> Fake {
    let mut door = Fake::default().table(r#""Odd ""one""""#, vec![numbers(0..20)]);
    door.datasets[0].is_view = true;
    door = door.table("orders", vec![numbers(0..3)]);
    let since = SystemTime::UNIX_EPOCH;
    let reason = Arc::new(upstream_error(ErrorKind::Connect));
    door.datasets[1].state = DatasetState::Error { reason, since, was_ready: true };
    door
}

#[tokio::test]
async fn tables_are_listed_described_and_sampled() {
    let descriptions = [("orders".to_owned(), "What was ordered.".to_owned())];
    let options = McpOptions { descriptions: Arc::new(descriptions.into()), ..on() };
    let router = endpoint(odd_names(), options);
    let listed = tool(&router, "list_datasets", json!({})).await;
    let [view, orders] = &structured(&listed)["datasets"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&view["name"], &view["kind"]), (&json!(r#""Odd ""one""""#), &json!("view")));
    assert_eq!(orders["description"], "What was ordered.");
    assert_eq!((&orders["state"], &orders["accelerated"]), (&json!("Error"), &json!(false)));
    assert!(orders["error"].as_str().unwrap().contains("it went wrong"), "{orders}");
    let odd = &view["name"];
    let column = json!([{ "name": "n", "type": "Int64", "nullable": false }]);
    for tables in [json!({ "tables": [odd] }), json!({ "table": odd }), json!({ "tables": r#"Odd "one""# })] {
        let told = tool(&router, "table_schema", tables).await;
        assert_eq!(structured(&told)["tables"], json!([{ "name": odd, "columns": column }]));
    }
    for (arguments, rows) in [(json!({ "table": odd }), 10), (json!({ "table": odd, "limit": 3 }), 3)] {
        let sampled = tool(&router, "sample_data", arguments).await;
        assert_eq!(structured(&sampled)["row_count"], json!(rows));
        assert_eq!(structured(&sampled)["truncated"], json!(false), "a sample is what was asked for");
    }
}

#[tokio::test]
async fn readiness_is_what_http_says() {
    let (url, _scope) = crate::serve::fake::http(odd_names()).await;
    let http = reqwest::get(format!("{url}/v1/ready?verbose=true")).await.unwrap();
    assert_eq!(http.status(), 503);
    let result = tool(&router(odd_names()), "get_readiness", json!({})).await;
    let report = http.text().await.unwrap();
    assert_eq!(result["content"][0]["text"], report);
    assert_eq!(structured(&result), &json!({ "ready": false, "report": report }));
}

#[tokio::test]
async fn datasets_are_resources() {
    let router = router(odd_names());
    let listed = ask_modern(&router, "resources/list", json!({})).await;
    let resources = listed["result"]["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 2, "{listed}");
    assert_eq!(resources[1]["uri"], "sidewing://dataset/orders");
    let templates = ask_modern(&router, "resources/templates/list", json!({})).await;
    assert_eq!(templates["result"]["resourceTemplates"][0]["uriTemplate"], "sidewing://dataset/{name}");
    for resource in resources {
        let read = ask_modern(&router, "resources/read", json!({ "uri": resource["uri"] })).await;
        let content = &read["result"]["contents"][0];
        assert_eq!((&content["uri"], &content["mimeType"]), (&resource["uri"], &json!("application/json")));
        let held: Value = serde_json::from_str(content["text"].as_str().unwrap()).unwrap();
        assert_eq!((&held["name"], &held["columns"][0]["name"]), (&resource["name"], &json!("n")), "{held}");
    }
    let unknown = ask_modern(&router, "resources/read", json!({ "uri": "sidewing://dataset/nix" })).await;
    assert!(unknown["error"]["message"].as_str().unwrap().contains("resources/list"), "{unknown}");
}
