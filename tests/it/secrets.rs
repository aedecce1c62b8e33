//! Secret stores as they are asked in production: a value is used, becomes another one, and is followed.
//!
//! Each store gives the key of a TLS upstream, and an API key of the front end. AWS is `moto`'s server, from PyPI. There
//! is no Vault, no Kubernetes and no Azure on a machine of ours: for these stand servers over TLS that speak what their
//! documentation says, and refuse all else. They show that the contract is kept as it is written there, and not more.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod diagnostics;
mod files;
mod kubernetes;
mod vault;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;

use crate::support::client::batch;
use crate::support::pki::Pki;
use crate::support::sidecar::{Builder, HttpAnswer, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

/// The upstream's key.
const CORE_KEY: &str = "core-key-5d1e";
/// The front end's key, at first and later.
const FIRST: &str = "first-key-91c2";
const SECOND: &str = "second-key-3a77";

/// A value that a fake server holds and a test changes.
#[derive(Clone)]
struct Held(Arc<Mutex<String>>);

impl Held {
    fn new(value: &str) -> Self {
        Self(Arc::new(Mutex::new(value.to_owned())))
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, value: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value.to_owned();
    }
}

/// An upstream that asks for a key, and the CA that signed its certificate.
struct World {
    pki: Pki,
    upstream: Upstream,
}

fn items() -> Vec<RecordBatch> {
    batch([("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)])
}

impl World {
    async fn new() -> Self {
        let pki = Pki::new();
        let upstream = Upstream::builder()
            .table("items", items())
            .tls(pki.server("localhost"))
            .api_key(CORE_KEY)
            .start()
            .await;
        Self { pki, upstream }
    }

    /// A sidecar whose keys come from the store `store`; `secrets` is the spicepod's section.
    fn sidecar(&self, secrets: &str) -> Builder {
        let dataset = Dataset::of("items", &self.upstream)
            .ca(&self.pki.ca_file())
            .param("spiceai_api_key", "${store:CORE_KEY}");
        let auth = "runtime: {auth: {api-key: {keys: ['${store:API_KEY}']}}}\n";
        let pod = spicepod(&[dataset], &format!("{auth}{secrets}"));
        // None of these may be seen in what it prints.
        let secrets = [("UNUSED_1", CORE_KEY), ("UNUSED_2", FIRST), ("UNUSED_3", SECOND)];
        let builder = Sidecar::builder().spicepod(&pod);
        secrets.into_iter().fold(builder, |builder, (name, value)| builder.secret(name, value))
    }
}

async fn sql(sidecar: &Sidecar, key: &str) -> HttpAnswer {
    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let request = reqwest::Client::new().post(url).header("x-api-key", key);
    let request = request.header("accept", "application/json").body("SELECT count(*) AS n FROM items");
    HttpAnswer::of(request).await.unwrap_or_else(|error| panic!("{error}\n{}", sidecar.stderr()))
}

/// The first key lets in, the second does not.
async fn assert_first(sidecar: &Sidecar) {
    sidecar.wait_ready().await;
    let answer = sql(sidecar, FIRST).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"[{"n":3}]"#), "{}", sidecar.stderr());
    assert_eq!(sql(sidecar, SECOND).await.status, 401);
}

/// Waits until the second key lets in; then the first does not any more.
async fn assert_second(sidecar: &Sidecar) {
    sidecar.wait_until("the other key lets in", async || sql(sidecar, SECOND).await.status == 200).await;
    assert_eq!(sql(sidecar, FIRST).await.status, 401);
}

async fn metric(sidecar: &Sidecar, line: &str) -> Option<f64> {
    sidecar.metrics().await.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}
