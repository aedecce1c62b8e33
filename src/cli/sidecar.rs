//! A running sidecar, asked over its HTTP API: where it is, and what it says of its datasets.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::DateTime;
use clap::Args;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;

use crate::acceleration::Progress;
use crate::name::DatasetName;

use super::fetch::fetch;

/// States are answered from memory: longer, and nobody is there.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which sidecar is meant.
#[derive(Debug, Args)]
pub(super) struct SidecarArgs {
    /// Where the sidecar answers HTTP: an address or a URL
    #[arg(long = "http", value_name = "ADDR", default_value = "http://127.0.0.1:8090")]
    pub sidecar: Sidecar,
}

/// `http://host:port` of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sidecar(String);

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

impl FromStr for Sidecar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| expected(text))?;
        match (uri.scheme_str(), uri.authority(), uri.path(), uri.query()) {
            (Some("http"), Some(_), "/" | "", None) => Ok(Self(base)),
            _ => Err(expected(text)),
        }
    }
}

fn expected(text: &str) -> String {
    format!(
        "`{text}` is neither an address nor a URL: expected one such as `127.0.0.1:8090` or `http://sidecar:8090`"
    )
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
        let Self(base) = self;
        let request = Request::builder().method(method).uri(format!("{base}{path}")).body(Full::new(body));
        let request = request.map_err(|error| error.to_string())?;
        fetch(request, TIMEOUT).await.map_err(|error| {
            format!("no sidecar answers at {base}: {error}; start one with `sidewing run`, or name its address with --http ADDR")
        })
    }

    /// Every dataset with its state.
    ///
    /// # Errors
    /// No answer, or not a sidecar's.
    pub(super) async fn datasets(&self) -> Result<Vec<Dataset>, String> {
        self.read_datasets(&self.datasets_json().await?)
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
        let Self(base) = self;
        serde_json::from_slice(json)
            .map_err(|error| format!("what answers at {base} is no sidewing of this version: {error}"))
    }

    /// An answer that was not looked for.
    pub(super) fn unexpected(&self, status: StatusCode, body: &[u8]) -> String {
        let Self(base) = self;
        let text = String::from_utf8_lossy(body);
        format!("{base} answered {status}: {}", text.trim())
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
mod tests {
    use super::*;

    #[test]
    fn an_address_is_as_good_as_a_url() {
        for text in ["127.0.0.1:8090", "http://127.0.0.1:8090", "http://127.0.0.1:8090/"] {
            assert_eq!(text.parse(), Ok(Sidecar("http://127.0.0.1:8090".to_owned())), "{text}");
        }
        for text in ["", "https://localhost:8090", "http://a/v1/sql", "http://a?b=c", "two words"] {
            assert!(text.parse::<Sidecar>().unwrap_err().contains("such as `127.0.0.1:8090`"), "{text}");
        }
    }
}
