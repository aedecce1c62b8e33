//! A running sidecar, asked over its HTTP API: where it is, and what it says of its datasets.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::DateTime;
use clap::Args;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::acceleration::Progress;
use crate::name::DatasetName;

use super::fetch::fetch;
use super::place::Place;
use super::reach::ReachArgs;

/// States are answered from memory: longer, and nobody is there.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which sidecar is meant.
#[derive(Debug, Args)]
pub(super) struct SidecarArgs {
    /// Where the sidecar answers HTTP: an address, a URL, or unix:/path/of/socket
    #[arg(long = "http", value_name = "ADDR", default_value = "http://127.0.0.1:8090")]
    place: Place,
    #[command(flatten)]
    reach: ReachArgs,
}

/// A sidecar, and how it is reached.
pub(super) struct Sidecar {
    place: Place,
    reach: ReachArgs,
}

/// One dataset, as `GET /v1/datasets?status=true` tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Dataset {
    pub name: String,
    pub status: String,
    pub acceleration: Option<Kept>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kept {
    pub reason: Option<String>,
    pub rows: usize,
    pub bytes: usize,
    pub generation: Option<u64>,
    last_refresh: Option<String>,
    pub last_refresh_seconds: Option<f64>,
    pub lag_seconds: Option<f64>,
    progress: Option<Underway>,
    pub refreshes: Refreshes,
}

#[derive(Debug, Deserialize)]
struct Underway {
    rows: usize,
    bytes: usize,
    elapsed_seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refreshes {
    pub asked: u64,
    pub ended: u64,
    pub failures: Vec<Failure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub refresh: u64,
    pub reason: String,
}

/// The process, as `GET /health/detailed` tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Process {
    config: Config,
    upstreams: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Config {
    version: String,
    rejected: Option<String>,
    needs_restart: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    endpoint: String,
    circuit: String,
    since: Option<String>,
    last_error: Option<String>,
}

impl Process {
    /// What somebody should look at; nothing where all is well.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for endpoint in self.upstreams.iter().filter(|endpoint| endpoint.circuit != "closed") {
            let Endpoint { endpoint, circuit, since, last_error } = endpoint;
            let since = since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
            let why = last_error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            remarks.push(format!("circuit of {endpoint} is {circuit}{since}{why}"));
        }
        let Config { version, rejected, needs_restart } = &self.config;
        if let Some(why) = rejected {
            remarks.push(format!(
                "configuration {version} answers; the one in the files cannot be used:\n{why}"
            ));
        }
        if !needs_restart.is_empty() {
            let settings = needs_restart.join(", ");
            remarks.push(format!("changed settings that hold from the next start on: {settings}"));
        }
        remarks
    }
}

impl SidecarArgs {
    pub(super) fn sidecar(&self) -> Sidecar {
        Sidecar { place: self.place.clone(), reach: self.reach.clone() }
    }
}

impl Sidecar {
    /// # Errors
    /// No answer, in words for the person who asked.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// # Errors
    /// As [`Sidecar::get`].
    pub(super) async fn post(&self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let Self { place, reach } = self;
        let request = Request::builder().method(method).uri(path).body(Full::new(body));
        let request = request.map_err(|error| error.to_string())?;
        fetch(place, reach, request, TIMEOUT).await.map_err(|error| {
            format!("no sidecar answers at {place}: {error}; start one with `sidewing run`, or name its address with --http ADDR")
        })
    }

    /// Every dataset with its state.
    ///
    /// # Errors
    /// No answer, or not a sidecar's.
    pub(super) async fn datasets(&self) -> Result<Vec<Dataset>, String> {
        self.read_datasets(&self.datasets_json().await?)
    }

    /// How the process and its upstreams are.
    ///
    /// # Errors
    /// No answer, or not a sidecar's.
    pub(super) async fn process(&self) -> Result<Process, String> {
        match self.get("/health/detailed").await? {
            (StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE, body) => self.read(&body),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }

    /// The same as it was sent.
    ///
    /// # Errors
    /// No answer, or not a sidecar's.
    pub(super) async fn datasets_json(&self) -> Result<Bytes, String> {
        match self.get("/v1/datasets?status=true").await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }

    /// # Errors
    /// Not what a sidecar answers.
    pub(super) fn read_datasets(&self, json: &[u8]) -> Result<Vec<Dataset>, String> {
        self.read(json)
    }

    fn read<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, String> {
        let place = &self.place;
        serde_json::from_slice(json)
            .map_err(|error| format!("what answers at {place} is no sidewing of this version: {error}"))
    }

    /// An answer that was not looked for.
    pub(super) fn unexpected(&self, status: StatusCode, body: &[u8]) -> String {
        let place = &self.place;
        let text = String::from_utf8_lossy(body);
        let help = match status {
            StatusCode::UNAUTHORIZED => "; give it a key by SIDEWING_API_KEY or --api-key",
            _ => "",
        };
        format!("{place} answered {status}: {}{help}", text.trim())
    }
}

impl Dataset {
    /// Names are compared as SQL does.
    pub(super) fn is(&self, name: &DatasetName) -> bool {
        self.name.parse::<DatasetName>().is_ok_and(|known| known == *name)
    }
}

impl Kept {
    /// How long ago the last refresh ended, by this machine's clock.
    pub(super) fn refreshed_ago(&self) -> Option<Duration> {
        let at = DateTime::parse_from_rfc3339(self.last_refresh.as_deref()?).ok()?;
        Some(SystemTime::now().duration_since(at.into()).unwrap_or(Duration::ZERO))
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        let Underway { rows, bytes, elapsed_seconds } = self.progress.as_ref()?;
        Some(Progress { rows: *rows, bytes: *bytes, elapsed: seconds(*elapsed_seconds) })
    }

    pub(super) fn lag(&self) -> Option<Duration> {
        self.lag_seconds.map(seconds)
    }

    pub(super) fn last_refresh_took(&self) -> Option<Duration> {
        self.last_refresh_seconds.map(seconds)
    }
}

/// What another process says may be anything.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
impl Sidecar {
    /// One that nobody asks.
    pub(super) fn nowhere() -> Self {
        Self { place: Place::Unix("/nowhere".into()), reach: ReachArgs::default() }
    }
}
