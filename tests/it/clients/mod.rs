//! Foreign clients from `tests/clients` against the real sidecar: `cargo test --test it clients` runs all of them.
//!
//! They need an interpreter, or a compiler, and a package registry. Where those are missing the test says so loudly and
//! passes, unless `SIDEWING_REQUIRE_CLIENTS` is set.

pub mod tools;

mod adbc;
mod console;
mod grpc;
mod mcp;
mod pyarrow;
mod schemathesis;
mod spice_js;
mod spice_rs;
