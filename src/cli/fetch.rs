//! One HTTP/1.1 request to a sidecar: what `health` and the demo need, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::place::Place;
use super::reach::ReachArgs;

/// An answer may not be longer than this, in bytes.
const BODY_LEN_MAX: usize = 16 << 20;
/// The header of a bare key.
const API_KEY: &str = "x-api-key";
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Of a URL that names none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// What `Host` says of a socket of this machine.
const LOCAL: HeaderValue = HeaderValue::from_static("localhost");

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends `request`, whose URI is a path, to `place`, and reads the whole answer within `limit`.
///
/// # Errors
/// No connection, no answer in time, or one that is too long.
pub(super) async fn fetch(
    place: &Place,
    reach: &ReachArgs,
    mut request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), Failure> {
    let host = match place {
        Place::Plain(authority) | Place::Tls(authority) => authority.as_str().parse()?,
        Place::Unix(_) => LOCAL,
    };
    request.headers_mut().insert(HOST, host);
    if let Some(key) = reach.api_key() {
        let mut key =
            HeaderValue::from_str(key.expose()).map_err(|_| "the API key cannot stand in a header")?;
        key.set_sensitive(true);
        request.headers_mut().insert(API_KEY, key);
    }
    let answer = async {
        match place {
            Place::Plain(authority) => exchange(tcp(authority, HTTP_PORT).await?, request).await,
            Place::Tls(authority) => exchange(tls(authority, reach).await?, request).await,
            Place::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                exchange(socket.map_err(|error| format!("cannot connect: {error}"))?, request).await
            }
        }
    };
    tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| format!("no answer within {} s", limit.as_secs_f64()))?
}

fn host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

async fn tcp(authority: &Authority, default_port: u16) -> Result<TcpStream, Failure> {
    let port = authority.port_u16().unwrap_or(default_port);
    let connected = TcpStream::connect((host(authority), port)).await;
    Ok(connected.map_err(|error| format!("cannot connect: {error}"))?)
}

async fn tls(authority: &Authority, reach: &ReachArgs) -> Result<TlsStream<TcpStream>, Failure> {
    let config = reach.tls().config(ALPN_HTTP1)?;
    let name = ServerName::try_from(host(authority).to_owned())?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp(authority, HTTPS_PORT).await?);
    let failed = |error| format!("TLS: {error}; the CA of a private certificate is named by --tls-ca FILE");
    Ok(connecting.await.map_err(failed)?)
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Failure> {
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_LEN_MAX).collect().await?.to_bytes();
        Ok::<_, Failure>((status, body))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection ends first when the server closes it right after its answer.
        _ = connection => answer.await,
    }
}
