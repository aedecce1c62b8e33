//! One address of an upstream: its connection, the token that was given there, and how many calls it has.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::name::EndpointUrl;
use crate::task::Scope;

use super::addresses::Address;
use super::auth::Greeting;
use super::link::Link;
use super::single_flight::SingleFlight;

pub(super) struct Node {
    pub address: Address,
    pub link: SingleFlight<Link>,
    /// Tokens are not asked for at another address than that which gave them.
    pub greeting: SingleFlight<Greeting>,
    in_flight: Arc<AtomicUsize>,
    was_connected: AtomicBool,
    /// Counts calls over all nodes of the endpoint.
    gauge: OnceLock<metrics::Gauge>,
}

impl Node {
    pub fn new(address: Address, scope: &Scope) -> Self {
        Self {
            address,
            link: SingleFlight::new("upstream-connect", scope.clone()),
            greeting: SingleFlight::new("upstream-handshake", scope.clone()),
            in_flight: Arc::default(),
            was_connected: AtomicBool::new(false),
            gauge: OnceLock::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.peek().is_some_and(|link| !link.requests.is_closed())
    }

    /// Calls under way, and streams that are open.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Tells a new connection whose calls it carries; returns whether it is not the node's first.
    pub fn take(&self, link: &Link) -> bool {
        link.notes.carries(Arc::clone(&self.in_flight));
        self.was_connected.swap(true, Ordering::Relaxed)
    }
}

/// A call's place at a node, from its beginning to the end of its stream.
pub(super) struct Seat {
    pub node: Arc<Node>,
}

impl Seat {
    /// A place at a node of `endpoint`.
    pub fn new(node: Arc<Node>, endpoint: &EndpointUrl) -> Self {
        node.in_flight.fetch_add(1, Ordering::Relaxed);
        let gauge = || metrics::gauge!("upstream_in_flight", "endpoint" => endpoint.to_string());
        node.gauge.get_or_init(gauge).increment(1.0);
        Self { node }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauge) = self.node.gauge.get() {
            gauge.decrement(1.0);
        }
    }
}
