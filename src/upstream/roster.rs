//! The connections of one endpoint, one an address: a call enters, the connection that it goes by leaves.
//!
//! The first call connects to whichever address answers first; each later one asks for the next address beside it, so
//! that a burst after the start does not wait for all of them. A call goes where the fewest are under way. What the
//! name server no longer names gets no new calls, and its connection ends with the last one that it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::addresses::{Address, Book, Standing};
use super::error::{ErrorKind, Step, UpstreamError};
use super::health::Health;
use super::link::{CONNECT_TIMEOUT, Dialer, Link};
use super::node::{Node, Seat};
use super::single_flight::{Held, SingleFlight};

/// How often one call is handed to a new connection because the one at hand had just ended unused.
pub(super) const HANDOVERS_MAX: usize = 3;
/// When a name server that did not answer is asked again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(2);

pub(super) struct Roster {
    dialer: Arc<Dialer>,
    health: Arc<Health>,
    /// The first connection, which everybody waits for.
    connecting: SingleFlight<()>,
    resolving: SingleFlight<()>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Arc<Node>>,
    /// When the name server is to be asked again.
    fresh_until: Option<Instant>,
    /// Who comes first among equals.
    turn: usize,
}

/// What is shown of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressHealth {
    pub address: String,
    pub is_connected: bool,
    /// For how long it is left alone, after failures.
    pub ejected_for: Option<Duration>,
    /// Calls under way, and open streams.
    pub in_flight: usize,
}

impl Roster {
    pub fn new(dialer: Arc<Dialer>, health: Arc<Health>) -> Self {
        let connecting = SingleFlight::new("upstream-connect", dialer.scope.clone());
        let resolving = SingleFlight::new("upstream-resolve", dialer.scope.clone());
        Self { dialer, health, connecting, resolving, inner: Mutex::default() }
    }

    /// A place for one call, at a node that is connected; it connects where none is.
    pub async fn seat(self: &Arc<Self>) -> Result<Seat, UpstreamError> {
        for _ in 0..=HANDOVERS_MAX {
            if let Some(seat) = self.free_seat() {
                return Ok(seat);
            }
            let roster = Arc::clone(self);
            let connect = || async move { roster.connect(&mut |_, _| {}).await };
            let connected = self.connecting.get(connect).await.unwrap_or_else(|| Err(self.going_down()))?;
            self.connecting.invalidate(connected.generation);
        }
        let message = "the server ends every connection at once";
        Err(UpstreamError::new(ErrorKind::Unavailable, Step::Tcp, &self.dialer.endpoint, message))
    }

    /// Connects to the first address that answers, telling each step.
    pub async fn connect(
        self: &Arc<Self>,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<(), UpstreamError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let addresses = self.addresses(deadline, seen).await?;
        let (address, link) = self.dialer.connect(&addresses, deadline, seen).await.map_err(|failed| {
            self.health.lost(&failed.at, &failed.error);
            failed.error
        })?;
        let node = self.node_of(address);
        self.taken(&node, &link);
        node.link.preset(link);
        Ok(())
    }

    /// Connects in the background, where nobody is connected or connecting: for who would not wait for it.
    pub fn reconnect(self: &Arc<Self>) {
        if !self.connecting.is_empty() {
            return;
        }
        let roster = Arc::clone(self);
        self.dialer.scope.spawn("upstream-reconnect", async move {
            // Failures are counted where they happen.
            let _ = roster.seat().await;
        });
    }

    pub fn is_connected(&self) -> bool {
        self.lock().nodes.iter().any(|node| node.is_connected())
    }

    /// The connection of a node, made again where it has ended.
    pub async fn link(self: &Arc<Self>, node: &Arc<Node>) -> Result<Held<Link>, UpstreamError> {
        loop {
            let (roster, dialed) = (Arc::clone(self), Arc::clone(node));
            let dial = || async move { roster.dial(&dialed).await };
            let held = node.link.get(dial).await.unwrap_or_else(|| Err(self.going_down()))?;
            if !held.value.requests.is_closed() {
                return Ok(held);
            }
            node.link.invalidate(held.generation);
        }
    }

    /// Leaves every connection; calls under way end on theirs.
    pub fn clear(&self) {
        for node in &self.lock().nodes {
            node.link.clear();
        }
    }

    pub fn shown(&self) -> Vec<AddressHealth> {
        let now = Instant::now();
        let nodes = self.lock().nodes.clone();
        let book = self.health.book();
        let shown = |node: &Arc<Node>| AddressHealth {
            address: node.address.to_string(),
            is_connected: node.is_connected(),
            ejected_for: match book.standing(node.address, now) {
                Standing::Ejected(until) => Some(until - now),
                Standing::Well | Standing::Trial => None,
            },
            in_flight: node.in_flight(),
        };
        nodes.iter().map(shown).collect()
    }

    pub fn going_down(&self) -> UpstreamError {
        let message = "sidewing is shutting down";
        UpstreamError::new(ErrorKind::Cancelled, Step::Query, &self.dialer.endpoint, message)
    }

