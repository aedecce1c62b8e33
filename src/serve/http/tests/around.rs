//! What stands around every handler: errors in every form, panics, HEAD and OPTIONS, pages of other origins, compression.

use std::io::Read as _;

use serde_json::{Value, json};

use super::*;
use crate::config::Cors;
use crate::secrets::Secret;
use crate::serve::access::{Access, ApiKey};
use crate::serve::fake::http_with;
use crate::serve::http::HttpOptions;

fn client() -> reqwest::Client {
    reqwest::Client::new()
}

/// The body of an error, which must be whole, with its status.
async fn error(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.header("accept", "application/json").send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "message", "dataset", "endpoint", "request_id"]);
    assert_eq!(body["request_id"], json!(id));
    (status, body)
}

#[tokio::test]
async fn every_refusal_of_the_frame_is_json_for_who_takes_it() {
    let fake = Fake::default().on("panic", || panic!("on purpose"));
    let access = Access::new(vec![ApiKey::reading(Secret::new("reader".into()))]);
    let (url, _scope) = http_with(fake, HttpOptions { access, ..HttpOptions::default() }).await;
    let keyed = |request: reqwest::RequestBuilder| request.header("x-api-key", "reader");
    let long = "x".repeat(super::super::sql::BODY_BYTES_MAX + 1);
    let sql = || client().post(format!("{url}/v1/sql"));
    let refused = [
        (401, "Unauthorized", sql().body("select 1")),
        (404, "RouteNotFound", keyed(client().get(format!("{url}/v2")))),
        (405, "MethodNotAllowed", keyed(client().delete(format!("{url}/v1/sql")))),
        (413, "BodyTooLarge", keyed(sql().body(long))),
        (400, "BadQueryString", keyed(client().get(format!("{url}/v1/datasets?status=maybe")))),
        (400, "BadPath", keyed(client().post(format!("{url}/v1/sql/%ff/cancel")))),
        (
            400,
            "InvalidRefresh",
            keyed(client().post(format!("{url}/v1/datasets/t/acceleration/refresh")).body("{")),
        ),
        (403, "Forbidden", keyed(client().patch(format!("{url}/v1/datasets/t/acceleration")).body("{}"))),
        (404, "DatasetNotFound", keyed(client().post(format!("{url}/v1/datasets/t/acceleration/refresh")))),
        (400, "BadQueryString", client().get(format!("{url}/v1/ready?verbose=7"))),
        (500, "Internal", keyed(sql().body("panic"))),
    ];
    for (status, code, request) in refused {
        let (found, body) = error(request).await;
        assert_eq!((found, &body["code"]), (status, &json!(code)), "{body}");
    }
    let text = keyed(sql().body("panic")).send().await.unwrap();
    assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(text.text().await.unwrap(), "internal error: the log has more under this request's id\n");
}

