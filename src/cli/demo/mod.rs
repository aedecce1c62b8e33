//! `sidewing demo`: the whole of it on one machine, without a network.
//!
//! An upstream of its own runs as a second process (TPC-H and a table that grows, over TLS, a private CA and an API key
//! made on the spot); a sidecar runs here on a spicepod in a temporary directory, keeps one of the tables and follows
//! the one that grows; queries are asked over HTTP and Flight and shown with what went upstream, and once without the
//! upstream. Then it keeps serving.

mod ask;
mod live;
pub mod tpch;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::app::{self, Addresses, App, Listeners, Plan};
use crate::telemetry::{self, Verbosity};

use super::run::{drain, print_addresses};
use super::screen::Screen;
use super::signals::StopSignals;
use super::{fail, states};

pub(crate) use upstream::{UpstreamArgs, run as run_upstream};

/// How long the upstream may take to make its data.
const UPSTREAM_START_MAX: Duration = Duration::from_secs(120);
const READY_MAX: Duration = Duration::from_secs(60);

/// The table that is kept here.
const KEPT: &str = "lineitem";

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// TPC-H scale factor: 1 is 6 million line items.
    #[arg(long, default_value_t = tpch::SCALE_DEFAULT, value_parser = tpch::parse_scale)]
    scale: f64,
    /// Ask the queries and leave.
    #[arg(long)]
    once: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(super) async fn run(args: DemoArgs) -> ExitCode {
    // Its upstream goes away on purpose.
    telemetry::init_log(Verbosity::Silent);
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    // A signal before the demo serves drops what was started: the upstream ends, the directory goes.
    let shown = tokio::select! {
        shown = show(&args) => shown,
        () = signals.next() => return fail("the demo was stopped"),
    };
    let demo = match shown {
        Ok(demo) => demo,
        Err(error) => return fail(&format!("the demo cannot go on: {error}")),
    };
    if !args.once {
        say!("Serving until Ctrl-C.");
        signals.next().await;
    }
    drain(&demo.app, &mut signals).await
}

/// What the demo started; dropping it ends the upstream and removes the directory.
struct Demo {
    app: App,
    upstream: Child,
    /// Where it answers.
    endpoint: String,
    dir: tempfile::TempDir,
}

async fn show(args: &DemoArgs) -> Result<Demo, Failure> {
    let dir = tempfile::Builder::new().prefix("sidewing-demo-").tempdir()?;
    say!("Making TPC-H data at scale {} and a TLS upstream that serves it ...", args.scale);
    let begun = Instant::now();
    let (upstream, endpoint) = start_upstream(dir.path(), args.scale, None).await?;
    say!("The upstream answers at {endpoint} after {:.1} s.", begun.elapsed().as_secs_f64());
    let pod = write_spicepod(dir.path(), &endpoint)?;
    say!("The spicepod is {}\n", pod.display());

    let plan = Plan::load(&pod).await.map_err(|all| all.to_string())?;
    let listeners = Listeners::bind(free_addresses().await).await?;
    let name = plan.spicepod.name.clone();
    let app = App::start(plan, listeners, &telemetry::init_metrics(), Some(pod.clone()));
    print_addresses(&name, &app.urls);
    wait_ready(&app).await?;
    ask::all(&app.addresses).await?;
    ask::growing(&app.addresses).await?;
    let demo = outage(Demo { app, upstream, endpoint, dir }, args.scale).await?;
    print_commands(&demo.app.addresses);
    Ok(demo)
}

/// The upstream as a process of its own, on the port that an earlier one had or on a free one; it ends with this one.
async fn start_upstream(dir: &Path, scale: f64, earlier: Option<&str>) -> Result<(Child, String), Failure> {
    let port = earlier.and_then(|endpoint| endpoint.rsplit(':').next()).unwrap_or("0");
    let mut child = Command::new(std::env::current_exe()?)
        .arg("demo-upstream")
        .arg("--dir")
        .arg(dir)
        .args(["--scale", &scale.to_string(), "--flight", &format!("127.0.0.1:{port}")])
        // Never written to: its end tells the upstream that this process is gone, however it went.
        .arg("--while-stdin-open")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or("the upstream has no output")?;
    let mut lines = BufReader::new(output).lines();
    let endpoint = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(endpoint) = line.trim().strip_prefix("flight") {
                return Ok(endpoint.trim().to_owned());
            }
        }
        Err::<String, Failure>("the upstream ended before it answered".into())
    };
    let endpoint = tokio::time::timeout(UPSTREAM_START_MAX, endpoint)
        .await
        .map_err(|_| "the upstream took too long to start")??;
    Ok((child, endpoint))
}

