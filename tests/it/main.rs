//! The integration tests, one binary: the real `sidewing` between real sockets.
//!
//! One file a subject. `support` is the harness; `harness` tests the harness itself, without sidewing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper's failure is the test's"
)]

mod support;

mod harness;
mod proto;
mod ranks;

mod acceleration;
mod access;
mod cache;
mod cli;
mod clients;
mod control;
mod crowds;
mod departures;
mod diagnostics;
mod differential;
mod federation;
mod flight_sql;
mod frontends;
mod hostile;
mod instructions;
mod limits;
mod messages;
mod passing;
mod protection;
mod publishing;
mod pushdown;
mod reload;
mod resilience;
mod secrets;
mod sql;
mod streams;
mod sub_plans;
mod telemetry;
mod tpch;
