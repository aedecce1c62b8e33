//! Composition root: a checked spicepod enters, bound listeners and running tasks leave.
//!
//! The only file that knows every room. Listeners are bound first, then everything is built, then
//! datasets are brought up; shutdown goes the other way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;

use crate::config::{ByteSize, Diagnostic, Diagnostics, Spicepod};
use crate::federation::{Federation, RemoteDataset};
use crate::query::{Engine, Options};
use crate::secrets::Secrets;
use crate::serve;
use crate::serve::flight::FlightOptions;
use crate::task::Scope;
use crate::telemetry::{self, Render};
use crate::upstream::{Pool, PoolOptions, Target};

/// Where the front ends listen when neither the command line nor the spicepod says.
pub const HTTP_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8090);
pub const FLIGHT_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 50051);
pub const METRICS_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

/// The inbound message limit of datasets that set none.
const MESSAGE_SIZE_VARIABLE: &str = "SIDEWING_MAX_MESSAGE_SIZE";
/// How many datasets of one upstream are loaded at a time by default.
const LOAD_PARALLELISM: usize = 8;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Where each front end is to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub flight: SocketAddr,
    pub metrics: SocketAddr,
}

/// A listener that could not be had.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for {front}: {source}; another process may have it, choose another with --{front} ADDR"
)]
pub struct BindError {
    pub front: &'static str,
    pub address: SocketAddr,
    #[source]
    pub source: std::io::Error,
}

/// Bound listeners, before anything is served.
pub struct Listeners {
    http: TcpListener,
    flight: TcpListener,
    metrics: TcpListener,
    pub addresses: Addresses,
}

impl Listeners {
    /// Binds all three.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub async fn bind(wanted: Addresses) -> Result<Self, BindError> {
        let http = bind("http", wanted.http).await?;
        let flight = bind("flight", wanted.flight).await?;
        let metrics = bind("metrics", wanted.metrics).await?;
        let addresses = Addresses { http: http.1, flight: flight.1, metrics: metrics.1 };
        Ok(Self { http: http.0, flight: flight.0, metrics: metrics.0, addresses })
    }
}

