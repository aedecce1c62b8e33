//! `sidewing run`: serves a spicepod until a signal, then drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, Addresses, App, Listeners, Plan, Urls};
use crate::config::{self, BindAddress, Spicepod};
use crate::telemetry;

use super::screen::Screen;
use super::signals::StopSignals;
use super::{fail, files, misconfigured, states};

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// A spicepod file, or a directory that holds spicepod.yaml.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Where to answer HTTP: an address, or unix:/path [default: 127.0.0.1:8090].
    #[arg(long, value_name = "ADDR")]
    http: Option<BindAddress>,
    /// Where to answer Arrow Flight: an address, or unix:/path [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR")]
    flight: Option<BindAddress>,
    /// Where to show metrics [default: 127.0.0.1:9090].
    #[arg(long, value_name = "ADDR", value_parser = config::parse_bind_address)]
    metrics: Option<SocketAddr>,
}

impl RunArgs {
    /// The command line wins over the spicepod, which wins over the defaults.
    fn addresses(&self, spicepod: &Spicepod) -> Addresses {
        let runtime = &spicepod.runtime;
        Addresses {
            http: chosen(self.http.as_ref(), runtime.http_bind.as_ref(), app::HTTP_DEFAULT),
            flight: chosen(self.flight.as_ref(), runtime.flight_bind.as_ref(), app::FLIGHT_DEFAULT),
            metrics: self.metrics.or(runtime.metrics_bind).unwrap_or(app::METRICS_DEFAULT).into(),
        }
    }
}

fn chosen(argument: Option<&BindAddress>, written: Option<&BindAddress>, default: SocketAddr) -> BindAddress {
    argument.or(written).cloned().unwrap_or(BindAddress::Tcp(default))
}

pub(super) async fn run(args: RunArgs) -> ExitCode {
    let plan = match Plan::load(&args.path).await {
        Ok(plan) => plan,
        Err(problems) => return misconfigured(&problems),
    };
    let mut screen = Screen::new();
    let log = screen.above();
    match app::log_format(&plan.spicepod) {
        Ok(format) => {
            telemetry::init_log_to(app::verbosity(&plan.spicepod), format, move || log.clone());
        }
        Err(message) => return fail(&message),
    }
    files::raise_limit();
    eprint!("{}", plan.spicepod.shown_warnings());
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let listeners = match Listeners::bind(args.addresses(&plan.spicepod)).await {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error.to_string()),
    };
    if let Some(warning) = listeners.addresses.open_to_others(&plan.spicepod.runtime) {
        eprintln!("{warning}");
    }
    let name = plan.spicepod.name.clone();
    let app = App::start(plan, listeners, &telemetry::init_metrics(), Some(args.path.clone()));
    print_addresses(&name, &app.urls);
    tokio::select! {
        () = states::print(&app.live, &mut screen) => signals.next().await,
        () = signals.next() => {}
    }
    // What is drawn goes before the last words.
    drop(screen);
    drain(&app, &mut signals).await
}

/// Where everything is answered; the harness of the tests and people read the same lines.
pub(super) fn print_addresses(name: &str, urls: &Urls) {
    say!("sidewing {}  {}", env!("CARGO_PKG_VERSION"), name);
    say!();
    say!("  http     {}", urls.http);
    say!("  flight   {}", urls.flight);
    say!("  metrics  {}", urls.metrics);
    say!();
}

/// Lets running queries end; a second signal ends at once.
pub(super) async fn drain(app: &App, signals: &mut StopSignals) -> ExitCode {
    tracing::info!("stopping: running queries may end, a second signal ends at once");
    tokio::select! {
        drained = app.shutdown() => match drained {
            Ok(()) => ExitCode::SUCCESS,
            Err(pending) => {
                // It stops as it was told to: what was asked for too late is no failure of the process.
                tracing::warn!(?pending, "stopped with tasks pending");
                ExitCode::SUCCESS
            }
        },
        () = signals.next() => ExitCode::FAILURE,
    }
}
