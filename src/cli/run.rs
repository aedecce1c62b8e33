//! `sidewing run`: serves a spicepod until a signal, then drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, Addresses, App, Listeners, Plan};
use crate::config::{self, BindAddress, Spicepod};
use crate::telemetry;

use super::screen::Screen;
use super::signals::StopSignals;
use super::{fail, misconfigured, states};

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
    let plan = match config::load(&args.path).and_then(Plan::try_new) {
        Ok(plan) => plan,
        Err(problems) => return misconfigured(&problems),
    };
    let mut screen = Screen::new();
    let log = screen.above();
    telemetry::init_log_to(app::verbosity(&plan.spicepod), move || log.clone());
    eprint!("{}", plan.spicepod.shown_warnings());
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let metrics = match telemetry::init_metrics() {
        Ok(metrics) => metrics,
        Err(error) => return fail(&format!("cannot start metrics: {error}")),
    };
    let listeners = match Listeners::bind(args.addresses(&plan.spicepod)).await {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error.to_string()),
    };
    if let Some(warning) = open_to_others(&listeners.addresses) {
        eprintln!("{warning}");
    }
    let name = plan.spicepod.name.clone();
    let app = App::start(plan, listeners, metrics);
    print_addresses(&name, &app.addresses);
    tokio::select! {
        () = states::print(&app.engine, &mut screen) => signals.next().await,
        () = signals.next() => {}
    }
    // What is drawn goes before the last words.
    drop(screen);
    drain(&app, &mut signals).await
}

/// Where everything is answered; the harness of the tests and people read the same lines.
pub(super) fn print_addresses(name: &str, addresses: &Addresses) {
    say!("sidewing {}  {}", env!("CARGO_PKG_VERSION"), name);
    say!();
    say!("  http     http://{}", addresses.http);
    say!("  flight   http://{}", addresses.flight);
    say!("  metrics  http://{}", addresses.metrics);
    say!();
}

/// What to say when others than this machine can ask SQL: there is no authentication yet. Metrics are
/// meant to be scraped from elsewhere.
fn open_to_others(addresses: &Addresses) -> Option<String> {
    let fronts = [("http", &addresses.http), ("flight", &addresses.flight)];
    let open = fronts.iter().filter(|(_, address)| !address.is_local());
    let open: Vec<String> = open.map(|(front, address)| format!("{front} on {address}")).collect();
    match open.is_empty() {
        true => None,
        false => Some(format!(
            "warning: {} can be reached from other machines and asks for no key: whoever reaches it reads \
             every dataset; keep it to 127.0.0.1, or to a network where everybody may",
            open.join(" and ")
        )),
    }
}

/// Lets running queries end; a second signal ends at once.
pub(super) async fn drain(app: &App, signals: &mut StopSignals) -> ExitCode {
    tracing::info!("stopping: running queries may end, a second signal ends at once");
    tokio::select! {
        drained = app.shutdown() => match drained {
            Ok(()) => ExitCode::SUCCESS,
            Err(pending) => {
                tracing::warn!(?pending, "stopped with tasks pending");
                ExitCode::FAILURE
            }
        },
        () = signals.next() => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sql_beyond_this_machine_is_warned_of() {
        let said = |http: &str, flight: &str| {
            let metrics = "0.0.0.0:9090".parse().unwrap();
            open_to_others(&Addresses {
                http: http.parse().unwrap(),
                flight: flight.parse().unwrap(),
                metrics,
            })
        };
        assert_eq!(said("127.0.0.1:1", "[::1]:2"), None);
        assert_eq!(said("[::ffff:127.0.0.1]:1", "127.0.0.9:2"), None);
        let both = said("0.0.0.0:1", "[::]:2").unwrap();
        assert!(both.contains("http on 0.0.0.0:1 and flight on [::]:2"), "{both}");
        assert!(!said("127.0.0.1:1", "10.0.0.1:2").unwrap().contains("http"));
    }
}
