//! Foreign clients from `tests/clients` against the real sidecar: `cargo test --test it clients` runs all of them.
//!
//! They need an interpreter and a package registry. Where those are missing the test says so loudly and
//! passes, unless `SIDEWING_REQUIRE_CLIENTS` is set.

mod tools;

mod console;
mod pyarrow;
mod schemathesis;
