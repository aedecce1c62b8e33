//! Composition root: a checked spicepod enters, bound listeners and running tasks leave.
//!
//! The only file that knows every room. Listeners are bound first, then everything is built, then
//! datasets are brought up; shutdown goes the other way.

mod agents;
mod headless;
mod listeners;
mod outward;
mod protection;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::acceleration::Acceleration;
use crate::config::{ByteSize, Dataset, Diagnostic, Diagnostics, Runtime, Spicepod};
use crate::federation::{self, Federation, RemoteDataset, Resources};
use crate::name::DatasetName;
use crate::query::{Engine, Options, QueueOptions, ResultsCache};
use crate::secrets::Secrets;
use crate::serve;
use crate::serve::flight::FlightOptions;
use crate::serve::http::{About, HttpOptions, ListenerAbout, SpicepodAbout};
use crate::task::Scope;
use crate::telemetry::{self, LogFormat, Otlp, Registry, Render, Tracer};
use crate::upstream::{Pool, PoolOptions, Target};

pub use agents::descriptions;
pub use headless::Core;
pub use listeners::{Addresses, BindError, FLIGHT_DEFAULT, HTTP_DEFAULT, Listeners, METRICS_DEFAULT, Urls};
use protection::{Guards, Protection};

/// The inbound message limit of datasets that set none.
const MESSAGE_SIZE_VARIABLE: &str = "SIDEWING_MAX_MESSAGE_SIZE";
/// `human` or `json`.
const LOG_FORMAT_VARIABLE: &str = "SIDEWING_LOG_FORMAT";
/// How many datasets of one upstream are loaded at a time by default.
const LOAD_PARALLELISM: usize = 8;
/// How many queries run at a time for each core by default: most of them wait for an upstream.
const QUERIES_PER_CORE: usize = 4;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Keepers hold nothing that has to be finished.
const KEEPERS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// What is left to be told is tried once.
const OUTWARD_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// A spicepod with its secrets resolved, its connections described and its views laid out: everything
/// that can be known without a network is right.
pub struct Plan {
    pub spicepod: Spicepod,
    pub datasets: Vec<RemoteDataset>,
    pub federation: Federation,
    pub acceleration: Acceleration,
    resources: Resources,
    protection: Protection,
    tracer: Tracer,
    otlp: Option<Otlp>,
    /// Owns the connections to upstreams.
    connections: Scope,
}

impl Plan {
    /// Resolves secrets, applies the endpoint rules, checks the views, and makes the directory for temporary files.
    ///
    /// # Errors
    /// Every problem of every dataset and view at once.
    pub fn try_new(mut spicepod: Spicepod) -> Result<Self, Diagnostics> {
        let registry = Registry::global();
        let connections = Scope::new();
        let names: Vec<&DatasetName> = spicepod.datasets.iter().map(|dataset| &dataset.name).collect();
        let mut problems = federation::view_problems(&names, &spicepod.views);
        let resolved = resolved(&spicepod, &connections);
        let (resources, Resolved { datasets, protection, otlp }) =
            match (Resources::try_new(&spicepod.runtime.memory), resolved) {
                (Ok(resources), Ok(resolved)) if problems.is_empty() => (resources, resolved),
                (resources, resolved) => {
                    problems.extend(resources.err());
                    problems.extend(resolved.err().into_iter().flatten());
                    return Err(Diagnostics::new(Arc::clone(&spicepod.source), problems));
                }
            };
        spicepod.warnings.extend(resources.warning().cloned());
        let tracer = outward::tracer(&spicepod.runtime);
        let options = federation::Options {
            push_down: spicepod.runtime.push_down.unwrap_or(true),
            target_partitions: spicepod.runtime.target_partitions,
            resources: Some(resources.clone()),
            telemetry: federation::Telemetry { registry, tracer: tracer.clone() },
        };
        let built = Federation::try_new(datasets.clone(), &spicepod.views, options).and_then(|federation| {
            let acceleration = Acceleration::try_new(&spicepod, &federation)?;
            Ok((federation, acceleration))
        });
        match built {
            Ok((federation, acceleration)) => Ok(Self {
                spicepod,
                datasets,
                federation,
                acceleration,
                resources,
                protection,
                tracer,
                otlp,
                connections,
            }),
            Err(problems) => Err(Diagnostics::new(Arc::clone(&spicepod.source), problems)),
        }
    }
}

/// All that has secrets.
struct Resolved {
    datasets: Vec<RemoteDataset>,
    protection: Protection,
    otlp: Option<Otlp>,
}

fn resolved(spicepod: &Spicepod, connections: &Scope) -> Result<Resolved, Vec<Diagnostic>> {
    let begun = Instant::now();
    let secrets = Arc::new(Secrets::load(spicepod)?);
    metrics::histogram!("secrets_store_load_duration_ms").record(begun.elapsed().as_secs_f64() * 1e3);
    let datasets = remote_datasets(spicepod, &secrets, connections);
    let otlp = outward::otlp(&spicepod.runtime, &secrets);
    match (datasets, Protection::try_new(&spicepod.runtime, secrets), otlp) {
        (Ok(datasets), Ok(protection), Ok(otlp)) => Ok(Resolved { datasets, protection, otlp }),
        (datasets, protection, otlp) => {
            let problems = datasets.err().into_iter().chain(protection.err()).chain(otlp.err());
            Err(problems.flatten().collect())
        }
    }
}

