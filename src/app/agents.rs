//! What agents are told, and from where they may ask: a spicepod enters, the options of the MCP front end leave.

use std::sync::Arc;

use crate::config::{BindAddress, Spicepod};
use crate::serve::mcp::{Descriptions, McpAccess, McpOptions};

/// How MCP is spoken on this HTTP listener.
pub(super) fn mcp_options(spicepod: &Spicepod, listener: &BindAddress) -> McpOptions {
    let runtime = &spicepod.runtime;
    let allowed_origins =
        if runtime.cors.enabled { runtime.cors.allowed_origins.clone() } else { Vec::new() };
    McpOptions {
        access: McpAccess::of(runtime.is_guarded(), listener),
        allowed_hosts: runtime.mcp.allowed_hosts.clone(),
        allowed_origins,
        descriptions: descriptions(spicepod),
    }
}

/// What the spicepod says that its datasets and views hold.
#[must_use]
pub fn descriptions(spicepod: &Spicepod) -> Descriptions {
    let datasets = spicepod.datasets.iter().map(|dataset| (&dataset.name, dataset.description.as_ref()));
    let views = spicepod.views.iter().map(|view| (&view.name, view.description.as_ref()));
    let described = datasets.chain(views).filter_map(|(name, text)| Some((name.to_string(), text?.clone())));
    Arc::new(described.collect())
}
