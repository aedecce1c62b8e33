//! MCP over the standard streams, for clients that start their server themselves: lines of JSON-RPC enter and leave.

use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use rmcp::transport::async_rw::AsyncRwTransport;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::{Descriptions, MESSAGE_BYTES_MAX};
use crate::query::Principal;
use crate::serve::Door;

/// A conversation that did not begin as MCP does, or broke off.
#[derive(Debug, Error)]
pub enum StdioError {
    #[error("the client does not speak MCP: it has to begin with `initialize` or `server/discover`")]
    Begin,
    #[error("the conversation broke off: {0}")]
    Broken(String),
}

/// Answers the messages on `input` until it ends or `stop` is cancelled. Whoever started the process is its only client.
///
/// # Errors
/// See [`StdioError`]. An end is none.
pub async fn serve_stdio<R, W>(
    door: impl Door,
    descriptions: Descriptions,
    (input, output): (R, W),
    stop: CancellationToken,
) -> Result<(), StdioError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let server = Server { door, principal: Principal::Anonymous, descriptions };
    let transport = AsyncRwTransport::new_server(input, output).with_max_line_length(MESSAGE_BYTES_MAX);
    match serve_server_with_ct(server, transport, stop).await {
        Ok(running) => {
            let ended = running.waiting().await;
            ended.map(drop).map_err(|error| StdioError::Broken(error.to_string()))
        }
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => Err(StdioError::Begin),
        Err(error) => Err(StdioError::Broken(error.to_string())),
    }
}