#[tokio::test]
async fn methods_are_told_where_they_are_not_taken() {
    let (url, _scope) = http(Fake::default()).await;
    let ask = async |method: ::http::Method, path: &str| {
        let response = client().request(method, format!("{url}{path}")).send().await.unwrap();
        let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
        (response.status().as_u16(), allow, response.text().await.unwrap())
    };
    use ::http::Method;
    let (status, allow, _) = ask(Method::PUT, "/v1/sql").await;
    assert_eq!((status, allow.as_deref()), (405, Some("POST")));
    let (status, allow, body) = ask(Method::OPTIONS, "/v1/datasets").await;
    assert_eq!((status, allow.as_deref(), body.as_str()), (204, Some("GET,HEAD"), ""));
    let (status, _, body) = ask(Method::HEAD, "/v1/datasets").await;
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, _, body) = ask(Method::HEAD, "/v1/datasets?format=xml").await;
    assert_eq!((status, body.as_str()), (400, ""));
    assert_eq!(ask(Method::HEAD, "/health").await.0, 200);
    assert_eq!(ask(Method::OPTIONS, "/nowhere").await.0, 404);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    tokio::time::pause();
    let scope = crate::task::Scope::new();
    let router = super::super::router(Fake::default(), HttpOptions::default(), &scope);
    let slow = stream::iter([Ok::<_, std::io::Error>("sel")]).chain(stream::pending());
    let request = ::http::Request::post("/v1/sql").body(axum::body::Body::from_stream(slow)).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn pages_of_other_origins_ask_where_they_may() {
    let preflight = async |url: &str, origin: &str| {
        let request = client().request(::http::Method::OPTIONS, format!("{url}/v1/sql"));
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "x-api-key").send().await.unwrap()
    };
    let allowed = |response: &reqwest::Response| {
        let found = response.headers().get("access-control-allow-origin");
        found.map(|origin| origin.to_str().unwrap().to_owned())
    };
    let access = Access::new(vec![ApiKey::reading(Secret::new("reader".into()))]);
    let options = |origins: &[&str]| HttpOptions {
        access: access.clone(),
        cors: Cors {
            enabled: true,
            allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        },
        ..HttpOptions::default()
    };
    let (url, _scope) = http_with(Fake::default(), options(&["https://a.example", "no\nheader"])).await;
    let answer = preflight(&url, "https://a.example").await;
    assert!(answer.status().is_success());
    assert_eq!(allowed(&answer).as_deref(), Some("https://a.example"));
    assert_eq!(answer.headers()["access-control-allow-headers"], "x-api-key");
    assert_eq!(allowed(&preflight(&url, "https://b.example").await), None);
    // A refusal can be read by the page as well.
    let refused =
        client().post(format!("{url}/v1/sql")).header("origin", "https://a.example").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), allowed(&refused).as_deref()), (401, Some("https://a.example")));
    assert!(refused.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-query-id"));
    let (url, _scope) = http_with(Fake::default(), options(&["*"])).await;
    assert_eq!(allowed(&preflight(&url, "https://b.example").await).as_deref(), Some("*"));
    let (url, _scope) = http(Fake::default()).await;
    assert_eq!(allowed(&preflight(&url, "https://b.example").await), None);
}

/// A browser sends some requests of any page, with the key that it remembers, and asks nobody first.
#[tokio::test]
async fn pages_of_other_sites_are_refused_whoever_they_ask_for() {
    let ask = async |url: &str, host: &str, origin: Option<&str>| {
        let request = client().post(format!("{url}/v1/sql")).header("host", host).body("select 1");
        let request = request.header("x-api-key", "reader").header("accept", "application/json");
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["code"].clone())
    };
    let access = Access::new(vec![ApiKey::reading(Secret::new("reader".into()))]);
    let keyed = HttpOptions { access, ..HttpOptions::default() };
    let fake = || Fake::default().on("select 1", || Err(QueryError::NotFound { message: "seen".into() }));
    let (foreign, rebound, seen) =
        (json!("OriginNotAllowed"), json!("HostNotAllowed"), json!("TableNotFound"));
    for (options, of_a_name) in [(keyed, (400, seen.clone())), (HttpOptions::default(), (403, rebound))] {
        let (url, _scope) = http_with(fake(), options).await;
        for origin in ["https://evil.example", "null", "http://localhost:1", "http://localhost"] {
            assert_eq!(ask(&url, "localhost:8090", Some(origin)).await, (403, foreign.clone()), "{origin}");
        }
        for origin in [None, Some("http://localhost:8090")] {
            assert_eq!(ask(&url, "localhost:8090", origin).await, (400, seen.clone()), "{origin:?}");
        }
        let page = ("sidewing.pod:8090", "http://sidewing.pod:8090");
        assert_eq!(ask(&url, page.0, None).await, (400, seen.clone()));
        // Its own page, by a name that might be another site's.
        assert_eq!(ask(&url, page.0, Some(page.1)).await, of_a_name);
    }
}

async fn compressed(url: &str, sql: &str, accept: &str, encoding: &str) -> reqwest::Response {
    let request = client().post(format!("{url}/v1/sql")).body(sql.to_owned());
    request.header("accept", accept).header("accept-encoding", encoding).send().await.unwrap()
}

