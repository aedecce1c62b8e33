//! The document: what it says, that it says so of every route, and that its viewer asks nobody else.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::serve::http::{HttpOptions, OPEN_ROUTES, router, routes};
use crate::serve::mcp::McpOptions;
use crate::task::Scope;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Routes that the document leaves out, each with its reason.
const ASIDE: [&str; 5] = [
    // A protocol that describes itself.
    "/v1/mcp",
    // The document by the name that the public runtime gives it.
    "/docs/openapi.json",
    // Pages for people, and their files.
    "/docs",
    "/docs/",
    "/docs/{file}",
];

pub(super) fn document() -> Value {
    serde_json::to_value(routes(&Fake::default(), McpOptions::default()).finish().1).unwrap()
}

/// Every path of the document with its methods.
pub(super) fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter().filter(|(key, _)| METHODS.contains(&key.as_str()));
        methods
            .map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
            .collect::<Vec<_>>()
    });
    operations.collect()
}

#[test]
fn the_document_is_as_it_was() {
    let mut document = document();
    // Releases are not changes of the document.
    document["info"]["version"] = "0.0.0".into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
}

/// What the router itself says that it routes: there is no list beside it that could be forgotten.
#[test]
fn every_route_is_in_the_document_or_left_out_on_purpose() {
    let shown = format!("{:?}", routes(&Fake::default(), McpOptions::default()).finish().0);
    // What follows is no route: where everything else ends.
    let (shown, _) = shown.split_once("fallback_router").unwrap();
    let routed: BTreeSet<&str> =
        shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/')).collect();
    let operations = operations();
    let documented: BTreeSet<&str> =
        operations.iter().map(|(path, _, _)| path.as_str()).chain(ASIDE).collect();
    assert_eq!(routed, documented);
}

#[tokio::test]
async fn every_operation_is_served_and_no_other() {
    let scope = Scope::new();
    let router = router(Fake::default(), HttpOptions::default(), &scope);
    let operations = operations();
    for (path, method, _) in operations.clone() {
        let uri = path.replace(['{', '}'], "");
        let ask = async |method: &str| {
            let uri = uri.clone();
            let method = ::http::Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let request = ::http::Request::builder().method(method).uri(uri);
            let request = request.body(axum::body::Body::empty()).unwrap();
            tower::ServiceExt::oneshot(router.clone(), request).await.unwrap()
        };
        assert_ne!(ask(&method).await.status(), 405, "{method} {path}");
        let is_served = |other: &&str| {
            operations.iter().any(|(served, method, _)| *served == path && method.as_str() == *other)
        };
        for other in ["put", "delete", "trace"].into_iter().filter(|other| !is_served(other)) {
            let response = ask(other).await;
            assert_eq!(response.status(), 405, "{other} {path}");
            let allow = response.headers()["allow"].to_str().unwrap().to_ascii_lowercase();
            assert!(allow.split(',').any(|allowed| allowed == method), "{path}: {allow}");
        }
    }
}

#[test]
fn every_reference_of_the_document_has_its_aim() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(aim)) => {
                    assert!(document.pointer(aim.trim_start_matches('#')).is_some(), "{aim}");
                }
                (_, value) => visit(value, document),
            }),
            Value::Array(values) => values.iter().for_each(|value| visit(value, document)),
            _ => {}
        }
    }
    let document = document();
    visit(&document, &document);
}

#[test]
fn keys_are_asked_for_where_the_guard_asks() {
    assert_eq!(document()["security"].as_array().unwrap().len(), 3);
    for (path, method, operation) in operations() {
        let is_open = OPEN_ROUTES.contains(&path.as_str());
        assert_eq!(operation.get("security") == Some(&Value::Array(Vec::new())), is_open, "{method} {path}");
        assert_eq!(operation["responses"].get("401").is_none(), is_open, "{method} {path}");
        assert!(operation["responses"].get("500").is_some(), "{method} {path}");
    }
}

async fn get(url: String) -> (reqwest::StatusCode, ::http::HeaderMap, String) {
    let response = reqwest::get(url).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned())
}

#[tokio::test]
async fn the_document_is_served_under_both_names() {
    let (url, _scope) = http(Fake::default()).await;
    for path in ["/openapi.json", "/docs/openapi.json"] {
        let (status, headers, text) = get(format!("{url}{path}")).await;
        assert_eq!((status.as_u16(), &headers["content-type"]), (200, &"application/json".parse().unwrap()));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document());
    }
}

/// Every file that the page names comes from here, its settings name nothing else, and the browser is told to ask nobody.
#[tokio::test]
async fn the_viewer_asks_nobody_else() {
    let (url, _scope) = http(Fake::default()).await;
    let (status, headers, page) = get(format!("{url}/docs")).await;
    assert_eq!(status, 200);
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("http") && !policy.contains('*'),
        "{policy}"
    );
    assert!(!page.contains("://"), "{page}");
    let named = page.split(['"', '\'']).filter(|text| text.starts_with("./") || text.ends_with(".css"));
    let files: Vec<&str> = named.map(|text| text.trim_start_matches("./")).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let (status, headers, text) = get(format!("{url}/docs/{file}")).await;
        assert_eq!((status.as_u16(), headers.get("content-encoding")), (200, None), "{file}");
        // How gzip begins: they are kept so, and sent so only to those who ask.
        assert!(!text.starts_with('\u{1f}') && !text.is_empty(), "{file}");
    }
    let (_, headers, settings) = get(format!("{url}/docs/swagger-initializer.js")).await;
    assert!(headers["content-type"].to_str().unwrap().contains("javascript"));
    assert!(settings.contains(r#""url": "/openapi.json""#), "{settings}");
    assert!(settings.contains(r#""validatorUrl": "none""#) && !settings.contains("://"), "{settings}");
    let (status, _, text) = get(format!("{url}/docs/nothing.js")).await;
    assert_eq!(
        (status.as_u16(), text.as_str()),
        (404, "there is no /docs/nothing.js; GET /docs shows the document\n")
    );
}
