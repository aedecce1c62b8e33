//! Composition root: a checked spicepod enters, bound listeners and running tasks leave.
//!
//! The only file that knows every room. Listeners are bound first, then everything is built, then
//! datasets are brought up; shutdown goes the other way.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::acceleration::Acceleration;
use crate::config::{BindAddress, ByteSize, Dataset, Diagnostic, Diagnostics, Runtime, Spicepod};
use crate::federation::{self, Federation, RemoteDataset, Resources};
use crate::name::DatasetName;
use crate::query::{Engine, Options, QueueOptions, ResultsCache};
use crate::secrets::Secrets;
use crate::serve::flight::FlightOptions;
use crate::serve::http::{About, HttpOptions, ListenerAbout, SpicepodAbout};
use crate::serve::{self, Listener};
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
/// How many queries run at a time for each core by default: most of them wait for an upstream.
const QUERIES_PER_CORE: usize = 4;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Keepers hold nothing that has to be finished.
const KEEPERS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where each front end is to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub http: BindAddress,
    pub flight: BindAddress,
    pub metrics: BindAddress,
}

/// A listener that could not be had.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for {front}: {source}; another process may have it, choose another with --{front} ADDR"
)]
pub struct BindError {
    pub front: &'static str,
    pub address: BindAddress,
    #[source]
    pub source: std::io::Error,
}

