//! Requests of all sorts through the whole router: no panic, and no answer that the document does not hold.
//!
//! `SIDEWING_LONG=1` makes a million of them.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

use ::http::{Method, Request, StatusCode};
use axum::Router;
use axum::body::Body;
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::{Value, json};

use super::document::operations;
use super::*;
use crate::query::{Answer, Ask, AskError, DatasetStatus};
use crate::serve::Door;
use crate::serve::http::{HttpOptions, router};
use crate::task::Scope;

/// A door that answers whatever it is asked, each way in its turn, and looks at no SQL.
#[derive(Clone)]
struct Moody {
    datasets: Vec<DatasetStatus>,
}

impl Moody {
    fn outcome(request: &crate::query::Request) -> Result<Answer, QueryError> {
        let mut hasher = DefaultHasher::new();
        request.sql.hash(&mut hasher);
        let mut errors = every_error();
        let at = usize::try_from(hasher.finish() % 64).unwrap();
        match at < errors.len() {
            true => Err(errors.swap_remove(at)),
            false => {
                let batch = numbers(0..i64::try_from(at).unwrap());
                Ok(answer(batch.schema(), stream::iter([Ok(batch)])))
            }
        }
    }
}

impl Door for Moody {
    async fn run(&self, request: crate::query::Request) -> Result<Answer, QueryError> {
        Self::outcome(&request)
    }

    async fn schema(&self, request: crate::query::Request) -> Result<SchemaRef, QueryError> {
        Self::outcome(&request).map(|answer| answer.schema)
    }

    async fn table_schema(&self, path: &[String]) -> Result<SchemaRef, QueryError> {
        Err(QueryError::NotFound { message: path.join(".") })
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        self.datasets.clone()
    }

    fn refresh(&self, dataset: &str, _ask: Ask) -> Result<u64, AskError> {
        Self::asked(dataset).map(|()| 7)
    }

    fn set_refresh_sql(&self, dataset: &str, _sql: Option<String>) -> Result<(), AskError> {
        Self::asked(dataset)
    }
}

impl Moody {
    fn asked(dataset: &str) -> Result<(), AskError> {
        match dataset.len() % 5 {
            0 => Err(AskError::NotFound(dataset.to_owned())),
            1 => Err(AskError::NotAccelerated(dataset.to_owned())),
            2 => Err(AskError::Busy(dataset.to_owned())),
            3 => Err(AskError::Invalid(dataset.to_owned())),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone)]
struct Case {
    method: Method,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

fn paths() -> impl Strategy<Value = String> {
    let documented: Vec<String> = operations().into_iter().map(|(path, _, _)| path).collect();
    let segment = prop_oneof![
        "[a-z]{1,8}",
        Just("6f1de0e6-5c3b-4a52-93a7-4b1f0b9b4f0e".to_owned()),
        Just("%ff".to_owned()),
        Just("%00%2f..".to_owned()),
        "(%[0-9a-f]{2}){1,6}",
    ];
    let path = (prop::sample::select(documented), segment.clone())
        .prop_map(|(path, segment)| path.replace("{id}", &segment).replace("{name}", &segment));
    let query = prop_oneof![
        3 => Just(String::new()),
        2 => "\\?(status|format|verbose|source|from)=(true|false|json|csv|1|%ff|[a-z]{0,4})",
        1 => "\\?[a-z=&%0-9]{0,30}",
    ];
    let anything = segment.prop_map(|segment| format!("/{segment}"));
    (prop_oneof![8 => path, 1 => anything], query).prop_map(|(path, query)| path + &query)
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let types = prop::sample::select(vec![
        "application/json",
        "application/json; charset=utf-8",
        "text/csv",
        "text/plain",
        "application/vnd.spiceai.sql.v1+json",
        "application/vnd.apache.arrow.stream",
        "application/*;q=0.3, text/*",
        "*/*",
        "image/png",
        "",
    ]);
    let text = prop_oneof![
        4 => types.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..40),
        1 => "(no-cache|max-age|min-fresh|max-stale|stale-if-error|only-if-cached)(=[0-9a-z\"]{0,6})?".prop_map(String::into_bytes),
    ];
    let name = prop::sample::select(vec![
        "accept",
        "accept",
        "content-type",
        "content-type",
        "accept-encoding",
        "cache-control",
        "spice-cache-key",
        "x-request-id",
        "x-api-key",
        "authorization",
        "origin",
        "content-length",
    ]);
    prop::collection::vec((name, text), 0..5)
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    let request = ("\\PC{0,24}", value.clone())
        .prop_map(|(sql, parameters)| json!({ "sql": sql, "parameters": parameters }));
    let refresh = ("[a-z]{0,8}", "\\PC{0,8}")
        .prop_map(|(mode, jitter)| json!({ "refresh_mode": mode, "refresh_jitter_max": jitter }));
    let text = |value: Value| value.to_string().into_bytes();
    let whole = prop_oneof![request.prop_map(text), refresh.prop_map(text), value.prop_map(text)];
    // Whole JSON, JSON with a byte changed, brackets without an end, and what is no JSON.
    prop_oneof![
        4 => whole.clone(),
        2 => (whole, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut text, at, byte)| {
            let at = at.index(text.len());
            text[at] = byte;
            text
        }),
        1 => (1usize..3_000, prop::sample::select(vec!["[", "{\"a\":", "{\"sql\":\"x\",\"parameters\":["]))
            .prop_map(|(times, text)| text.repeat(times).into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..80),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let method = prop::sample::select(vec![
        "GET", "POST", "PATCH", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "ODD",
    ]);
    let method = prop_oneof![6 => Just("POST"), 3 => Just("GET"), 2 => method];
    (method, paths(), headers(), bodies()).prop_map(|(method, path, headers, body)| Case {
        method: method.parse().unwrap(),
        path,
        headers,
        body,
    })
}

/// The statuses that the document holds for a method and a path; none where it holds neither.
struct Documented(Vec<(Vec<String>, Method, Vec<u16>)>);

impl Documented {
    fn read() -> Self {
        let operations = operations().into_iter().map(|(path, method, operation)| {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let statuses = statuses.map(|status| status.parse().unwrap()).collect();
            let parts = path.split('/').map(str::to_owned).collect();
            (parts, method.to_ascii_uppercase().parse().unwrap(), statuses)
        });
        Self(operations.collect())
    }

