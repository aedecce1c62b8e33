//! Lists of queries, datasets, views and listeners, and the end of a query.

use serde_json::{Value, json};

use super::*;
use crate::name::QueryId;
use crate::query::{Outcome, Place, Principal, Protocol, QueryRecord};
use crate::secrets::Secret;
use crate::serve::access::{Access, ApiKey};
use crate::serve::fake::http_with;
use crate::serve::http::{About, HttpOptions, ListenerAbout, SpicepodAbout};

fn record(principal: Principal, outcome: Option<Outcome>) -> QueryRecord {
    QueryRecord {
        id: QueryId::random(),
        sql: "SELECT 1".into(),
        principal,
        protocol: Protocol::Flight,
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        elapsed: Duration::from_millis(250),
        rows: 3,
        place: outcome.as_ref().map(|_| Place::Pushed),
        outcome,
    }
}

async fn get(url: &str, accept: &str) -> (u16, String) {
    let request = reqwest::Client::new().get(url).header("accept", accept).header("x-api-key", "reader");
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn queries_are_told_by_both_sets_of_names() {
    let running = record(Principal::Anonymous, None);
    let failed = record(Principal::Anonymous, Some(Outcome::Failed("no such table".into())));
    let ids = [running.id.to_string(), failed.id.to_string()];
    let fake = Fake::default().asked(vec![running, failed]);
    let (url, _scope) = http(fake).await;
    let mut told = String::new();
    for path in ["active", "recent"] {
        let (status, text) = get(&format!("{url}/v1/sql/{path}"), "application/json").await;
        assert_eq!(status, 200);
        let value: Value = serde_json::from_str(&text).unwrap();
        told += &format!("{path}: {}\n", serde_json::to_string_pretty(&value).unwrap());
    }
    for id in ids {
        told = told.replace(&id, "ID");
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn a_query_is_cancelled_by_who_may() {
    let key = |secret: &str| ApiKey::reading(Secret::new(secret.into()));
    let access = Access::new(vec![key("reader"), key("other")]);
    let of = |secret: &str| {
        let headers = ::http::HeaderMap::from_iter([(
            ::http::HeaderName::from_static("x-api-key"),
            secret.parse().unwrap(),
        )]);
        access.identify(&headers).ok().unwrap().caller.principal
    };
    let (mine, others) = (record(of("reader"), None), record(of("other"), None));
    let (mine_id, others_id) = (mine.id.to_string(), others.id.to_string());
    let fake = Fake::default().asked(vec![mine, others]);
    let (url, _scope) = http_with(fake, HttpOptions { access, ..HttpOptions::default() }).await;
    let cancel = async |id: &str| {
        let request = reqwest::Client::new().post(format!("{url}/v1/sql/{id}/cancel"));
        let response =
            request.header("x-api-key", "reader").header("accept", "application/json").send().await;
        let response = response.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    assert_eq!(cancel(&mine_id).await, (200, json!({ "query_id": mine_id, "status": "cancelled" })));
    let (status, body) = cancel(&others_id).await;
    assert_eq!((status, &body["code"]), (403, &json!("Forbidden")));
    let (status, body) = cancel(&QueryId::random().to_string()).await;
    assert_eq!((status, &body["code"]), (404, &json!("QueryNotFound")));
    for bad in ["7", "%ff", "%00", "%2f"] {
        let (status, body) = cancel(bad).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
    let (_, seen) = get(&format!("{url}/v1/sql/active"), "application/json").await;
    assert_eq!(serde_json::from_str::<Value>(&seen).unwrap()["total_count"], json!(1));
}

#[tokio::test]
async fn lists_are_json_or_csv_as_the_client_wants() {
    let mut fake = Fake::default().table("t", vec![numbers(0..1)]).table("v", vec![numbers(0..1)]);
    fake.datasets[1].is_view = true;
    let listeners = vec![ListenerAbout { name: "http", endpoint: "127.0.0.1:8090".into() }];
    let spicepod = SpicepodAbout { name: "a, \"b\"".into(), version: "v1".into() };
    let options = HttpOptions { about: About { spicepod, listeners }, ..HttpOptions::default() };
    let (url, _scope) = http_with(fake, options).await;
    let mut told = String::new();
    for path in ["status", "spicepods", "catalogs", "datasets", "views", "views?status=true"] {
        for accept in ["application/json", "text/csv"] {
            let (status, text) = get(&format!("{url}/v1/{path}"), accept).await;
            told += &format!("GET /v1/{path} as {accept}: {status}\n{}\n", text.trim_end());
        }
    }
    insta::assert_snapshot!(told);
    let status = format!("{url}/v1/status");
    assert_eq!(get(&status, "image/png").await.0, 406);
    assert_eq!(get(&format!("{status}?format=csv"), "application/json").await.1.lines().count(), 2);
    assert_eq!(get(&format!("{status}?format=xml"), "*/*").await.0, 400);
    assert_eq!(get(&format!("{url}/v1/catalogs?from=elsewhere"), "*/*").await.1, "[]");
    // A browser shows JSON.
    assert!(get(&status, "text/html,application/xhtml+xml,*/*;q=0.8").await.1.starts_with('['));
}

#[tokio::test]
async fn a_listener_that_is_being_closed_says_so() {
    let scope = crate::task::Scope::new();
    let listeners = vec![ListenerAbout { name: "http", endpoint: "127.0.0.1:8090".into() }];
    let options = HttpOptions { about: About { listeners, ..About::default() }, ..HttpOptions::default() };
    let router = crate::serve::http::router(Fake::default(), options, &scope);
    scope.cancel();
    let request = ::http::Request::get("/v1/status?format=csv").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"name,endpoint,status\nhttp,127.0.0.1:8090,ShuttingDown\n");
}
