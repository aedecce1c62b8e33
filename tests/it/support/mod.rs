//! The harness: everything that an integration test needs to surround the real binary with a world.
//!
//! - [`dns`]: a name server with names of the test's own.
//! - [`pki`]: a CA and certificates, good and bad, made at run time.
//! - [`moved`]: which metrics any test has moved.
//! - [`port`]: a port on which nobody listens.
//! - [`proxy`]: a TCP proxy that goes silent, refuses and resets.
//! - [`upstream`]: a real Flight upstream that records its calls and fails on request.
//! - [`rest`]: an HTTPS server whose answers the test writes.
//! - [`sidecar`]: the real binary on free ports, killed with the test.
//! - [`spicepod`]: spicepods as text.
//! - [`client`]: a downstream Flight client, and the comparison of answers.
//! - [`tpch`]: TPC-H tables and the 22 queries.
//!
//! Tests of these parts are in `harness.rs`.

pub mod client;
pub mod dns;
pub mod moved;
pub mod pki;
pub mod port;
pub mod proxy;
pub mod rest;
pub mod sidecar;
pub mod spicepod;
pub mod tpch;
pub mod upstream;
