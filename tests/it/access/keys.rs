//! Every route and every call without a key, with a wrong one, and with each that is known, shown in every way.

use std::collections::BTreeSet;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightDescriptor, HandshakeRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderName, Method};
use tonic::Code;

use super::dial::{Dial, Got};
use super::*;

const KEYS: &str =
    "runtime:\n  auth:\n    api-key:\n      keys: ['${secrets:READER}', '${secrets:WRITER}:rw']\n";
const READER: &str = "reader-4f1c";
const WRITER: &str = "writer-9b2e";
const NOBODY: &str = "nobody-77aa";

/// What the issue names, whether it is there yet or not: what is not there is not told to strangers either.
const ROUTES: &[&str] = &[
    "/",
    "/console",
    "/docs",
    "/docs/",
    "/openapi.json",
    "/v1/sql",
    "/v1/sql/active",
    "/v1/sql/0198f0f4-0000-7000-8000-000000000000/cancel",
    "/v1/datasets",
    "/v1/datasets/items/acceleration",
    "/v1/datasets/items/acceleration/refresh",
    "/v1/catalogs",
    "/v1/spicepods",
    "/v1/status",
    "/v1/mcp",
    "/no/such/route",
];
const OPEN_ROUTES: &[&str] = &["/health", "/healthz", "/v1/ready", "/readyz"];

const FLIGHT: &str = "/arrow.flight.protocol.FlightService";
const CALLS: &[&str] = &[
    "/arrow.flight.protocol.FlightService/ListFlights",
    "/arrow.flight.protocol.FlightService/GetFlightInfo",
    "/arrow.flight.protocol.FlightService/PollFlightInfo",
    "/arrow.flight.protocol.FlightService/GetSchema",
    "/arrow.flight.protocol.FlightService/DoGet",
    "/arrow.flight.protocol.FlightService/DoPut",
    "/arrow.flight.protocol.FlightService/DoExchange",
    "/arrow.flight.protocol.FlightService/DoAction",
    "/arrow.flight.protocol.FlightService/ListActions",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Call",
];

