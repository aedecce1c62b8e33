//! `sidewing schema`: the JSON Schema of the spicepod on standard output.

use std::process::ExitCode;

use crate::config;

pub(super) fn run() -> ExitCode {
    say!("{:#}", config::json_schema());
    ExitCode::SUCCESS
}
