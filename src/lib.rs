//! sidewing: an Arrow Flight federation sidecar.
//!
//! A spicepod says which datasets live where; an application asks its SQL on localhost; sidewing
//! sends the work to the upstream that has the data. The rooms, in the order data walks:
//!
//! 1. [`config`]: spicepod YAML becomes checked plain data.
//! 2. [`secrets`]: `${secrets:NAME}` becomes values that cannot be printed.
//! 3. [`upstream`]: verified, authenticated Flight connections.
//! 4. [`federation`]: remote tables as DataFusion tables; whole statements forwarded, tables scanned.
//! 5. [`query`]: the one door for SQL.
//! 6. [`serve`]: HTTP and Flight front ends, decode, query, encode.
//! 7. [`app`] builds all of them from a config; [`cli`] is what a person types.
//!
//! Everybody may use [`name`], [`task`], [`telemetry`] and `settled`. `ARCHITECTURE.md` says who may know whom,
//! and `tests/it/ranks.rs` holds them to it.

pub mod name;
pub mod proto;
mod settled;
mod slots;
pub mod task;
pub mod telemetry;
pub mod wire;

pub mod acceleration;
pub mod config;
pub mod federation;
pub mod query;
pub mod secrets;
pub mod serve;
pub mod upstream;

pub mod app;
pub mod cli;
