//! HTTP and Flight over Unix domain sockets: who may connect, who asks there, and what becomes of their files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use arrow_flight::Ticket;
use http::{HeaderMap, HeaderName, Method};

use super::dial::Dial;
use super::*;
use crate::support::pki::Pki;
use crate::support::sidecar::Builder;

fn listening(builder: Builder, dir: &Path) -> Builder {
    let at = |name: &str| format!("unix:{}", dir.join(name).display());
    builder.listen(&at("http.sock"), &at("flight.sock"))
}

async fn ready(sidecar: &Sidecar, http: &Dial) {
    let ready = async || {
        http.ask(Method::GET, "/v1/ready", HeaderMap::new(), "").await.is_ok_and(|got| got.status == 200)
    };
    wait_until("readiness over the socket", sidecar, ready).await;
}

fn sidewing(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidewing")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_front_ends_answer_on_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let (_upstream, builder) = world("").await;
    let sidecar = listening(builder, dir.path()).start().await;
    let (http, flight) = (dir.path().join("http.sock"), dir.path().join("flight.sock"));
    assert_eq!(
        (sidecar.http_addr(), sidecar.flight_addr()),
        (http.to_str().unwrap(), flight.to_str().unwrap())
    );
    for path in [&http, &flight] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
    }
    let dial = Dial::Unix(http.clone());
    ready(&sidecar, &dial).await;
    let got =
        dial.ask(Method::POST, "/v1/sql", HeaderMap::new(), "select count(*) as n from items").await.unwrap();
    assert_eq!(got.body, r#"[{"n":3}]"#);
    let ticket = Ticket::new("select id from items");
    let mut rows = Dial::Unix(flight.clone()).flight().do_get(ticket).await.unwrap().into_inner();
    assert!(rows.message().await.unwrap().is_some());
    drop(rows);

    let (http, flight) = (format!("unix:{}", http.display()), format!("unix:{}", flight.display()));
    for args in [
        &["health", &http][..],
        &["health", &format!("{http}:/v1/ready")],
        &["status", "--http", &http],
        &["refresh", "items", "--http", &http],
        &["sql", "-e", &flight, "select count(*) from items"],
    ] {
        let (code, stdout, stderr) = sidewing(args);
        assert_eq!(code, Some(0), "{args:?}\n{stdout}{stderr}");
    }
    let finished = sidecar.terminate().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "sockets are left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_asks_for_keys_and_speaks_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Pki::new().server("localhost").identity;
    let tls = "  tls: {certificate: '${secrets:CERTIFICATE}', key: '${secrets:KEY}'}\n";
    let (_upstream, builder) =
        world(&format!("runtime:\n{tls}  auth: {{api-key: {{keys: ['${{secrets:READER}}']}}}}\n")).await;
    let builder = builder.env("CERTIFICATE", &identity.certificate_pem).secret("KEY", &identity.key_pem);
    let sidecar = listening(builder.secret("READER", "reader-6d0a"), dir.path()).start().await;
    let http = Dial::Unix(dir.path().join("http.sock"));
    ready(&sidecar, &http).await;
    let status = async |headers| http.ask(Method::GET, "/v1/datasets", headers, "").await.unwrap().status;
    assert_eq!(status(HeaderMap::new()).await, 401);
    let key = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), "reader-6d0a".parse().unwrap())]);
    assert_eq!(status(key).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_upstream, builder) = world("").await;
    listening(builder, dir.path()).start().await.kill().await;
    let http = dir.path().join("http.sock");
    assert!(http.exists(), "a killed process cannot remove its socket");
    let (_upstream, builder) = world("").await;
    let living = listening(builder, dir.path()).start().await;
    ready(&living, &Dial::Unix(http.clone())).await;

    let (_upstream, builder) = world("").await;
    let at = format!("unix:{}", http.display());
    let second = builder.args(["--http", &at, "--flight", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let second = second.finish("run").await;
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains(&format!("cannot listen on {at} for http")), "{}", second.stderr);
    assert!(second.stderr.contains("a living process listens there"), "{}", second.stderr);
    ready(&living, &Dial::Unix(http)).await;

    let file = dir.path().join("data");
    std::fs::write(&file, "data").unwrap();
    let (_upstream, builder) = world("").await;
    let at = format!("unix:{}", file.display());
    let third = builder.args(["--http", &at, "--flight", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let third = third.finish("run").await;
    assert!(third.stderr.contains("a file that is no socket is there"), "{}", third.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}