#[tokio::test]
async fn answers_are_compressed_where_it_is_worth_it() {
    let fake = Fake::default().table("long", vec![numbers(0..50_000)]).table("short", vec![numbers(0..2)]);
    let (url, _scope) = http(fake).await;
    let plain = compressed(&url, "select n from long", "text/csv", "identity").await;
    assert!(!plain.headers().contains_key("content-encoding"));
    let plain = plain.bytes().await.unwrap();
    for encoding in ["gzip", "zstd"] {
        let response = compressed(&url, "select n from long", "text/csv", encoding).await;
        assert_eq!(response.headers()["content-encoding"], encoding);
        assert!(response.headers()["vary"].to_str().unwrap().contains("accept-encoding"));
        let body = response.bytes().await.unwrap();
        assert!(body.len() < plain.len() * 3 / 4, "{encoding}: {} of {}", body.len(), plain.len());
        assert_eq!(decompressed(encoding, &body), plain);
    }
    let best = compressed(&url, "select n from long", "text/csv", "gzip;q=0.5, zstd").await;
    assert_eq!(best.headers()["content-encoding"], "zstd");
    let arrow = "application/vnd.apache.arrow.stream";
    for (sql, accept) in [("select n from short", "text/csv"), ("select n from long", arrow)] {
        let response = compressed(&url, sql, accept, "gzip, zstd").await;
        assert!(!response.headers().contains_key("content-encoding"), "{sql}");
    }
}

fn decompressed(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut text).unwrap(),
        _ => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut text).unwrap(),
    };
    text
}

/// Rows that are here are sent though the next ones are not, compressed as well.
#[tokio::test]
async fn compression_holds_no_row_back() {
    for encoding in ["gzip", "zstd"] {
        let fake = Fake::default().on("slow", || {
            let batch = numbers(0..5_000);
            Ok(answer(batch.schema(), stream::iter([Ok(batch)]).chain(stream::pending())))
        });
        let (url, _scope) = http(fake).await;
        let response = compressed(&url, "slow", "text/csv", encoding).await;
        assert_eq!(response.headers()["content-encoding"], encoding);
        let mut body = response.bytes_stream();
        let mut read = Vec::new();
        let all_rows = async {
            while !ends_with_row(encoding, &read, "4999") {
                read.extend(body.next().await.unwrap().unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all_rows).await.unwrap();
    }
}

/// Whether what can be decompressed of it ends with the row.
fn ends_with_row(encoding: &str, body: &[u8], row: &str) -> bool {
    let mut text = Vec::new();
    // It is no whole stream: the error comes after the text.
    let _ = match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut text),
        _ => zstd::stream::read::Decoder::new(body).and_then(|mut decoder| decoder.read_to_end(&mut text)),
    };
    text.ends_with(format!("\n{row}\n").as_bytes())
}

#[tokio::test]
async fn a_late_error_breaks_a_compressed_answer_off() {
    let fake = Fake::default().on("break", || {
        let batch = numbers(0..5_000);
        let late = stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(QueryError::Internal { message: "half way".into() })
        });
        Ok(answer(batch.schema(), stream::iter([Ok(batch)]).chain(late)))
    });
    let (url, _scope) = http(fake).await;
    for encoding in ["gzip", "zstd"] {
        let response = compressed(&url, "break", "text/csv", encoding).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-encoding"]),
            (200, &encoding.parse().unwrap())
        );
        assert!(response.bytes().await.is_err(), "{encoding}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_compressed_answer_ends_its_query() {
    let dropped = CancellationToken::new();
    let (url, _scope) = http(endless(&dropped)).await;
    let mut body = compressed(&url, "endless", "text/csv", "zstd").await.bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), dropped.cancelled()).await.unwrap();
}

/// Also one that has no answer yet.
#[tokio::test]
async fn a_client_that_leaves_before_the_first_row_ends_its_query() {
    let dropped = CancellationToken::new();
    let token = dropped.clone();
    let fake = Fake::default()
        .on("silent", move || Ok(watched(answer(numbers(0..0).schema(), stream::pending()), &token)));
    let (url, _scope) = http(fake).await;
    let asked = post(&url, "silent", "text/csv");
    assert!(tokio::time::timeout(Duration::from_millis(300), asked).await.is_err());
    tokio::time::timeout(Duration::from_secs(5), dropped.cancelled()).await.unwrap();
}
