//! The MCP front end: an agent's JSON-RPC enters over HTTP or standard input, rows and states leave as JSON.
//!
//! What is spoken is rmcp's: both eras of the protocol, with sessions (2025) and without (2026). Here stands who may
//! speak it, which tools there are, and what they answer. Nothing is ever written.

mod refusal;

mod sessions;

mod failure;
mod names;
mod rows;
mod tools;

mod resources;
mod server;

mod http;
mod stdio;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::BindAddress;

pub(super) use http::route;
pub use stdio::{StdioError, serve_stdio};

/// The largest message of a client, over HTTP and standard input alike: the longest statement fits.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What the datasets and views hold, in the spicepod's words, by the names that are shown of them.
pub type Descriptions = Arc<BTreeMap<String, String>>;

/// Whether MCP is spoken over HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum McpAccess {
    On,
    /// Others than this machine can connect, and nobody has to show a key.
    #[default]
    Off,
}

impl McpAccess {
    /// On where nobody unknown asks: keys guard the listener, or only this machine reaches it.
    #[must_use]
    pub fn of(is_guarded: bool, listener: &BindAddress) -> Self {
        match is_guarded || listener.is_local() {
            true => Self::On,
            false => Self::Off,
        }
    }
}

/// How MCP is spoken over HTTP. The default is not at all.
#[derive(Debug, Clone, Default)]
pub struct McpOptions {
    pub access: McpAccess,
    /// Hosts by which clients may call this server, beside those of loopback: `name` or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call it, beside its own: `https://name`, or `*`.
    pub allowed_origins: Vec<String>,
    pub descriptions: Descriptions,
}

#[cfg(test)]
mod tests;
