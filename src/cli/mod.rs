//! What a person types: one file per subcommand. The only reader of argv.

/// Writes a line to standard output. Whoever read it may have gone (`| head -1`): that is no failure,
/// where `println!` would panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod check;
pub mod demo;
mod fetch;
mod files;
mod health;
mod mcp;
mod place;
mod reach;
mod refresh;
mod run;
mod schema;
mod screen;
mod sidecar;
mod signals;
mod sql;
mod states;
mod status;
mod words;

use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Diagnostics;
use crate::task;

/// An Arrow Flight federation sidecar: SQL on localhost, answered by the upstream that has the data.
#[derive(Parser)]
#[command(name = "sidewing", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Log level: RUST_LOG, e.g. RUST_LOG=sidewing=debug. Start with: sidewing demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the datasets of a spicepod on localhost.
    Run(run::RunArgs),
    /// Check a spicepod and reach every dataset: DNS, TCP, TLS, key, schema.
    Check(check::CheckArgs),
    /// Ask a running sidecar whether it lives (for container probes).
    Health(health::HealthArgs),
    /// Show the datasets of a running sidecar: states, rows, sizes, ages.
    Status(status::StatusArgs),
    /// Have a running sidecar fetch a dataset anew, and watch it.
    Refresh(refresh::RefreshArgs),
    /// Ask SQL, once or at a prompt.
    Sql(sql::SqlArgs),
    /// Answer the agent that starts it, over MCP on standard input and output.
    Mcp(mcp::McpArgs),
    /// See the whole of it: an upstream over TLS, a sidecar, queries with and without it.
    Demo(demo::DemoArgs),
    /// Print the JSON Schema of the spicepod, for editors.
    Schema,
    /// Serve TPC-H data over TLS Flight: the demo's upstream.
    #[command(hide = true)]
    DemoUpstream(demo::UpstreamArgs),
}

/// The exit code of a wrong command line or spicepod; what could not be done exits 1.
const EXIT_CONFIG: u8 = 2;

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    match command {
        Command::Run(args) => blocking(run::run(args)),
        Command::Check(args) => blocking(check::run(args)),
        Command::Health(args) => blocking(health::run(args)),
        Command::Status(args) => blocking(status::run(args)),
        Command::Refresh(args) => blocking(refresh::run(args)),
        Command::Sql(args) => blocking(sql::run(args)),
        Command::Mcp(args) => blocking(mcp::run(args)),
        Command::Demo(args) => blocking(demo::run(args)),
        Command::Schema => schema::run(),
        Command::DemoUpstream(args) => blocking(demo::run_upstream(args)),
    }
}

/// Runs a command on a runtime of its own.
fn blocking(command: impl Future<Output = ExitCode>) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(task::network_threads()).thread_stack_size(task::STACK_SIZE);
    match builder.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // Nothing that still runs may keep the process alive.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    }
}

/// Prints the problems of a spicepod.
fn misconfigured(problems: &Diagnostics) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(EXIT_CONFIG)
}

/// Says what went wrong on standard error.
fn fail(message: &str) -> ExitCode {
    eprintln!("sidewing: {message}");
    ExitCode::FAILURE
}
