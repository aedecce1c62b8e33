//! TLS on every listener, client certificates, the command line as a client, and certificates that change under load.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow_flight::Ticket;
use http::{HeaderMap, Method};
use rustls::ClientConfig;
use sidewing::task::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{Dial, client_config, tls};
use super::*;
use crate::support::pki::{Identity, Pki};

const ALPN: &[&[u8]] = &[b"h2"];
/// Longer than it takes to see a changed file.
const SEEN_AFTER: Duration = Duration::from_secs(4);

/// A server certificate of `pki` at the names that [`runtime`] gives.
fn install(dir: &Path, pki: &Pki) -> Identity {
    let identity = pki.server("localhost").identity;
    std::fs::write(dir.join("server.pem"), &identity.certificate_pem).unwrap();
    std::fs::write(dir.join("server.key"), &identity.key_pem).unwrap();
    identity
}

fn ca(pki: &Pki) -> String {
    std::fs::read_to_string(pki.ca_file()).unwrap()
}

fn runtime(rest: &str) -> String {
    format!("runtime:\n  tls: {{certificate_file: server.pem, key_file: server.key{rest}}}\n")
}

async fn start(pki: &Pki, runtime: &str) -> (Upstream, Sidecar) {
    let (upstream, builder) = world(runtime).await;
    install(builder.dir(), pki);
    let sidecar = builder.start().await;
    (upstream, sidecar)
}

/// Waits until queries are answered by a client with this config.
async fn wait_ready(sidecar: &Sidecar, config: &Arc<ClientConfig>) {
    let http = Dial::Tls(sidecar.http_addr().to_owned(), Arc::clone(config));
    let ready = async || {
        http.ask(Method::GET, "/v1/ready", HeaderMap::new(), "").await.is_ok_and(|got| got.status == 200)
    };
    wait_until("readiness over TLS", sidecar, ready).await;
}

async fn query(dial: &Dial) -> Result<String, String> {
    let sql = "select count(*) as n from items";
    let got =
        dial.ask(Method::POST, "/v1/sql", HeaderMap::new(), sql).await.map_err(|error| error.to_string())?;
    if got.status == 200 { Ok(got.body) } else { Err(got.body) }
}

async fn fetch(dial: &Dial) -> Result<(), tonic::Status> {
    let mut client = dial.flight();
    let mut rows = client.do_get(Ticket::new("select id from items")).await?.into_inner();
    while rows.message().await?.is_some() {}
    Ok(())
}

