//! Clients that open a connection of HTTP/2 and say no more.

use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Connections that are opened at a time.
const TOGETHER: usize = 100;
/// The start of HTTP/2: the preface and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// So many connections, each of which has heard the server's SETTINGS.
pub async fn accepted(address: &str, count: usize) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::with_capacity(count);
    while crowd.len() < count {
        let next = TOGETHER.min(count - crowd.len());
        crowd.extend(try_join_all((0..next).map(|_| one(address))).await?);
    }
    Ok(crowd)
}

async fn one(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(HTTP2).await?;
    stream.read_exact(&mut [0; 9]).await?;
    Ok(stream)
}
