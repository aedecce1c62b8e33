//! `sidewing mcp`: serves a spicepod to the agent that started it, over its standard streams, until they end.
//!
//! Standard output is the protocol's alone; everything else goes to standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::app::{self, Core, Plan};
use crate::serve::mcp::serve_stdio;
use crate::telemetry;

use super::signals::StopSignals;
use super::{fail, misconfigured};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A desktop client starts it by itself. In its configuration:
  {\"mcpServers\": {\"sidewing\": {\"command\": \"sidewing\", \"args\": [\"mcp\", \"/path/to/spicepod.yaml\"]}}}
A sidecar that runs already answers MCP at http://127.0.0.1:8090/v1/mcp.")]
pub(crate) struct McpArgs {
    /// A spicepod file, or a directory that holds spicepod.yaml.
    #[arg(default_value = ".")]
    path: PathBuf,
}

pub(super) async fn run(args: McpArgs) -> ExitCode {
    let plan = match Plan::load(&args.path).await {
        Ok(plan) => plan,
        Err(problems) => return misconfigured(&problems),
    };
    match app::log_format(&plan.spicepod) {
        Ok(format) => telemetry::init_log_to(app::verbosity(&plan.spicepod), format, std::io::stderr),
        Err(message) => return fail(&message),
    }
    eprint!("{}", plan.spicepod.shown_warnings());
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let descriptions = app::descriptions(&plan.spicepod);
    let core = Core::start(plan);
    let streams = (tokio::io::stdin(), tokio::io::stdout());
    let ended = tokio::select! {
        ended = serve_stdio(core.engine.clone(), descriptions, streams, CancellationToken::new()) => ended,
        () = signals.next() => Ok(()),
    };
    let stopped = core.shutdown().await;
    match (ended, stopped) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (Err(error), _) => fail(&error.to_string()),
        (Ok(()), Err(pending)) => {
            tracing::warn!(?pending, "stopped with tasks pending");
            ExitCode::FAILURE
        }
    }
}
