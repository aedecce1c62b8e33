//! One plain HTTP/1.1 request to a sidecar: what `health` and the demo need, bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An answer may not be longer than this, in bytes.
const BODY_LEN_MAX: usize = 16 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends `request`, whose URI is absolute, and reads the whole answer within `limit`.
///
/// # Errors
/// No connection, no answer in time, or one that is too long.
pub(super) async fn fetch(
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), Failure> {
    tokio::time::timeout(limit, exchange(request))
        .await
        .map_err(|_| format!("no answer within {} s", limit.as_secs_f64()))?
}

async fn exchange(mut request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
    let uri = request.uri().clone();
    if uri.scheme_str() != Some("http") {
        return Err("only http:// can be asked".into());
    }
    let authority = uri.authority().ok_or("the URL names no host")?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let socket =
        TcpStream::connect((host, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
    request.headers_mut().insert(http::header::HOST, authority.as_str().parse()?);
    *request.uri_mut() = origin_form(&uri)?;
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

fn origin_form(uri: &Uri) -> Result<Uri, Failure> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(path.parse()?)
}