    fn holds(&self, case: &Case, status: StatusCode) -> bool {
        let path = case.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let is_of = |template: &[String]| {
            let fits = |(part, text): (&String, &&str)| part.starts_with('{') || part == text;
            template.len() == parts.len() && template.iter().zip(&parts).all(fits)
        };
        let here: Vec<_> = self.0.iter().filter(|(template, _, _)| is_of(template)).collect();
        let method = if case.method == Method::HEAD { &Method::GET } else { &case.method };
        let operation = here.iter().find(|(_, known, _)| known == method);
        // Whatever a page of another site asks for.
        let is_foreign =
            status == StatusCode::FORBIDDEN && case.headers.iter().any(|(name, _)| *name == "origin");
        match (operation, here.is_empty()) {
            (None, _) if is_foreign => true,
            (Some((_, _, statuses)), _) => statuses.contains(&status.as_u16()),
            (None, false) if case.method == Method::OPTIONS => status == StatusCode::NO_CONTENT,
            (None, false) => status == StatusCode::METHOD_NOT_ALLOWED,
            (None, true) => status == StatusCode::NOT_FOUND,
        }
    }
}

/// An answer that is whole, in the form that it claims, and whose status is documented.
async fn check(router: Router, documented: &Documented, case: &Case) -> Result<(), TestCaseError> {
    let mut request = Request::builder().method(case.method.clone()).uri(&case.path);
    for (name, value) in &case.headers {
        request = request.header(*name, value.as_slice());
    }
    // What is no request never reaches a router.
    let Ok(request) = request.body(Body::from(case.body.clone())) else { return Ok(()) };
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    let status = response.status();
    let headers = response.headers().clone();
    let body =
        response.into_body().collect().await.map_err(|error| TestCaseError::fail(error.to_string()))?;
    let body = body.to_bytes();
    prop_assert!(
        documented.holds(case, status),
        "{status} is not documented: {}",
        String::from_utf8_lossy(&body)
    );
    prop_assert!(headers.contains_key("x-request-id"));
    let panicked = body.ends_with(b"the log has more under this request's id\n");
    prop_assert!(!panicked, "it panicked");
    let is_json = headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if is_json && !headers.contains_key("content-encoding") && case.method != Method::HEAD {
        let value: Value =
            serde_json::from_slice(&body).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!status.is_client_error() || value["code"].is_string(), "{value}");
        prop_assert!(
            value["message"] != "internal error: the log has more under this request's id",
            "it panicked"
        );
    }
    Ok(())
}

#[test]
fn any_request_gets_a_documented_answer() {
    let cases_max = if std::env::var_os("SIDEWING_LONG").is_some() { 1_000_000 } else { 3_000 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let datasets = Fake::default().table("t", vec![numbers(0..1)]).datasets;
    let router = router(Moody { datasets }, HttpOptions::default(), &Scope::new());
    let documented = Documented::read();
    let count = Cell::new(0);
    let config = ProptestConfig {
        cases: cases_max,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&cases(), |case| {
        count.set(count.get() + 1);
        runtime.block_on(check(router.clone(), &documented, &case))
    });
    println!("{} requests", count.get());
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(count.get() >= cases_max);
}
