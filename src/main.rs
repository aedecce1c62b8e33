//! Process shell: hand the arguments to the command line room and leave with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidewing::cli::main()
}