    async fn dial(&self, node: &Arc<Node>) -> Result<Link, UpstreamError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        match self.dialer.connect(&[node.address], deadline, &mut |_, _| {}).await {
            Ok((_, link)) => {
                self.taken(node, &link);
                Ok(link)
            }
            Err(failed) => {
                // Where somebody is connected, one more address that is not there is no trouble of the endpoint's: else
                // the probe of an open circuit would fail by what was only tried beside it.
                match self.is_connected() {
                    true => self.health.leave(&failed.at),
                    false => self.health.lost(&failed.at, &failed.error),
                }
                Err(failed.error)
            }
        }
    }

    fn taken(&self, node: &Arc<Node>, link: &Link) {
        if node.take(link) {
            let endpoint = self.dialer.endpoint.to_string();
            metrics::counter!("upstream_reconnects", "endpoint" => endpoint).increment(1);
        }
    }

    /// The addresses, the best first. Those of before are good enough where the name server does not answer.
    async fn addresses(
        &self,
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<Vec<Address>, UpstreamError> {
        if let Err(error) = self.resolve(deadline, seen).await {
            if self.lock().nodes.is_empty() {
                self.health.lost(&[], &error);
                return Err(error);
            }
            tracing::debug!(%error, "the addresses of before are used");
        }
        Ok(self.health.book().order(Instant::now()))
    }

    async fn resolve(
        &self,
        deadline: Instant,
        seen: &mut (dyn FnMut(Step, String) + Send),
    ) -> Result<(), UpstreamError> {
        match self.dialer.find(deadline, seen).await {
            Ok((addresses, fresh_until)) => {
                self.set(&addresses, fresh_until);
                Ok(())
            }
            Err(error) => {
                self.lock().fresh_until = Some(Instant::now() + RESOLVE_AGAIN);
                Err(error)
            }
        }
    }

    /// Nodes that are no longer named are dropped: who has a seat there keeps its node, and the connection with it.
    fn set(&self, addresses: &[Address], fresh_until: Option<Instant>) {
        let mut inner = self.lock();
        inner.fresh_until = fresh_until;
        inner.nodes.retain(|node| addresses.contains(&node.address));
        for address in addresses {
            if !inner.nodes.iter().any(|node| node.address == *address) {
                inner.nodes.push(Arc::new(Node::new(*address, &self.dialer.scope)));
            }
        }
        self.health.book().set(addresses);
        let endpoint = self.dialer.endpoint.to_string();
        metrics::gauge!("upstream_addresses", "endpoint" => endpoint).set(addresses.len() as f64);
    }

    fn node_of(&self, address: Address) -> Arc<Node> {
        let mut inner = self.lock();
        if let Some(node) = inner.nodes.iter().find(|node| node.address == address) {
            return Arc::clone(node);
        }
        // The name server has changed its mind meanwhile: the next answer drops it again.
        let node = Arc::new(Node::new(address, &self.dialer.scope));
        inner.nodes.push(Arc::clone(&node));
        node
    }

    /// A place at the connected node that has the least to do; `None` where connecting is better.
    fn free_seat(self: &Arc<Self>) -> Option<Seat> {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.fresh_until.is_some_and(|until| until <= now) {
            inner.fresh_until = Some(now + RESOLVE_AGAIN);
            self.refresh();
        }
        let book = self.health.book();
        let node = inner.best(&book, now)?;
        inner.turn = inner.turn.wrapping_add(1);
        let widened = inner.nodes.iter().find(|node| {
            node.link.is_empty() && !matches!(book.standing(node.address, now), Standing::Ejected(_))
        });
        if let Some(widened) = widened {
            self.widen(Arc::clone(widened));
        }
        Some(Seat::new(node, &self.dialer.endpoint))
    }

    /// Connects one more address in the background.
    fn widen(self: &Arc<Self>, node: Arc<Node>) {
        let roster = Arc::clone(self);
        self.dialer.scope.spawn("upstream-widen", async move {
            if let Err(error) = roster.link(&node).await {
                tracing::debug!(%error, "address not connected");
            }
        });
    }

    /// Asks the name server in the background.
    fn refresh(self: &Arc<Self>) {
        let roster = Arc::clone(self);
        self.dialer.scope.spawn("upstream-refresh", async move {
            let (turn, asking) = (Arc::clone(&roster), roster.clone());
            let resolve =
                || async move { asking.resolve(Instant::now() + CONNECT_TIMEOUT, &mut |_, _| {}).await };
            match turn.resolving.get(resolve).await {
                Some(Ok(held)) => turn.resolving.invalidate(held.generation),
                Some(Err(error)) => tracing::debug!(%error, "the addresses of before are used"),
                None => {}
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn best(&self, book: &Book, now: Instant) -> Option<Arc<Node>> {
        let rank = |node: &Node| match book.standing(node.address, now) {
            Standing::Well => 0,
            // One call finds out.
            Standing::Trial if node.in_flight() == 0 => 0,
            Standing::Trial => 1,
            Standing::Ejected(_) => 2,
        };
        let count = self.nodes.len();
        let connected = self.nodes.iter().enumerate().filter(|(_, node)| node.is_connected());
        let (place, _, node) = connected
            .map(|(at, node)| (rank(node), (at + count - self.turn % count) % count, node))
            .min_by_key(|(rank, order, node)| (*rank, node.in_flight(), *order))?;
        let is_better = |node: &Arc<Node>| !node.is_connected() && rank(node) < 2;
        match place == 2 && self.nodes.iter().any(is_better) {
            true => None,
            false => Some(Arc::clone(node)),
        }
    }
}