async fn bind(front: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError { front, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A spicepod with its secrets resolved and its connections described: everything that can be known
/// without a network is right.
pub struct Plan {
    pub spicepod: Spicepod,
    pub datasets: Vec<RemoteDataset>,
}

impl Plan {
    /// Resolves secrets and applies the endpoint rules.
    ///
    /// # Errors
    /// Every problem of every dataset at once.
    pub fn try_new(spicepod: Spicepod) -> Result<Self, Diagnostics> {
        match Self::datasets(&spicepod) {
            Ok(datasets) => Ok(Self { spicepod, datasets }),
            Err(problems) => Err(Diagnostics::new(Arc::clone(&spicepod.source), problems)),
        }
    }

    fn datasets(spicepod: &Spicepod) -> Result<Vec<RemoteDataset>, Vec<Diagnostic>> {
        let secrets = Secrets::load(spicepod)?;
        let pool = Pool::with_options(pool_options(spicepod)?);
        let mut datasets = Vec::with_capacity(spicepod.datasets.len());
        let mut problems = Vec::new();
        for dataset in &spicepod.datasets {
            let target = secrets.resolve(dataset).and_then(|params| Target::try_new(dataset, &params));
            let connected = target.and_then(|target| match pool.connect(&target) {
                Ok(upstream) => Ok((upstream, target.table)),
                Err(error) => Err(vec![Diagnostic {
                    message: format!("dataset `{}`: {}", dataset.name, error.message),
                    help: error.help,
                    code: None,
                    at: Some(dataset.at),
                }]),
            });
            match connected {
                Ok((upstream, remote)) => datasets.push(RemoteDataset {
                    name: dataset.name.clone(),
                    from: dataset.from.text.clone(),
                    upstream,
                    remote,
                }),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(datasets) } else { Err(problems) }
    }

    /// Lays out datasets and views for planning; the last of the checks that need no network.
    ///
    /// # Errors
    /// Views that do not parse or name what is not there.
    pub fn federate(self) -> Result<(Spicepod, Federation), Diagnostics> {
        let Self { spicepod, datasets } = self;
        let partitions = spicepod.runtime.target_partitions;
        match Federation::try_new(datasets, &spicepod.views, partitions) {
            Ok(federation) => Ok((spicepod, federation)),
            Err(problems) => Err(Diagnostics::new(Arc::clone(&spicepod.source), problems)),
        }
    }
}

fn pool_options(spicepod: &Spicepod) -> Result<PoolOptions, Vec<Diagnostic>> {
    let from_environment = match std::env::var(MESSAGE_SIZE_VARIABLE) {
        Ok(text) => Some(text.parse::<ByteSize>().map_err(|error| {
            vec![Diagnostic {
                code: Some("InvalidParameterValue"),
                message: format!("the environment variable {MESSAGE_SIZE_VARIABLE} is not a size: {error}"),
                at: None,
                help: Some(format!("write for example {MESSAGE_SIZE_VARIABLE}=64MB")),
            }]
        })?),
        Err(_) => None,
    };
    let default_max_message_size = spicepod.runtime.max_message_size.or(from_environment);
    Ok(PoolOptions { default_max_message_size, scope: Scope::new() })
}

/// A running sidecar.
pub struct App {
    pub engine: Engine,
    pub addresses: Addresses,
    scope: Scope,
    keepers: Scope,
    shutdown_timeout: Duration,
}

impl App {
    /// Serves on `listeners` and starts to reach the upstreams. Returns at once.
    #[must_use]
    pub fn start(spicepod: &Spicepod, federation: Federation, listeners: Listeners, metrics: Render) -> Self {
        let (scope, keepers) = (Scope::new(), Scope::new());
        let options = Options { timeout: spicepod.runtime.query_timeout.map(|limit| limit.get()) };
        let engine = Engine::new(federation.clone(), options);
        let addresses = listeners.addresses;
        let (http, flight, metered) = (scope.clone(), scope.clone(), scope.clone());
        let door = engine.clone();
        scope.spawn_draining("http", async move { serve::http::serve(listeners.http, door, &http).await });
        let door = engine.clone();
        scope.spawn_draining("flight", async move {
            serve::flight::serve(listeners.flight, door, FlightOptions::default(), &flight).await;
        });
        scope.spawn_draining("metrics", async move {
            serve::metrics::serve(listeners.metrics, metrics, &metered).await;
        });
        let parallel = spicepod.runtime.dataset_load_parallelism.unwrap_or(LOAD_PARALLELISM);
        federation.start(&keepers, parallel);
        let shutdown_timeout =
            spicepod.runtime.shutdown_timeout.map_or(SHUTDOWN_TIMEOUT, |limit| limit.get());
        Self { engine, addresses, scope, keepers, shutdown_timeout }
    }

    /// Stops accepting, lets running queries end, then stops the keepers.
    ///
    /// # Errors
    /// The names of tasks that did not end within `runtime.shutdown_timeout`.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        let drained = self.scope.shutdown(self.shutdown_timeout).await;
        let kept = self.keepers.shutdown(Duration::from_secs(1)).await;
        drained.and(kept)
    }
}

/// The verbosity that a spicepod asks for.
#[must_use]
pub fn verbosity(spicepod: &Spicepod) -> telemetry::Verbosity {
    use crate::config::LogLevel;
    match spicepod.runtime.output_level {
        None | Some(LogLevel::Info) => telemetry::Verbosity::Info,
        Some(LogLevel::Verbose) => telemetry::Verbosity::Verbose,
        Some(LogLevel::VeryVerbose) => telemetry::Verbosity::VeryVerbose,
    }
}