fn remote_datasets(
    spicepod: &Spicepod,
    secrets: &Secrets,
    connections: &Scope,
) -> Result<Vec<RemoteDataset>, Vec<Diagnostic>> {
    let pool = Pool::with_options(pool_options(spicepod, connections.clone())?);
    let mut datasets = Vec::with_capacity(spicepod.datasets.len());
    let mut problems = Vec::new();
    for dataset in &spicepod.datasets {
        match remote_dataset(dataset, secrets, &pool) {
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
    /// Where clients reach it.
    pub urls: Urls,
    scope: Scope,
    keepers: Scope,
    connections: Scope,
    /// Of the telemetry: it hears the others end.
    outward: Scope,
    resources: Resources,
    shutdown_timeout: Duration,
}

impl App {
    /// Serves on `listeners` and starts to reach the upstreams. Returns at once.
    #[must_use]
    pub fn start(plan: Plan, listeners: Listeners, registry: &Registry) -> Self {
        let Plan {
            spicepod, federation, acceleration, resources, protection, tracer, otlp, connections, ..
        } = plan;
        let (scope, keepers, outward) = (Scope::new(), Scope::new(), Scope::new());
        let engine = engine(&spicepod.runtime, &federation, &acceleration, &keepers);
        metrics::gauge!("query_memory_limit_bytes").set(resources.memory_limit() as f64);
        let addresses = listeners.addresses.clone();
        let urls = addresses.urls(&spicepod.runtime);
        let guards = protection.start(&keepers);
        let measured = engine.clone();
        registry.measured_by(move || measured.measure());
        outward::start(&tracer, otlp, registry, &outward);
        serve_all(listeners, &spicepod, guards, &engine, registry, &scope);
        bring_up(&spicepod.runtime, &federation, &acceleration, &keepers);
        let shutdown_timeout =
            spicepod.runtime.shutdown_timeout.map_or(SHUTDOWN_TIMEOUT, |limit| limit.get());
        Self { engine, addresses, urls, scope, keepers, connections, outward, resources, shutdown_timeout }
    }

    /// Stops accepting, lets running queries end, then stops the keepers.
    ///
    /// # Errors
    /// The names of tasks that did not end within `runtime.shutdown_timeout`.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        let drained = self.scope.shutdown(self.shutdown_timeout).await;
        let kept = self.keepers.shutdown(KEEPERS_SHUTDOWN_TIMEOUT).await;
        self.connections.cancel();
        let told = self.outward.shutdown(OUTWARD_SHUTDOWN_TIMEOUT).await;
        drained.and(kept).and(told)
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

/// The one door for SQL over all that a plan describes.
fn engine(
    runtime: &Runtime,
    federation: &Federation,
    acceleration: &Acceleration,
    keepers: &Scope,
) -> Engine {
    // Shared runs outlive the request that began them, as keepers do.
    let cache = ResultsCache::new(&runtime.results_cache, &federation.memory_pool(), keepers.clone());
    let engine = Engine::new(federation.clone(), query_options(runtime));
    let engine = engine.accelerated(acceleration.clone()).caching(cache);
    keepers.spawn("stalled queries", engine.clone().end_stalled());
    engine
}

/// Starts what keeps the datasets.
fn bring_up(runtime: &Runtime, federation: &Federation, acceleration: &Acceleration, keepers: &Scope) {
    let parallel = runtime.dataset_load_parallelism.unwrap_or(LOAD_PARALLELISM);
    federation.start(keepers, parallel);
    acceleration.start(federation, keepers, parallel);
}

/// Starts the front ends, each until `scope` is cancelled.
fn serve_all(
    listeners: Listeners,
    spicepod: &Spicepod,
    guards: Guards,
    engine: &Engine,
    registry: &Registry,
    scope: &Scope,
) {
    let Listeners { http, flight, metrics: metered, addresses } = listeners;
    let Guards { access, tls, metrics_tls } = guards;
    let mcp = agents::mcp_options(spicepod, &addresses.http);
    let (about, cors) = (about(spicepod, &addresses), spicepod.runtime.cors.clone());
    let options = HttpOptions { tls: tls.clone(), access: access.clone(), cors, about, mcp };
    for started in ["runtime_http_server_started", "runtime_flight_server_started"] {
        metrics::counter!(started).absolute(1);
    }
    let (door, serving) = (engine.clone(), scope.clone());
    scope.spawn_draining("http", async move { serve::http::serve(http, door, options, &serving).await });
    let options = FlightOptions { tls, access };
    let (door, serving) = (engine.clone(), scope.clone());
    scope
        .spawn_draining("flight", async move { serve::flight::serve(flight, door, options, &serving).await });
    let registry = registry.clone();
    let render: Render = Arc::new(move || registry.render());
    let serving = scope.clone();
    scope.spawn_draining("metrics", async move {
        serve::metrics::serve(metered, render, metrics_tls, &serving).await;
    });
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
    let default = Options::default();
    Options {
        timeout: runtime.query_timeout.map(|limit| limit.get()),
        queue,
        client_timeout: runtime.query_client_timeout.map_or(default.client_timeout, |limit| limit.get()),
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

/// How log lines are written: the environment wins over the spicepod.
///
/// # Errors
/// A word of the environment that is no format.
pub fn log_format(spicepod: &Spicepod) -> Result<LogFormat, String> {
    use crate::config::LogFormat as Written;
    let written = match std::env::var(LOG_FORMAT_VARIABLE) {
        Ok(text) if !text.is_empty() => Some(Written::parse(&text).ok_or_else(|| {
            format!("the environment variable {LOG_FORMAT_VARIABLE} is `{text}`: write `human` or `json`")
        })?),
        _ => spicepod.runtime.log_format,
    };
    Ok(match written {
        None | Some(Written::Human) => LogFormat::Human,
        Some(Written::Json) => LogFormat::Json,
    })
}
