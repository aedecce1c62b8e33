//! Verified, authenticated Flight connections: a dataset's params enter, schemas and batches leave.
//!
//! The only room that opens outward sockets for data and that knows tonic's client.

mod error;
mod identity;
mod pem;
mod place;
mod table;
mod target;
mod tls_files;
mod travels;

mod link;
mod probe;
mod tls;
mod verifier;
mod watched;

mod addresses;
mod breaker;
mod circuit;
mod health;

mod channel;
mod node;
mod pool;
mod roster;
mod single_flight;

mod auth;
mod call;
mod retry;
mod status;

mod client;
mod exchange;
mod fit;
mod flightsql;
mod messages;
mod reader;
mod session;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use breaker::CircuitState;
pub use channel::Limits;
pub use client::{EndpointHealth, Planned, Upstream, UpstreamHealth};
pub use error::{ErrorKind, Step, UpstreamError};
pub use exchange::{ExchangeMessage, Subscription};
pub(crate) use fit::{Fit, is_same_but_layout};
pub use identity::UpstreamId;
pub use pem::ClientTlsFiles;
pub(crate) use pem::{certificates, private_key, read_pem_file};
pub use pool::{Pool, PoolOptions};
pub use reader::{Passage, Received, RemoteStream};
pub use roster::AddressHealth;
pub use table::RemoteTableName;
pub use target::{Credentials, Flavor, Target};
pub(crate) use tls::{provider, root_store};
