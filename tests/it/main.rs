//! The integration tests, one binary: the real `sidewing` between real sockets.
//!
//! One file a subject. `support` is the harness; `harness` tests the harness itself, without sidewing.

#[expect(dead_code, reason = "until the line below is enabled")]
mod support;

mod harness;
mod ranks;

// mod clients; mod diagnostics; mod federation; mod frontends; mod messages; mod resilience; mod tpch;
