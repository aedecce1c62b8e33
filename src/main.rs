//! Process shell: hand the arguments to the command line room and leave with its exit code.

use std::process::ExitCode;

/// Chosen by measurement (`bench/NOTES.md`): buffers of messages are given back and taken again without the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidewing::cli::main()
}
