//! Composition root: a checked spicepod enters, bound listeners and running tasks leave.
//!
//! The only file that knows every room. Listeners are bound first, then everything is built, then
//! datasets are brought up; shutdown goes the other way.

mod agents;
mod fixed;
mod foundation;
mod generation;
mod headless;
mod listeners;
mod live;
mod outward;
mod plan;
mod protection;
mod pulse;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Spicepod;
use crate::serve::flight::FlightOptions;
use crate::serve::http::{About, HttpOptions, ListenerAbout, SpicepodAbout};
use crate::serve::{self, ConfigStatus};
use crate::task::Scope;
use crate::telemetry::{self, LogFormat, Registry, Render};

pub use agents::descriptions;
use fixed::Fixed;
use foundation::Foundation;
use generation::Generation;
pub use headless::Core;
pub use listeners::{Addresses, BindError, FLIGHT_DEFAULT, HTTP_DEFAULT, Listeners, METRICS_DEFAULT, Urls};
pub use live::Live;
pub use plan::Plan;
use protection::Guards;
use reload::Reloader;

/// `human` or `json`.
const LOG_FORMAT_VARIABLE: &str = "SIDEWING_LOG_FORMAT";
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A running sidecar.
pub struct App {
    /// Answers, whatever the configuration becomes.
    pub live: Live,
    pub addresses: Addresses,
    /// Where clients reach it.
    pub urls: Urls,
    scope: Scope,
    foundation: Foundation,
    shutdown_timeout: Duration,
}

impl App {
    /// Serves on `listeners` and starts to reach the upstreams; follows the spicepod at `path`, where there is one, and its
    /// secrets. Returns at once.
    #[must_use]
    pub fn start(plan: Plan, listeners: Listeners, registry: &Registry, path: Option<PathBuf>) -> Self {
        let (scope, process, outward) = (Scope::new(), Scope::new(), Scope::new());
        let (built, guarding, basis) = plan.parts();
        let addresses = listeners.addresses.clone();
        let urls = addresses.urls(&built.spicepod.runtime);
        let shutdown_timeout = built.spicepod.runtime.shutdown_timeout;
        metrics::gauge!("query_memory_limit_bytes").set(basis.resources.memory_limit() as f64);
        if let Err(error) = pulse::watch(&process) {
            tracing::warn!(%error, "nobody watches whether tasks get on");
        }
        let generation = Generation::begin(built, &process);
        let live = Live::new(generation.engine.clone(), ConfigStatus::now(generation.version.clone()));
        let guards = guarding.protection.guards();
        let measured = live.clone();
        registry.measured_by(move || measured.engine().measure());
        outward::start(&basis.tracer, guarding.otlp, registry, &outward);
        serve_all(listeners, &generation.spicepod, guards.clone(), &live, registry, &scope);
        let (secrets, keeper) = guarding.secrets.watch();
        let follows = process.child();
        follows.spawn("secret stores", keeper.follow());
        guarding.protection.guard(&guards, &secrets, &follows);
        let app = Self {
            live: live.clone(),
            addresses,
            urls,
            scope,
            foundation: Foundation {
                keepers: process.clone(),
                connections: basis.connections.clone(),
                outward,
                resources: basis.resources.clone(),
            },
            shutdown_timeout: shutdown_timeout.map_or(SHUTDOWN_TIMEOUT, |limit| limit.get()),
        };
        if let Some(path) = path {
            let begun = Fixed::of(&generation.spicepod.runtime);
            let reloader = Reloader {
                path,
                begun,
                generation,
                live,
                basis,
                guards,
                process: process.clone(),
                guarding: follows,
                secrets,
            };
            process.spawn("configuration", reloader.follow());
        }
        app
    }

    /// Stops accepting, lets running queries end, then stops the keepers.
    ///
    /// # Errors
    /// The names of tasks that did not end within `runtime.shutdown_timeout`.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        let drained = self.scope.shutdown(self.shutdown_timeout).await;
        drained.and(self.foundation.shutdown().await)
    }
}

fn about(spicepod: &Spicepod, addresses: &Addresses) -> About {
    let Addresses { http, flight, metrics } = addresses;
    let listeners = [("http", http), ("flight", flight), ("metrics", metrics)]
        .map(|(name, address)| ListenerAbout { name, endpoint: address.to_string() });
    let spicepod = SpicepodAbout { name: spicepod.name.clone(), version: spicepod.version.clone() };
    About { spicepod, listeners: listeners.to_vec() }
}

/// Starts the front ends, each until `scope` is cancelled.
fn serve_all(
    listeners: Listeners,
    spicepod: &Spicepod,
    guards: Guards,
    live: &Live,
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
    let (door, serving) = (live.clone(), scope.clone());
    scope.spawn_draining("http", async move { serve::http::serve(http, door, options, &serving).await });
    let options = FlightOptions { tls, access };
    let (door, serving) = (live.clone(), scope.clone());
    scope
        .spawn_draining("flight", async move { serve::flight::serve(flight, door, options, &serving).await });
    let registry = registry.clone();
    let render: Render = Arc::new(move || registry.render());
    let serving = scope.clone();
    scope.spawn_draining("metrics", async move {
        serve::metrics::serve(metered, render, metrics_tls, &serving).await;
    });
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