fn write_spicepod(dir: &Path, endpoint: &str) -> Result<std::path::PathBuf, Failure> {
    let mut pod = format!(
        "version: v1\nkind: Spicepod\nname: demo\n\nsecrets:\n  - from: env\n    name: env\n    params:\n      file_path: {}\n\ndatasets:\n",
        dir.join(upstream::KEY_FILE).display(),
    );
    for table in tpch::TABLES.into_iter().chain([live::NAME]) {
        pod.push_str(&format!(
            "  - from: spice.ai:{endpoint}\n    name: {table}\n    params:\n      spiceai_api_key: ${{secrets:{}}}\n      spiceai_tls_ca_certificate_file: {}\n",
            upstream::KEY_NAME,
            dir.join(upstream::CA_FILE).display(),
        ));
        if table == KEPT {
            pod.push_str("    acceleration:\n      enabled: true\n");
        }
        if table == live::NAME {
            pod.push_str("    acceleration:\n      enabled: true\n      refresh_mode: append\n");
        }
    }
    pod.push_str(
        "\nviews:\n  - name: revenue_by_nation\n    sql: |\n      SELECT n_name AS nation, sum(o_totalprice) AS revenue\n      FROM orders\n      JOIN customer ON o_custkey = c_custkey\n      JOIN nation ON c_nationkey = n_nationkey\n      GROUP BY n_name\n",
    );
    let path = dir.join("spicepod.yaml");
    std::fs::write(&path, pod)?;
    Ok(path)
}

/// The usual ports, or free ones where they are taken.
async fn free_addresses() -> Addresses {
    Addresses {
        http: or_free(app::HTTP_DEFAULT).await.into(),
        flight: or_free(app::FLIGHT_DEFAULT).await.into(),
        metrics: or_free(app::METRICS_DEFAULT).await.into(),
    }
}

async fn or_free(wanted: SocketAddr) -> SocketAddr {
    match tokio::net::TcpListener::bind(wanted).await {
        Ok(_) => wanted,
        Err(_) => {
            say!("{wanted} is taken, using a free port instead.");
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
        }
    }
}

/// Waits for every dataset and says so, and what is held of the one that is kept here.
async fn wait_ready(app: &App) -> Result<(), Failure> {
    let datasets = states::wait_ready(&app.live, &mut Screen::new(), READY_MAX).await?;
    say!("  {} datasets and views ready", datasets.len());
    let kept = datasets.iter().find(|dataset| dataset.name.to_string() == KEPT);
    if let Some(kept) = kept.and_then(|dataset| dataset.acceleration.as_ref()) {
        say!("  {KEPT} is kept here: {}", states::held(kept));
    }
    say!("  {} is followed as it grows", live::NAME);
    say!();
    Ok(())
}

/// Stops the upstream, asks what is kept here and what is not, and starts it again where it was.
async fn outage(mut demo: Demo, scale: f64) -> Result<Demo, Failure> {
    let held = ask::held(&demo.app.addresses).await?;
    demo.upstream.kill().await?;
    ask::without_upstream(&demo.app.addresses).await?;
    let (upstream, endpoint) = start_upstream(demo.dir.path(), scale, Some(&demo.endpoint)).await?;
    states::wait_ready(&demo.app.live, &mut Screen::new(), READY_MAX).await?;
    say!("   The upstream is back, and orders with it.\n");
    ask::caught_up(&demo.app.addresses, held).await?;
    Ok(Demo { upstream, endpoint, ..demo })
}

fn print_commands(addresses: &Addresses) {
    let Addresses { http, flight, metrics } = addresses;
    say!("Try, in another terminal:\n");
    say!("  curl -X POST http://{http}/v1/sql -d 'SELECT * FROM nation LIMIT 3'");
    say!("  curl -X POST http://{http}/v1/sql -H 'Accept: text/csv' -d 'SELECT * FROM region'");
    say!(
        "  curl -X POST http://{http}/v1/sql -H 'Accept: text/plain' -d 'EXPLAIN SELECT count(*) FROM orders'"
    );
    say!(
        "  curl -X POST http://{http}/v1/sql -d 'SELECT count(*), max(at) FROM {}'   # again and again",
        live::NAME
    );
    say!("  sidewing status --http {http}");
    say!("  sidewing refresh {KEPT} --http {http}");
    say!("  curl http://{metrics}/metrics");
    say!("  sidewing sql -e http://{flight} 'SELECT * FROM revenue_by_nation ORDER BY revenue DESC LIMIT 5'");
    say!();
}