/// Further calls that need no key, where they are there.
const OPEN_CALLS: &[&str] = &["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

const UNAUTHENTICATED: &str = "16";
const PERMISSION_DENIED: &str = "7";

async fn start() -> (Upstream, Sidecar) {
    let (upstream, builder) = world(KEYS).await;
    let sidecar = builder.secret("READER", READER).secret("WRITER", WRITER).start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

fn fronts(sidecar: &Sidecar) -> (Dial, Dial) {
    let plain = |address: &str| Dial::Plain(address.to_owned());
    (plain(sidecar.http_addr()), plain(sidecar.flight_addr()))
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
}

fn basic(password: &str) -> HeaderMap {
    headers("authorization", &format!("Basic {}", BASE64.encode(format!("anybody:{password}"))))
}

/// A session token of Handshake.
async fn session(flight: &Dial, key: &str) -> String {
    let mut request = tonic::Request::new(stream::iter([HandshakeRequest::default()]));
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(basic(key));
    let response = flight.flight().handshake(request).await.unwrap();
    response.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
}

/// `key` in every way in which it is shown.
async fn shown(flight: &Dial, key: &str) -> Vec<HeaderMap> {
    vec![
        headers("x-api-key", key),
        headers("authorization", &format!("Bearer {key}")),
        headers("authorization", &session(flight, key).await),
        basic(key),
    ]
}

/// What is no key: none, an empty one, a wrong one, in every way; a right one with its suffix; a forged session.
async fn unknown(flight: &Dial) -> Vec<HeaderMap> {
    let forged = session(flight, READER).await.replace('.', ".0");
    let mut unknown = vec![
        HeaderMap::new(),
        headers("x-api-key", ""),
        headers("authorization", "Bearer "),
        headers("authorization", "Bearer"),
        headers("authorization", READER),
        headers("authorization", &forged),
        headers("x-api-key", &format!("{WRITER}:rw")),
        basic(""),
    ];
    for key in [NOBODY, &READER[1..], &format!("{READER}x")] {
        unknown.extend([headers("x-api-key", key), basic(key)]);
        unknown.push(headers("authorization", &format!("Bearer {key}")));
    }
    unknown
}

async fn call(flight: &Dial, path: &str, mut headers: HeaderMap) -> Got {
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    flight.ask(Method::POST, path, headers, "").await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn ask(http: &Dial, method: Method, path: &str, headers: HeaderMap, body: &str) -> Got {
    let answer = http.ask(method.clone(), path, headers, body).await;
    answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// The routes of the list, and those that the sidecar itself documents.
async fn routes(http: &Dial) -> BTreeSet<String> {
    let mut routes: BTreeSet<String> = ROUTES.iter().map(|route| (*route).to_owned()).collect();
    let document = ask(http, Method::GET, "/openapi.json", headers("x-api-key", READER), "").await;
    if document.status == 200 {
        let document: serde_json::Value = serde_json::from_str(&document.body).unwrap();
        let paths = document["paths"].as_object().expect("paths of the document");
        let id = "0198f0f4-0000-7000-8000-000000000000";
        routes.extend(paths.keys().map(|path| path.replace("{name}", "items").replace("{id}", id)));
    }
    routes.into_iter().filter(|route| !OPEN_ROUTES.contains(&route.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_answers_a_stranger() {
    let (_upstream, sidecar) = start().await;
    let (http, flight) = fronts(&sidecar);
    let strangers = unknown(&flight).await;
    let mut bodies = BTreeSet::new();
    for route in routes(&http).await {
        for headers in &strangers {
            let got = ask(&http, Method::GET, &route, headers.clone(), "").await;
            assert_eq!(got.status, 401, "GET {route} {headers:?}: {}", got.body);
            assert!(got.headers.contains_key("www-authenticate"), "{route}");
            bodies.insert(got.body);
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let got = ask(&http, method.clone(), &route, HeaderMap::new(), "select 1").await;
            assert_eq!(got.status, 401, "{method} {route}: {}", got.body);
        }
    }
    assert_eq!(bodies.len(), 1, "the answers tell strangers apart: {bodies:?}");
    for route in OPEN_ROUTES {
        let got = ask(&http, Method::GET, route, HeaderMap::new(), "").await;
        assert_eq!(got.status, 200, "{route}: {}", got.body);
    }
    let metrics = Dial::Plain(sidecar.metrics_addr().to_owned());
    for path in ["/metrics", "/health"] {
        assert_eq!(ask(&metrics, Method::GET, path, HeaderMap::new(), "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_answers_a_stranger() {
    let (_upstream, sidecar) = start().await;
    let (_http, flight) = fronts(&sidecar);
    let strangers = unknown(&flight).await;
    let mut messages = BTreeSet::new();
    for path in CALLS {
        for headers in &strangers {
            let got = call(&flight, path, headers.clone()).await;
            assert_eq!(got.grpc_status.as_deref(), Some(UNAUTHENTICATED), "{path} {headers:?}");
            messages.extend(got.headers.get("grpc-message").cloned());
        }
    }
    assert_eq!(messages.len(), 1, "the answers tell strangers apart: {messages:?}");
    for path in OPEN_CALLS {
        let got = call(&flight, path, HeaderMap::new()).await;
        // Without a health service nobody is told that it is absent either.
        let is_absent =
            call(&flight, path, headers("x-api-key", READER)).await.grpc_status.as_deref() == Some("12");
        let is_denied = got.grpc_status.as_deref() == Some(UNAUTHENTICATED);
        assert!(!is_denied || is_absent, "{path}: {got:?}");
    }
    // Handshake reads the password itself, and says no more than the guard.
    let handshake = format!("{FLIGHT}/Handshake");
    let wrong = call(&flight, &handshake, basic(NOBODY)).await;
    assert_eq!(wrong.grpc_status.as_deref(), Some(UNAUTHENTICATED), "{wrong:?}");
    assert_ne!(call(&flight, &handshake, basic(READER)).await.grpc_status.as_deref(), Some(UNAUTHENTICATED));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_key_gets_in_however_it_is_shown() {
    let (_upstream, sidecar) = start().await;
    let (http, flight) = fronts(&sidecar);
    let routes = routes(&http).await;
    for key in [READER, WRITER] {
        for headers in shown(&flight, key).await {
            for route in &routes {
                let got = ask(&http, Method::GET, route, headers.clone(), "").await;
                assert!(![401, 403].contains(&got.status), "{route} {headers:?}: {}", got.body);
            }
            for path in CALLS {
                let status = call(&flight, path, headers.clone()).await.grpc_status;
                assert_ne!(status.as_deref(), Some(UNAUTHENTICATED), "{path} {headers:?}");
            }
            let got =
                ask(&http, Method::POST, "/v1/sql", headers.clone(), "select count(*) as n from items").await;
            assert_eq!((got.status, got.body.as_str()), (200, r#"[{"n":3}]"#), "{headers:?}");
            let mut request = tonic::Request::new(FlightDescriptor::new_cmd("select id from items"));
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers.clone());
            let info = flight.flight().get_flight_info(request).await.unwrap().into_inner();
            assert!(info.endpoint[0].ticket.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_may_not_write() {
    let (_upstream, sidecar) = start().await;
    let (http, flight) = fronts(&sidecar);
    let table = "/v1/datasets/items/acceleration";
    let refresh = "/v1/datasets/items/acceleration/refresh";
    let sql = r#"{"refresh_sql": "select id from items where id < 3"}"#;
    for (key, may) in [(READER, false), (WRITER, true)] {
        for headers in shown(&flight, key).await {
            let patched = ask(&http, Method::PATCH, table, headers.clone(), sql).await;
            let refreshed = ask(&http, Method::POST, refresh, headers.clone(), sql).await;
            let plainly = ask(&http, Method::POST, refresh, headers.clone(), "").await;
            let put = call(&flight, &format!("{FLIGHT}/DoPut"), headers.clone()).await.grpc_status;
            let statuses = [patched.status, refreshed.status, plainly.status];
            assert_eq!(statuses, if may { [200, 201, 201] } else { [403, 403, 201] }, "{headers:?}");
            assert_eq!(put.as_deref() == Some(PERMISSION_DENIED), !may, "{headers:?} {put:?}");
            let written = write(&flight, headers).await;
            match may {
                true => assert!(written.is_ok(), "{written:?}"),
                false => assert_eq!(written.map_err(|status| status.code()), Err(Code::PermissionDenied)),
            }
        }
    }
}

/// Puts a row into `notes`.
async fn write(flight: &Dial, headers: HeaderMap) -> Result<(), tonic::Status> {
    let descriptor = Some(FlightDescriptor::new_path(vec!["notes".to_owned()]));
    let batches = stream::iter(items()).map(Ok::<_, FlightError>);
    let messages = FlightDataEncoderBuilder::new().with_flight_descriptor(descriptor).build(batches);
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let mut request = tonic::Request::new(stream::iter(messages));
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    let mut answers = flight.flight().do_put(request).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_with_their_secret_while_it_runs() {
    let (_upstream, builder) = world(KEYS).await;
    let sidecar = builder.file(".env", "READER=first-key\nWRITER=second-key\n").start().await;
    sidecar.wait_ready().await;
    let (http, flight) = fronts(&sidecar);
    let status = async |headers: HeaderMap| ask(&http, Method::GET, "/v1/datasets", headers, "").await.status;
    let of = |key: &str| headers("x-api-key", key);
    let former = session(&flight, "first-key").await;
    let former = || headers("authorization", &former);
    assert_eq!((status(of("first-key")).await, status(former()).await), (200, 200));

    let file = sidecar.dir().join(".env");
    std::fs::write(&file, "READER=third-key:rw\nWRITER=second-key\n").unwrap();
    wait_until("the third key", &sidecar, async || status(of("third-key")).await == 200).await;
    assert_eq!((status(of("first-key")).await, status(former()).await), (401, 401));
    assert_eq!(status(of("second-key")).await, 200);
    let patched = ask(&http, Method::PATCH, "/v1/datasets/items/acceleration", of("third-key"), "{}").await;
    assert_eq!(patched.status, 200, "{}", patched.body);

    // A store that fails changes nothing, and says so once.
    let complaint = "api keys cannot be read again";
    std::fs::write(&file, "WRITER=second-key\n").unwrap();
    wait_until("a complaint", &sidecar, async || sidecar.stderr().contains(complaint)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(status(of("third-key")).await, 200);
    let stderr = sidecar.stderr();
    assert_eq!(stderr.matches(complaint).count(), 1, "{stderr}");
    assert!(stderr.contains("`READER`") || stderr.contains("secret `READER`"), "{stderr}");
    for key in ["first-key", "second-key", "third-key"] {
        assert!(!stderr.contains(key), "{stderr}");
    }
}
