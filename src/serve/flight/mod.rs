//! The Flight front end: commands and tickets enter, Arrow messages leave.
//!
//! Takes SQL raw, in Flight SQL's commands and as prepared statements, questions about what there is to ask, and rows by
//! DoPut; refuses the rest in words. Views leave as plain strings and binaries, in promised schemas as in streams: `wire`
//! says why. Beside it on the listener: gRPC's health service and server reflection.

mod actions;
mod bind;
mod calls;
mod command;
mod counted;
mod decode;
mod exchange;
mod handle;
mod health;
mod metadata;
mod outgoing;
mod put;
mod reflection;
mod service;
mod sizes;

use axum::middleware;
use tonic::service::Routes;

use super::Door;
use super::access::{self, Access};
use super::listen::{self, Protocol};
use super::socket::Listener;
use super::tls::ServerTls;
use crate::task::Scope;
use calls::Calls;
use exchange::Exchanges;
use put::Puts;
use service::Service;

/// The largest message that a client may send: a statement, or a batch of rows.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Calls that need no key: Handshake gives a session for one, probes have none.
const OPEN_CALLS: &[&str] = &["/arrow.flight.protocol.FlightService/Handshake", health::CHECK, health::WATCH];

/// How a Flight listener is protected. The default is neither TLS nor keys.
#[derive(Clone, Default)]
pub struct FlightOptions {
    pub tls: Option<ServerTls>,
    /// Who may call.
    pub access: Access,
}

/// Serves Flight until the scope is cancelled and calls in flight have their answers.
pub async fn serve(listener: impl Into<Listener>, door: impl Door, options: FlightOptions, scope: &Scope) {
    let (exchanges, puts) = (Exchanges::new(scope.clone()), Puts::new(scope.clone()));
    let health = health::service(door.clone(), scope.token());
    let service = Service::new(door, options.access.clone(), exchanges, puts);
    let flight = Calls::new(service);
    let mut routes = Routes::builder();
    routes.add_service(flight).add_service(health);
    if let Err(error) = reflection::add(&mut routes) {
        tracing::error!(%error, "server reflection is off: the descriptors do not hang together");
    }
    let router = routes.routes().into_axum_router().layer(middleware::from_fn(reflection::without_end));
    let router = access::guard_calls(router, options.access, OPEN_CALLS);
    listen::serve(listener, Protocol::Grpc, options.tls, router, scope).await;
}

#[cfg(test)]
mod tests;
