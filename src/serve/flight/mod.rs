//! The Flight front end: commands and tickets enter, Arrow messages leave.
//!
//! Takes raw SQL bytes and Flight SQL's CommandStatementQuery, and rows by DoPut; refuses the rest in words. Views leave as
//! plain strings and binaries, in promised schemas as in streams: `wire` says why.

mod auth;
mod command;
mod encode;
mod exchange;
mod put;
mod service;
mod wire;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tonic::codec::CompressionEncoding;

use super::Door;
use super::listen::{self, Protocol};
use crate::secrets::Secret;
use crate::task::Scope;
use auth::Guard;
use exchange::Exchanges;
use put::Puts;
use service::Service;

/// The largest message that a client may send: a statement, or a batch of rows.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a Flight listener is protected. The default is neither TLS nor keys.
#[derive(Clone, Default)]
pub struct FlightOptions {
    /// Certificates; its ALPN protocols must hold `h2`.
    pub tls: Option<Arc<ServerConfig>>,
    /// With any, Handshake checks the Basic password against them and every other call needs a key or
    /// a session token as bearer.
    pub api_keys: Vec<Secret>,
}

/// Serves Flight until the scope is cancelled and calls in flight have their answers.
pub async fn serve(listener: TcpListener, door: impl Door, options: FlightOptions, scope: &Scope) {
    let (exchanges, puts) = (Exchanges::new(scope.clone()), Puts::new(scope.clone()));
    let service = Service::new(door, Guard::new(options.api_keys), exchanges, puts);
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd);
    listen::serve(listener, Protocol::Grpc, options.tls, service, scope).await;
}

#[cfg(test)]
mod tests;
