//! The rotation drill: everything that a deployment rotates becomes another one under constant load, in one process, and
//! no query fails.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow_flight::Ticket;
use http::{HeaderMap, HeaderValue, Method};
use rustls::ClientConfig;
use sidewing::task::Scope;
use tonic::Request;

use super::dial::{Dial, client_config, tls};
use super::*;
use crate::support::pki::Pki;

const SQL: &str = "select count(*) as n from items";
const CLIENTS: usize = 4;
/// Rows that the load sees after each step, at least.
const ASKED_MIN: usize = 20;

/// What clients show now, and what became of their queries.
struct Load {
    key: Mutex<&'static str>,
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Load {
    fn key(&self) -> &'static str {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, key: &'static str) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    fn heard(&self, answer: Result<(), String>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = answer {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
    }

    /// Waits for some more queries, none of which may fail.
    async fn goes_on(&self, step: &str, sidecar: &Sidecar) {
        let before = self.asked.load(Ordering::Relaxed);
        wait_until(step, sidecar, async || self.asked.load(Ordering::Relaxed) > before + ASKED_MIN).await;
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(failures.is_empty(), "after {step}: {failures:#?}\n{}", sidecar.stderr());
    }
}

fn shown(key: &str) -> HeaderMap {
    HeaderMap::from_iter([("x-api-key".parse().unwrap(), HeaderValue::from_str(key).unwrap())])
}

async fn over_http(dial: &Dial, key: &str) -> Result<(), String> {
    let got = dial.ask(Method::POST, "/v1/sql", shown(key), SQL).await.map_err(|error| error.to_string())?;
    if got.status == 200 { Ok(()) } else { Err(format!("{} {}", got.status, got.body)) }
}

async fn over_flight(dial: &Dial, key: &str) -> Result<(), String> {
    let mut request = Request::new(Ticket::new(SQL));
    request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    let rows = dial.flight().do_get(request).await;
    let mut rows = rows.map_err(|status| status.to_string())?.into_inner();
    while rows.message().await.map_err(|status| status.to_string())?.is_some() {}
    Ok(())
}

fn install(dir: &Path, pki: &Pki) {
    let identity = pki.server("localhost").identity;
    std::fs::write(dir.join("server.pem"), &identity.certificate_pem).unwrap();
    std::fs::write(dir.join("server.key"), &identity.key_pem).unwrap();
}

/// The certificate that a new connection is shown.
async fn presented(address: &str, config: &Arc<ClientConfig>) -> Vec<u8> {
    let stream = tls(address, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn pod(upstream: &Upstream, ca: &Path, key: &str, more: &str) -> String {
    let dataset = Dataset::of("items", upstream).ca(ca).param("spiceai_api_key", key);
    let runtime = "runtime:\n  tls: {certificate_file: server.pem, key_file: server.key}\n  \
         auth: {api-key: {keys: ['${secrets:FRONT_1}', '${secrets:FRONT_2}']}}\n";
    spicepod(&[dataset], &format!("{runtime}{more}"))
}

async fn core(pki: &Pki, key: &str) -> Upstream {
    let upstream = Upstream::builder().table("items", items());
    upstream.tls(pki.server("localhost")).api_key(key).start().await
}

fn ca_of(pki: &Pki) -> String {
    std::fs::read_to_string(pki.ca_file()).unwrap()
}

/// The front end's keys, beside those of the upstreams.
fn set_keys(dir: &Path, first: &str, second: &str) {
    let core = "CORE_1=core-1-key\nCORE_2=core-2-key";
    std::fs::write(dir.join(".env"), format!("FRONT_1={first}\nFRONT_2={second}\n{core}\n")).unwrap();
}

/// A sidecar under load, and what is rotated there.
struct Drill {
    sidecar: Sidecar,
    config: Arc<ClientConfig>,
    http: Dial,
    load: Arc<Load>,
    clients: Scope,
}

impl Drill {
    /// On this sidecar, from its first answer on.
    async fn begin(sidecar: Sidecar, front: &Pki) -> Self {
        let config = client_config(&ca_of(front), None, &[b"h2"]);
        let dial = |address: &str| Dial::Tls(address.to_owned(), Arc::clone(&config));
        let (http, flight) = (dial(sidecar.http_addr()), dial(sidecar.flight_addr()));
        wait_until("the first answer", &sidecar, async || over_http(&http, "front-2-key").await.is_ok())
            .await;
        let load = Arc::new(Load {
            key: Mutex::new("front-2-key"),
            asked: AtomicUsize::new(0),
            failures: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let clients = Scope::new();
        for client in 0..CLIENTS {
            let (load, http, flight) = (Arc::clone(&load), http.clone(), flight.clone());
            clients.spawn("client", async move {
                while !load.is_over.load(Ordering::Relaxed) {
                    let key = load.key();
                    load.heard(match client % 2 {
                        0 => over_http(&http, key).await,
                        _ => over_flight(&flight, key).await,
                    });
                }
            });
        }
        load.goes_on("the beginning", &sidecar).await;
        Self { sidecar, config, http, load, clients }
    }

    async fn goes_on(&self, step: &str) {
        self.load.goes_on(step, &self.sidecar).await;
    }

    async fn lets_in(&self, key: &str) -> bool {
        over_http(&self.http, key).await.is_ok()
    }

    /// The front end's keys, one after the other.
    async fn rotate_keys(&self, dir: &Path) {
        set_keys(dir, "front-3-key", "front-2-key");
        wait_until("the third key", &self.sidecar, async || self.lets_in("front-3-key").await).await;
        self.load.show("front-3-key");
        self.goes_on("the first key").await;
        set_keys(dir, "front-3-key", "front-4-key");
        wait_until("the fourth key", &self.sidecar, async || self.lets_in("front-4-key").await).await;
        assert!(!self.lets_in("front-2-key").await, "the second key still lets in");
        self.goes_on("the second key").await;
        self.load.show("front-4-key");
    }

    async fn rotate_certificate(&self, dir: &Path, front: &Pki) {
        let presented = async || presented(self.sidecar.flight_addr(), &self.config).await;
        let before = presented().await;
        install(dir, front);
        wait_until("another certificate", &self.sidecar, async || presented().await != before).await;
        self.goes_on("the server's certificate").await;
    }

    /// Writes a file of the configuration, and waits until it is taken.
    async fn change(&self, file: &Path, text: String) {
        let taken = async || self.sidecar.stderr().matches("the configuration has changed").count();
        let so_far = taken().await;
        std::fs::write(file, text).unwrap();
        wait_until("a change is taken", &self.sidecar, async || taken().await > so_far).await;
        self.goes_on(&file.display().to_string()).await;
    }

    async fn end(self) {
        self.load.is_over.store(true, Ordering::Relaxed);
        self.clients.shutdown(Duration::from_secs(10)).await.unwrap();
        let failures = self.load.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(failures.is_empty(), "{failures:#?}");
        eprintln!("{} queries", self.load.asked.load(Ordering::Relaxed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_rotated_under_load_and_no_query_fails() {
    let (front, first_ca, second_ca) = (Pki::new(), Pki::named("first CA"), Pki::named("second CA"));
    let (mut first, second) = (core(&first_ca, "core-1-key").await, core(&second_ca, "core-2-key").await);
    let builder = Sidecar::builder();
    let dir = builder.dir().to_owned();
    let ca_file = dir.join("upstream-ca.pem");
    std::fs::write(&ca_file, ca_of(&first_ca)).unwrap();
    set_keys(&dir, "front-1-key", "front-2-key");
    install(&dir, &front);
    let sidecar = builder.spicepod(&pod(&first, &ca_file, "${secrets:CORE_1}", "")).start().await;
    let drill = Drill::begin(sidecar, &front).await;

    drill.rotate_keys(&dir).await;
    drill.rotate_certificate(&dir, &front).await;
    // Both, so that either server is trusted.
    drill.change(&ca_file, ca_of(&first_ca) + &ca_of(&second_ca)).await;
    // Another upstream with another key, and a view.
    let view = "views: [{name: doubled, sql: 'select id * 2 as twice from items'}]\n";
    drill.change(&dir.join("spicepod.yaml"), pod(&second, &ca_file, "${secrets:CORE_2}", view)).await;
    let sql = "select max(twice) as n from doubled";
    let got = drill.http.ask(Method::POST, "/v1/sql", shown("front-4-key"), sql).await.unwrap();
    assert_eq!(got.body, r#"[{"n":6}]"#);
    first.stop().await;
    drill.change(&ca_file, ca_of(&second_ca)).await;
    drill.end().await;
}
