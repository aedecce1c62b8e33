//! Every mistake of Show 4, one clear message each: TLS, keys, addresses, secrets, spelling.
//!
//! Each case runs the real binary and is held to a snapshot, with ports and temporary paths replaced; the
//! words that a user must find are asserted beside it. `INSTA_UPDATE=always` rewrites the snapshots.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use crate::support::client::batch;
use crate::support::pki::{Pki, ServerTls, Validity};
use crate::support::port::ClosedPort;
use crate::support::sidecar::{Builder, Finished, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const KEY: &str = "k3y-that-nobody-may-see";

/// Exit codes of `sidewing check`.
const ALL_WELL: i32 = 0;
const UNREACHABLE: i32 = 1;
const BAD_SPICEPOD: i32 = 2;

async fn upstream(tls: ServerTls) -> Upstream {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let builder = Upstream::builder().table("orders", batch([("id", ids)])).tls(tls);
    builder.api_key(KEY).start().await
}

/// The dataset as it should be written.
fn dataset(upstream: &Upstream, pki: &Pki) -> Dataset {
    Dataset::of("orders", upstream).ca(&pki.ca_file()).param("spiceai_api_key", "${secrets:ORDERS_KEY}")
}

fn sidecar(dataset: Dataset) -> Builder {
    Sidecar::builder().spicepod(&spicepod(&[dataset], "")).secret("ORDERS_KEY", KEY)
}

/// Runs `sidewing check`, compares its whole output with a snapshot.
async fn assert_check(name: &str, builder: Builder, filters: &[(String, &str)], code: i32, words: &[&str]) {
    let dir = builder.dir().to_string_lossy().into_owned();
    let finished = builder.finish("check").await;
    let text = normal(&finished, &[filters, &[(dir, "[DIR]")]].concat());
    for word in words {
        assert!(text.contains(word), "{name}: `{word}` in:\n{text}");
    }
    assert_eq!(finished.code, Some(code), "{name}:\n{text}");
    insta::assert_snapshot!(name, text);
}

/// Both outputs with what changes from run to run replaced.
fn normal(finished: &Finished, filters: &[(String, &str)]) -> String {
    let mut text = format!("--- stdout\n{}--- stderr\n{}", finished.stdout, finished.stderr);
    for (from, to) in filters {
        text = text.replace(from, to);
    }
    let lines = text.lines().map(|line| without_durations(line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// `12 ms`, `1.5ms` and the like become `[TIME]`.
fn without_durations(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = rest[start..].find(|c: char| !c.is_ascii_digit() && c != '.');
        let end = number.map_or(rest.len(), |length| start + length);
        let tail = rest[end..].trim_start_matches(' ');
        let unit = ["ms", "µs"].into_iter().find(|unit| tail.starts_with(unit));
        out.push_str(&rest[..start]);
        match unit {
            Some(unit) => {
                out.push_str("[TIME]");
                rest = &tail[unit.len()..];
            }
            None => {
                out.push_str(&rest[start..end]);
                rest = &rest[end..];
            }
        }
    }
    out + rest
}

/// What a test's own world adds to messages.
fn filters(upstream: &Upstream, pki: &Pki) -> Vec<(String, &'static str)> {
    vec![
        (pki.dir().to_string_lossy().into_owned(), "[PKI]"),
        (format!(":{}", upstream.addr().port()), ":[PORT]"),
        (format!("port {}", upstream.addr().port()), "port [PORT]"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_and_a_key_through_secrets_work() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost")).await;
    let filters = filters(&upstream, &pki);
    assert_check("all_well", sidecar(dataset(&upstream, &pki)), &filters, ALL_WELL, &["orders"]).await;

    let sidecar = sidecar(dataset(&upstream, &pki)).start().await;
    sidecar.wait_ready().await;
    let rows = sidecar.sql("select sum(id) as total from orders").await;
    assert_eq!(rows, serde_json::json!([{"total": 6}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_found_by_its_usual_name() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost")).await;
    let dataset = Dataset::of("orders", &upstream).ca(&pki.ca_file());
    let builder = Sidecar::builder().spicepod(&spicepod(&[dataset], ""));
    let sidecar = builder.secret("SPICE_SPICEAI_API_KEY", KEY).start().await;
    sidecar.wait_ready().await;
    sidecar.sql("select count(*) from orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_works_and_says_what_is_missing() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost").require_client_of(&pki)).await;
    let client = pki.client("sidecar");
    let whole = dataset(&upstream, &pki)
        .param("spiceai_tls_client_certificate_file", &client.certificate_file.to_string_lossy())
        .param("spiceai_tls_client_key_file", &client.key_file.to_string_lossy());
    let running = sidecar(whole).start().await;
    running.wait_ready().await;
    running.sql("select count(*) from orders").await;

    let half = dataset(&upstream, &pki)
        .param("spiceai_tls_client_certificate_file", &client.certificate_file.to_string_lossy());
    let words = ["IncompleteClientIdentity"];
    assert_check("mtls_without_key", sidecar(half), &filters(&upstream, &pki), BAD_SPICEPOD, &words).await;
    let none = sidecar(dataset(&upstream, &pki)).finish("check").await;
    assert_eq!(none.code, Some(UNREACHABLE), "{none:?}");
    let text = format!("{}{}", none.stdout, none.stderr);
    assert!(text.contains("spiceai_tls_client_certificate_file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_self_signed_ca_certificate_is_accepted_within_its_dates() {
    let pki = Pki::new();
    for (validity, code) in [(Validity::Current, ALL_WELL), (Validity::Expired, UNREACHABLE)] {
        let tls = pki.self_signed_ca("localhost", validity);
        let pinned = tls.identity.certificate_file.clone();
        let upstream = upstream(tls).await;
        let dataset =
            Dataset::of("orders", &upstream).ca(&pinned).param("spiceai_api_key", "${secrets:ORDERS_KEY}");
        let finished = sidecar(dataset).finish("check").await;
        assert_eq!(finished.code, Some(code), "{validity:?}: {finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_wrong_say_how() {
    let pki = Pki::new();
    let (current, param) = (Validity::Current, "spiceai_tls_ca_certificate_file");
    for (name, san, validity, words) in [
        ("expired_certificate", "localhost", Validity::Expired, vec!["expired"]),
        ("certificate_not_yet_valid", "localhost", Validity::NotYet, vec!["not yet valid"]),
        ("wrong_san", "elsewhere.test", current, vec!["localhost", "elsewhere.test"]),
    ] {
        let upstream = upstream(pki.server_with(san, validity)).await;
        let filters = filters(&upstream, &pki);
        assert_check(name, sidecar(dataset(&upstream, &pki)), &filters, UNREACHABLE, &words).await;
    }
    let upstream = upstream(pki.server("localhost")).await;
    let stranger = Pki::named("another CA");
    let wrong_ca = dataset(&upstream, &stranger);
    let mut filters = filters(&upstream, &stranger);
    assert_check("wrong_ca", sidecar(wrong_ca), &filters, UNREACHABLE, &[param]).await;
    let no_ca = Dataset::of("orders", &upstream).param("spiceai_api_key", "${secrets:ORDERS_KEY}");
    filters.push((pki.dir().to_string_lossy().into_owned(), "[PKI]"));
    assert_check("private_ca_not_named", sidecar(no_ca), &filters, UNREACHABLE, &[param]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_names_the_param() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost")).await;
    let filters = filters(&upstream, &pki);
    let builder = Sidecar::builder().spicepod(&spicepod(&[dataset(&upstream, &pki)], ""));
    let wrong = builder.secret("ORDERS_KEY", "another-k3y-that-is-wrong");
    assert_check("wrong_key", wrong, &filters, UNREACHABLE, &["spiceai_api_key", "orders"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_nobody_answers_say_which_step_failed() {
    let unknown = Dataset::at("orders", "http://no-such-host.invalid:50051");
    let words = ["no-such-host.invalid", "orders"];
    assert_check("unknown_host", sidecar(unknown), &[], UNREACHABLE, &words).await;

    let closed = ClosedPort::any();
    let port = closed.number();
    let nobody = Dataset::at("orders", &format!("http://127.0.0.1:{port}"));
    let filters = [(format!(":{port}"), ":[PORT]"), (format!("port {port}"), "port [PORT]")];
    let words = ["UnableToVerifyEndpointConnection", "127.0.0.1", "refused"];
    assert_check("closed_port", sidecar(nobody), &filters, UNREACHABLE, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_table_is_told() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost")).await;
    let filters = filters(&upstream, &pki);
    let other = dataset(&upstream, &pki).table("no_such_table");
    assert_check("unknown_table", sidecar(other), &filters, UNREACHABLE, &["no_such_table"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_spicepod_end_check_and_run_with_2() {
    let grpc = Dataset::at("orders", "grpc://localhost:50051");
    let missing =
        Dataset::at("orders", "http://localhost:50051").param("spiceai_api_key", "${secrets:NOT_THERE}");
    let param = Dataset::at("orders", "http://localhost:50051").param("spiceai_api_kee", "x");
    let region = Dataset::at("orders", "https://us-east-1-prod-aws-flight.spiceai.io")
        .param("spiceai_region", "us-west-2")
        .param("spiceai_api_key", "${secrets:ORDERS_KEY}");
    let field = "version: v1\nkind: Spicepod\nname: test\ndatasets:\n  - from: spice.ai:http://localhost:50051\n    \
                 name: orders\n    accelaration:\n      enabled: true\n";
    for (name, yaml, words) in [
        (
            "grpc_scheme",
            spicepod(std::slice::from_ref(&grpc), ""),
            vec!["UnsupportedEndpointScheme", "grpc+tls://"],
        ),
        ("missing_secret", spicepod(std::slice::from_ref(&missing), ""), vec!["NOT_THERE", "orders"]),
        ("misspelt_param", spicepod(&[param], ""), vec!["spiceai_api_kee", "spiceai_api_key"]),
        ("region_mismatch", spicepod(&[region], ""), vec!["CloudEndpointRegionMismatch"]),
        ("misspelt_field", field.to_owned(), vec!["accelaration", "did you mean `acceleration`"]),
        (
            "all_at_once",
            spicepod(&[grpc, missing], "").replacen("orders", "other", 1),
            vec!["UnsupportedEndpointScheme", "NOT_THERE"],
        ),
    ] {
        let builder = || Sidecar::builder().spicepod(&yaml).secret("ORDERS_KEY", KEY);
        assert_check(name, builder(), &[], BAD_SPICEPOD, &words).await;
        let run = builder().finish("run").await;
        assert_eq!(run.code, Some(BAD_SPICEPOD), "{name}: {run:?}");
        assert!(words.iter().all(|word| run.stderr.contains(word)), "{name}: {}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spicepod_that_is_not_there_is_told() {
    let finished = Sidecar::builder().finish("run").await;
    assert_eq!(finished.code, Some(BAD_SPICEPOD), "{finished:?}");
    assert!(finished.stderr.contains("spicepod.yaml"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_asks_nobody() {
    let pki = Pki::new();
    let upstream = upstream(pki.server("localhost")).await;
    let finished = sidecar(dataset(&upstream, &pki)).args(["--offline"]).finish("check").await;
    assert_eq!(finished.code, Some(ALL_WELL), "{finished:?}");
    assert_eq!((upstream.connections(), upstream.received().len()), (0, 0));
}

#[test]
fn durations_are_replaced_and_nothing_else() {
    assert_eq!(without_durations("tcp 1.25 ms, tls 7ms"), "tcp [TIME], tls [TIME]");
    assert_eq!(without_durations("127.0.0.1:80 in 3 minutes, 4"), "127.0.0.1:80 in 3 minutes, 4");
}