/// The certificate that a new connection is shown.
async fn presented(address: &str, config: &Arc<ClientConfig>) -> Vec<u8> {
    let stream = tls(address, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_front_ends_speak_tls_and_metrics_only_when_asked() {
    let pki = Pki::new();
    let (_upstream, sidecar) = start(&pki, &runtime("")).await;
    let config = client_config(&ca(&pki), None, ALPN);
    wait_ready(&sidecar, &config).await;
    let over = |address: &str, config: &Arc<ClientConfig>| Dial::Tls(address.to_owned(), Arc::clone(config));
    assert_eq!(query(&over(sidecar.http_addr(), &config)).await.unwrap(), r#"[{"n":3}]"#);
    fetch(&over(sidecar.flight_addr(), &config)).await.unwrap();

    // What each listener agrees to speak.
    let http1 = client_config(&ca(&pki), None, &[b"http/1.1"]);
    let mut stream = tls(sidecar.http_addr(), &http1).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(tls(sidecar.flight_addr(), &http1).await.is_err(), "Flight agrees to HTTP/1.1");
    let both = client_config(&ca(&pki), None, &[b"http/1.1", b"h2"]);
    let stream = tls(sidecar.http_addr(), &both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    // Nobody gets in without TLS; the metrics have none.
    let plain = |address: &str| Dial::Plain(address.to_owned());
    assert!(query(&plain(sidecar.http_addr())).await.is_err());
    assert!(fetch(&plain(sidecar.flight_addr())).await.is_err());
    let metrics =
        plain(sidecar.metrics_addr()).ask(Method::GET, "/metrics", HeaderMap::new(), "").await.unwrap();
    assert_eq!(metrics.status, 200);
    let stdout = sidecar.stdout();
    assert!(stdout.contains(&format!("https://{}", sidecar.http_addr())), "{stdout}");
    assert!(stdout.contains(&format!("http://{}", sidecar.metrics_addr())), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_tls_of_their_own() {
    let pki = Pki::new();
    let tls = "runtime: {metrics: {tls: {certificate: '${secrets:CERTIFICATE}', key: '${secrets:KEY}'}}}\n";
    let identity = pki.server("localhost").identity;
    let (_upstream, builder) = world(tls).await;
    let builder = builder.env("CERTIFICATE", &identity.certificate_pem).secret("KEY", &identity.key_pem);
    let sidecar = builder.start().await;
    sidecar.wait_ready().await;
    let config = client_config(&ca(&pki), None, ALPN);
    let metrics = Dial::Tls(sidecar.metrics_addr().to_owned(), config);
    let got = metrics.ask(Method::GET, "/metrics", HeaderMap::new(), "").await.unwrap();
    assert!(got.body.contains("# TYPE "), "{}", got.body);
    assert_eq!(sidecar.sql("select count(*) as n from items").await[0]["n"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_certificates_as_the_mode_says() {
    let (pki, others) = (Pki::new(), Pki::named("another CA"));
    let (good, foreign) = (pki.client("app"), others.client("app"));
    for (mode, without, with_foreign) in
        [("none", true, true), ("request", true, false), ("required", false, false)]
    {
        let auth = match mode {
            "none" => String::new(),
            mode => format!(", client_auth_mode: {mode}, client_auth_ca_file: {}", pki.ca_file().display()),
        };
        let (_upstream, sidecar) = start(&pki, &runtime(&auth)).await;
        let config = |identity| client_config(&ca(&pki), identity, ALPN);
        wait_ready(&sidecar, &config(Some(&good))).await;
        for (identity, may) in [(Some(&good), true), (None, without), (Some(&foreign), with_foreign)] {
            let over = |address: &str| Dial::Tls(address.to_owned(), config(identity));
            let (asked, fetched) =
                (query(&over(sidecar.http_addr())).await, fetch(&over(sidecar.flight_addr())).await);
            assert_eq!(asked.is_ok(), may, "{mode} {asked:?}");
            assert_eq!(fetched.is_ok(), may, "{mode} {fetched:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_changes_under_load_without_a_failed_query() {
    let pki = Pki::new();
    let (_upstream, sidecar) = start(&pki, &runtime("")).await;
    let config = client_config(&ca(&pki), None, ALPN);
    wait_ready(&sidecar, &config).await;
    let (http, flight) = (sidecar.http_addr().to_owned(), sidecar.flight_addr().to_owned());
    let first = presented(&http, &config).await;

    let (scope, stop) = (Scope::new(), Arc::new(AtomicBool::new(false)));
    let (asked, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    for client in 0..4 {
        let (stop, asked, failed) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
        let address = if client % 2 == 0 { &http } else { &flight };
        let dial = Dial::Tls(address.clone(), Arc::clone(&config));
        scope.spawn("client", async move {
            // Each query on a connection of its own.
            while !stop.load(Ordering::Relaxed) {
                let outcome = match client % 2 {
                    0 => query(&dial).await.map(drop),
                    _ => fetch(&dial).await.map_err(|status| status.to_string()),
                };
                asked.fetch_add(1, Ordering::Relaxed);
                failed.lock().unwrap().extend(outcome.err());
            }
        });
    }

    // A certificate without its key is half of a change; with it, it is one.
    let next = pki.server("localhost").identity;
    std::fs::write(sidecar.dir().join("server.pem"), &next.certificate_pem).unwrap();
    tokio::time::sleep(SEEN_AFTER).await;
    assert_eq!(presented(&http, &config).await, first, "half a change was taken");
    std::fs::write(sidecar.dir().join("server.key"), &next.key_pem).unwrap();
    for address in [&http, &flight] {
        wait_until("the next certificate", &sidecar, async || presented(address, &config).await != first)
            .await;
    }
    let second = presented(&http, &config).await;
    let stderr = sidecar.stderr();
    assert_eq!(stderr.matches("tls files have changed and cannot be used").count(), 1, "{stderr}");

    // A broken file keeps the certificate, and says so once.
    std::fs::write(sidecar.dir().join("server.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    tokio::time::sleep(SEEN_AFTER).await;
    assert_eq!(presented(&http, &config).await, second);
    let stderr = sidecar.stderr();
    assert_eq!(stderr.matches("tls files have changed and cannot be used").count(), 2, "{stderr}");
    assert!(stderr.contains("runtime.tls.certificate_file"), "{stderr}");

    stop.store(true, Ordering::Relaxed);
    scope.shutdown(WAIT_MAX).await.unwrap();
    let failed = failed.lock().unwrap();
    assert!(failed.is_empty(), "of {asked:?}: {failed:?}");
    assert!(asked.load(Ordering::Relaxed) > 20, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_clients_changes_too() {
    let (pki, next) = (Pki::new(), Pki::named("the next CA"));
    let (_upstream, builder) =
        world(&runtime(", client_auth_mode: required, client_auth_ca_file: clients.pem")).await;
    install(builder.dir(), &pki);
    std::fs::copy(pki.ca_file(), builder.dir().join("clients.pem")).unwrap();
    let sidecar = builder.start().await;
    let (former, later) = (pki.client("app"), next.client("app"));
    let of =
        |identity| Dial::Tls(sidecar.http_addr().to_owned(), client_config(&ca(&pki), Some(identity), ALPN));
    wait_until("readiness", &sidecar, async || query(&of(&former)).await.is_ok()).await;
    assert!(query(&of(&later)).await.is_err());
    std::fs::copy(next.ca_file(), sidecar.dir().join("clients.pem")).unwrap();
    wait_until("the next CA", &sidecar, async || query(&of(&later)).await.is_ok()).await;
    assert!(query(&of(&former)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_reaches_a_protected_sidecar() {
    let pki = Pki::new();
    let keys = "  auth: {api-key: {keys: ['${secrets:SIDECAR_KEY}']}}\n";
    let auth = format!(", client_auth_mode: required, client_auth_ca_file: {}", pki.ca_file().display());
    let (_upstream, builder) = world(&format!("{}{keys}", runtime(&auth))).await;
    install(builder.dir(), &pki);
    let sidecar = builder.secret("SIDECAR_KEY", "key-of-the-operator").start().await;
    let client = pki.client("operator");
    wait_ready(&sidecar, &client_config(&ca(&pki), Some(&client), ALPN)).await;
    let url = |address: &str| format!("https://localhost:{}", address.rsplit(':').next().unwrap());
    let (http, flight) = (url(sidecar.http_addr()), url(sidecar.flight_addr()));

    let ask = |key: Option<&str>, with_identity: bool, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidewing"));
        command.args(args).arg("--tls-ca").arg(pki.ca_file()).env_remove("SIDEWING_API_KEY");
        if with_identity {
            command
                .arg("--tls-certificate")
                .arg(&client.certificate_file)
                .arg("--tls-key")
                .arg(&client.key_file);
        }
        command.envs(key.map(|key| ("SIDEWING_API_KEY", key)));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let commands: [&[&str]; 3] = [
        &["status", "--http", &http],
        &["refresh", "items", "--http", &http],
        &["sql", "-e", &flight, "-o", "csv", "select count(*) as n from items"],
    ];
    for args in commands {
        let (code, stdout, stderr) = ask(Some("key-of-the-operator"), true, args);
        assert_eq!(code, Some(0), "{args:?}\n{stdout}{stderr}");
        assert!(stdout.contains('3'), "{args:?}\n{stdout}");
        let (code, stdout, stderr) = ask(None, true, args);
        assert_eq!(code, Some(1), "{args:?}\n{stdout}{stderr}");
        let (code, _, _) = ask(Some("key-of-the-operator"), false, args);
        assert_eq!(code, Some(1), "{args:?} without a certificate");
    }
    let (_, _, stderr) = ask(None, true, commands[0]);
    assert!(stderr.contains("SIDEWING_API_KEY"), "{stderr}");
    // Probes have no key.
    let (code, _, stderr) = ask(None, true, &["health", &format!("{http}/v1/ready")]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_found_at_the_start() {
    let (pki, others) = (Pki::new(), Pki::named("another CA"));
    let (_upstream, builder) =
        world(&runtime(", client_auth_mode: required, client_auth_ca_file: none.pem")).await;
    install(builder.dir(), &pki);
    let other = others.server("localhost").identity;
    let finished = builder.file("server.key", &other.key_pem).finish("run").await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("error[UnreadableFile]: `runtime.tls.client_auth_ca_file`"),
        "{}",
        finished.stderr
    );

    let (_upstream, builder) = world(&runtime("")).await;
    install(builder.dir(), &pki);
    let finished = builder.file("server.key", &other.key_pem).finish("check").await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("does not go with the certificate"), "{}", finished.stderr);

    let (_upstream, builder) = world(&runtime("")).await;
    let builder = builder.file("server.pem", "no certificate").file("server.key", "no key");
    let finished = builder.finish("check").await;
    for text in
        ["`runtime.tls.certificate_file`: it holds no certificate", "`runtime.tls.key_file`: it holds no"]
    {
        assert!(finished.stderr.contains(text), "{}", finished.stderr);
    }
}
