//! `GET /health/detailed` and `/v1/status?verbose=true`: every part of the process with its state and the reason for it.

use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::listing::shown;
use super::process::Process;
use crate::query::{Caller, DatasetStatus, MemoryUse, Readiness};
use crate::serve::{ConfigStatus, Door, status};
use crate::upstream::{AddressHealth, CircuitState, EndpointHealth};

/// How well the process, or a part of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// All is well.
    Ok,
    /// Everything is answered, and somebody should look.
    Degraded,
    /// Something is not answered.
    Failing,
    /// The process lets its last queries end.
    Stopping,
}

/// The process and its parts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detailed {
    status: Level,
    /// Of the program.
    #[schema(example = "0.1.0")]
    version: &'static str,
    config: ConfigPart,
    datasets: Vec<DatasetPart>,
    upstreams: Vec<EndpointPart>,
    queries: QueriesPart,
    memory: MemoryPart,
}

/// The configuration that answers.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigPart {
    status: Level,
    /// As `X-Sidewing-Config` of every answer.
    version: String,
    /// When it began to answer.
    #[schema(format = DateTime)]
    since: String,
    /// Why what stands in the files now does not answer.
    rejected: Option<String>,
    /// Settings that have changed and hold from the next start on.
    needs_restart: Vec<&'static str>,
}

/// A dataset or a view.
#[derive(Debug, Serialize, ToSchema)]
struct DatasetPart {
    name: String,
    status: Level,
    /// As `/v1/datasets?status=true` has it.
    #[schema(example = "Ready")]
    phase: &'static str,
    reason: Option<String>,
}

/// An endpoint of an upstream.
#[derive(Debug, Serialize, ToSchema)]
struct EndpointPart {
    endpoint: String,
    status: Level,
    /// `closed`: calls are sent; `open`: none are; `half_open`: one finds out.
    #[schema(example = "closed")]
    circuit: &'static str,
    /// Since when it is not closed.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// While no success came after it.
    last_error: Option<String>,
    in_flight: usize,
    addresses: Vec<AddressPart>,
}

/// An address behind the endpoint's name.
#[derive(Debug, Serialize, ToSchema)]
struct AddressPart {
    address: String,
    is_ejected: bool,
    in_flight: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct QueriesPart {
    running: usize,
}

/// What queries, accelerated data and cached results take together, in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct MemoryPart {
    used_bytes: usize,
    /// None where there is none.
    limit_bytes: Option<usize>,
}

/// Every part of the process, with its state and the reason for it.
#[utoipa::path(
    get,
    path = "/health/detailed",
    responses(
        (status = 200, description = "Everything is answered", body = Detailed),
        (status = 503, description = "Something is not, or the process stops", body = Detailed),
    )
)]
pub(super) async fn detailed<D: Door>(
    State(door): State<D>,
    Extension(process): Extension<Process>,
) -> Response {
    told(&door, &process)
}

/// 200 while everything is answered, else 503, with all that is known.
pub(super) fn told(door: &impl Door, process: &Process) -> Response {
    let detailed = Detailed::of(door, process.draining.is_cancelled());
    let status = match detailed.status {
        Level::Ok | Level::Degraded => StatusCode::OK,
        Level::Failing | Level::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(detailed)).into_response()
}

impl Detailed {
    fn of(door: &impl Door, is_stopping: bool) -> Self {
        let now = SystemTime::now();
        let config = ConfigPart::of(door.config());
        let datasets: Vec<_> = door.datasets().iter().map(|dataset| DatasetPart::of(dataset, now)).collect();
        let endpoints = door.upstreams().into_iter().flat_map(|upstream| upstream.endpoints);
        let upstreams: Vec<_> = endpoints.map(EndpointPart::of).collect();
        let levels = datasets.iter().map(|part| part.status).chain(upstreams.iter().map(|part| part.status));
        let worst = levels.chain([config.status]).max().unwrap_or(Level::Ok);
        Self {
            status: if is_stopping { Level::Stopping } else { worst },
            version: env!("CARGO_PKG_VERSION"),
            config,
            datasets,
            upstreams,
            queries: QueriesPart { running: door.running_queries(&Caller::anonymous()).len() },
            memory: MemoryPart::of(door.memory()),
        }
    }
}

impl ConfigPart {
    fn of(config: ConfigStatus) -> Self {
        let ConfigStatus { version, since, rejected, needs_restart } = config;
        let is_well = rejected.is_none() && needs_restart.is_empty();
        Self {
            status: if is_well { Level::Ok } else { Level::Degraded },
            version: version.to_string(),
            since: shown(since),
            rejected,
            needs_restart,
        }
    }
}

impl DatasetPart {
    fn of(dataset: &DatasetStatus, now: SystemTime) -> Self {
        let (status, reason) = match dataset.readiness(now) {
            Readiness::Ready => (Level::Ok, None),
            Readiness::Stale(reason) => (Level::Degraded, Some(reason.to_owned())),
            Readiness::Away { reason, elapsed } => {
                let seconds = elapsed.as_secs();
                (Level::Degraded, Some(format!("away for {seconds} s: {}", status::message(reason))))
            }
            Readiness::Loading => (Level::Failing, Some("it is being loaded".to_owned())),
            Readiness::Unready(reason) => (Level::Failing, Some(status::message(reason))),
        };
        Self { name: dataset.name.to_string(), status, phase: dataset.phase().word(), reason }
    }
}

impl EndpointPart {
    /// A circuit that is open is no failure of this process: what is kept here is answered, and what is not is said of its
    /// dataset.
    fn of(health: EndpointHealth) -> Self {
        let EndpointHealth { endpoint, circuit, since, last_error, addresses, in_flight } = health;
        let (status, circuit) = match circuit {
            CircuitState::Closed => (Level::Ok, "closed"),
            CircuitState::HalfOpen => (Level::Degraded, "half_open"),
            CircuitState::Open => (Level::Degraded, "open"),
        };
        let addresses = addresses.into_iter().map(AddressPart::of).collect();
        Self { endpoint, status, circuit, since: since.map(shown), last_error, in_flight, addresses }
    }
}

impl AddressPart {
    fn of(health: AddressHealth) -> Self {
        Self {
            address: health.address,
            is_ejected: health.ejected_for.is_some_and(|left| left > Duration::ZERO),
            in_flight: health.in_flight,
        }
    }
}

impl MemoryPart {
    fn of(memory: MemoryUse) -> Self {
        Self { used_bytes: memory.used_bytes, limit_bytes: memory.limit_bytes }
    }
}