/// Bound listeners, before anything is served.
pub struct Listeners {
    http: Listener,
    flight: Listener,
    metrics: Listener,
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

async fn bind(front: &'static str, address: BindAddress) -> Result<(Listener, BindAddress), BindError> {
    let bound = match Listener::bind(&address).await {
        Ok(listener) => listener.address().map(|bound| (listener, bound)),
        Err(error) => Err(error),
    };
    bound.map_err(|source| BindError { front, address, source })
}

/// A spicepod with its secrets resolved, its connections described and its views laid out: everything
/// that can be known without a network is right.
pub struct Plan {
    pub spicepod: Spicepod,
    pub datasets: Vec<RemoteDataset>,
    pub federation: Federation,
    pub acceleration: Acceleration,
    resources: Resources,
    /// Owns the connections to upstreams.
    connections: Scope,
}

impl Plan {
    /// Resolves secrets, applies the endpoint rules, checks the views, and makes the directory for temporary files.
    ///
    /// # Errors
    /// Every problem of every dataset and view at once.
    pub fn try_new(mut spicepod: Spicepod) -> Result<Self, Diagnostics> {
        let connections = Scope::new();
        let names: Vec<&DatasetName> = spicepod.datasets.iter().map(|dataset| &dataset.name).collect();
        let mut problems = federation::view_problems(&names, &spicepod.views);
        let datasets = remote_datasets(&spicepod, &connections).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let resources = match Resources::try_new(&spicepod.runtime.memory) {
            Ok(resources) if problems.is_empty() => resources,
            found => {
                problems.extend(found.err());
                return Err(Diagnostics::new(Arc::clone(&spicepod.source), problems));
            }
        };
        spicepod.warnings.extend(resources.warning().cloned());
        let options = federation::Options {
            push_down: spicepod.runtime.push_down.unwrap_or(true),
            target_partitions: spicepod.runtime.target_partitions,
            resources: Some(resources.clone()),
        };
        let built = Federation::try_new(datasets.clone(), &spicepod.views, options).and_then(|federation| {
            let acceleration = Acceleration::try_new(&spicepod, &federation)?;
            Ok((federation, acceleration))
        });
        match built {
            Ok((federation, acceleration)) => {
                Ok(Self { spicepod, datasets, federation, acceleration, resources, connections })
            }
            Err(problems) => Err(Diagnostics::new(Arc::clone(&spicepod.source), problems)),
        }
    }
}

fn remote_datasets(spicepod: &Spicepod, connections: &Scope) -> Result<Vec<RemoteDataset>, Vec<Diagnostic>> {
    let secrets = Secrets::load(spicepod)?;
    let pool = Pool::with_options(pool_options(spicepod, connections.clone())?);
    let mut datasets = Vec::with_capacity(spicepod.datasets.len());
    let mut problems = Vec::new();
    for dataset in &spicepod.datasets {
        match remote_dataset(dataset, &secrets, &pool) {
            Ok(remote) => datasets.push(remote),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(datasets) } else { Err(problems) }
}

fn remote_dataset(
    dataset: &Dataset,
    secrets: &Secrets,
    pool: &Pool,
) -> Result<RemoteDataset, Vec<Diagnostic>> {
    let params = secrets.resolve(dataset)?;
    let target = Target::try_new(dataset, &params)?;
    let upstream = pool.connect(&target).map_err(|error| {
        vec![Diagnostic {
            message: format!("dataset `{}`: {}", dataset.name, error.message),
            help: error.help,
            code: Some("UnableToCreateFlightClient"),
            at: Some(dataset.at),
        }]
    })?;
    let (name, from) = (dataset.name.clone(), dataset.from.text.clone());
    Ok(RemoteDataset { name, from, upstream, remote: target.table })
}

fn pool_options(spicepod: &Spicepod, scope: Scope) -> Result<PoolOptions, Vec<Diagnostic>> {
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
    Ok(PoolOptions { default_max_message_size, scope })
}

/// A running sidecar.
pub struct App {
    pub engine: Engine,
    pub addresses: Addresses,
    scope: Scope,
    keepers: Scope,
    connections: Scope,
    resources: Resources,
    shutdown_timeout: Duration,
}

impl App {
    /// Serves on `listeners` and starts to reach the upstreams. Returns at once.
    #[must_use]
    pub fn start(plan: Plan, listeners: Listeners, metrics: Render) -> Self {
        let Plan { spicepod, federation, acceleration, resources, connections, .. } = plan;
        let (scope, keepers) = (Scope::new(), Scope::new());
        // Shared runs outlive the request that began them, as keepers do.
        let pool = federation.memory_pool();
        let cache = ResultsCache::new(&spicepod.runtime.results_cache, &pool, keepers.clone());
        let engine = Engine::new(federation.clone(), query_options(&spicepod.runtime))
            .accelerated(acceleration.clone())
            .caching(cache);
        metrics::gauge!("query_memory_limit_bytes").set(resources.memory_limit() as f64);
        let addresses = listeners.addresses;
        let (http, flight, metered) = (scope.clone(), scope.clone(), scope.clone());
        let door = engine.clone();
        let (about, cors) = (about(&spicepod, &addresses), spicepod.runtime.cors.clone());
        let options = HttpOptions { about, cors, ..HttpOptions::default() };
        scope.spawn_draining("http", async move {
            serve::http::serve(listeners.http, door, options, &http).await
        });
        let door = engine.clone();
        scope.spawn_draining("flight", async move {
            serve::flight::serve(listeners.flight, door, FlightOptions::default(), &flight).await;
        });
        let measured = engine.clone();
        let render: Render = Arc::new(move || {
            measured.measure();
            metrics()
        });
        scope.spawn_draining("metrics", async move {
            serve::metrics::serve(listeners.metrics, render, &metered).await;
        });
        let parallel = spicepod.runtime.dataset_load_parallelism.unwrap_or(LOAD_PARALLELISM);
        federation.start(&keepers, parallel);
        acceleration.start(&federation, &keepers, parallel);
        let shutdown_timeout =
            spicepod.runtime.shutdown_timeout.map_or(SHUTDOWN_TIMEOUT, |limit| limit.get());
        Self { engine, addresses, scope, keepers, connections, resources, shutdown_timeout }
    }

    /// Stops accepting, lets running queries end, then stops the keepers.
    ///
    /// # Errors
    /// The names of tasks that did not end within `runtime.shutdown_timeout`.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        let drained = self.scope.shutdown(self.shutdown_timeout).await;
        let kept = self.keepers.shutdown(KEEPERS_SHUTDOWN_TIMEOUT).await;
        self.connections.cancel();
        drained.and(kept)
    }
}

impl Drop for App {
    /// Queries that did not end may still hold files; nobody will read their answers.
    fn drop(&mut self) {
        self.resources.remove_files();
    }
}

fn about(spicepod: &Spicepod, addresses: &Addresses) -> About {
    let Addresses { http, flight, metrics } = addresses;
    let listeners = [("http", http), ("flight", flight), ("metrics", metrics)]
        .map(|(name, address)| ListenerAbout { name, endpoint: address.to_string() });
    let spicepod = SpicepodAbout { name: spicepod.name.clone(), version: spicepod.version.clone() };
    About { spicepod, listeners: listeners.to_vec() }
}

fn query_options(runtime: &Runtime) -> Options {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let running_max = runtime.max_concurrent_queries.unwrap_or(cores.saturating_mul(QUERIES_PER_CORE));
    let default = QueueOptions::default();
    let queue = QueueOptions {
        running_max: NonZeroUsize::new(running_max),
        waiting_max: runtime.query_queue_max.unwrap_or(default.waiting_max),
        wait_max: runtime.query_queue_timeout.map_or(default.wait_max, |limit| limit.get()),
    };
    Options { timeout: runtime.query_timeout.map(|limit| limit.get()), queue }
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
