//! The door to secret stores behind a network: a request enters, its whole answer leaves, or words that hold neither.
//!
//! One connection for each request: a store is asked once a minute, and so meets every new address, token and CA without
//! being told. The file of a CA is read each time. The clients of AWS and Azure send through here too, so that every
//! answer is bounded, every step has a time-out, and all TLS of the process is the same. Redirects are not followed: they
//! would carry a token to another host. No proxy is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::file;
use crate::task;

use super::store::BYTES_MAX;

/// One request with its answer.
pub(super) const CALL_MAX: Duration = Duration::from_secs(5);

/// How a TCP connection comes about, all addresses of a host together.
const CONNECT_MAX: Duration = Duration::from_secs(3);

const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// Sends requests, trusting one CA or those of the machine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Https {
    ca_file: Option<PathBuf>,
    /// The machine's own, read once.
    system: Arc<tokio::sync::OnceCell<Arc<ClientConfig>>>,
}

/// Why there is no answer. Names hosts and files, never what was sent or received.
#[derive(Debug, Error)]
pub(super) enum HttpsError {
    #[error("`{0}` is no address: expected https://host:port")]
    Address(String),
    #[error("{target}: the name cannot be resolved: {source}")]
    Resolve { target: String, source: std::io::Error },
    #[error("{target}: cannot connect: {source}")]
    Connect { target: String, source: std::io::Error },
    #[error("{target}: no answer within {} s", .limit.as_secs_f32())]
    TimedOut { target: String, limit: Duration },
    #[error("{target}: the TLS handshake failed: {source}")]
    Tls { target: String, source: std::io::Error },
    #[error("the CA file {}: {why}", .path.display())]
    Ca { path: PathBuf, why: String },
    #[error("{target}: the connection broke: {source}")]
    Broken { target: String, source: hyper::Error },
    #[error("{target}: the answer is larger than {BYTES_MAX} bytes")]
    TooLarge { target: String },
    #[error("{target}: the answer broke off")]
    BrokeOff { target: String },
    #[error("{0}")]
    Internal(String),
}

impl HttpsError {
    /// What to do; `ca_param` is the param that names a CA.
    pub(super) fn help(&self, ca_param: &str) -> String {
        match self {
            Self::Address(_) => "write the address with its scheme, as https://host:port".to_owned(),
            Self::Tls { .. } => {
                format!("set `{ca_param}` to the PEM file of the CA that signed the server's certificate")
            }
            Self::Ca { .. } => format!("check the file that `{ca_param}` names"),
            Self::TooLarge { .. } => "keep less in this secret".to_owned(),
            _ => "check the address, and that this machine may reach it".to_owned(),
        }
    }
}

/// Where a request goes.
struct Target {
    host: String,
    port: u16,
    is_tls: bool,
    /// `host:port`, for messages and for the header.
    shown: String,
}

impl Https {
    /// Trusts the CA in `ca_file` alone, or the machine's.
    pub(super) fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, system: Arc::default() }
    }

    /// Sends a request to the scheme, host and port of its URI.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        self.send_within(request, CALL_MAX).await
    }

    /// The same within `limit`, where that is shorter.
    pub(super) async fn send_within(
        &self,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, HttpsError> {
        let target = Target::of(request.uri())?;
        let limit = limit.min(CALL_MAX);
        let late = HttpsError::TimedOut { target: target.shown.clone(), limit };
        tokio::time::timeout(limit, self.exchange(request, target)).await.unwrap_or(Err(late))
    }

    async fn exchange(&self, request: Request<Bytes>, target: Target) -> Result<Response<Bytes>, HttpsError> {
        let stream = connect(&target).await?;
        if !target.is_tls {
            return converse(stream, request, &target.shown).await;
        }
        let config = self.client_config().await?;
        let failed = |source| HttpsError::Tls { target: target.shown.clone(), source };
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| HttpsError::Address(target.shown.clone()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
        converse(stream, request, &target.shown).await
    }

    async fn client_config(&self) -> Result<Arc<ClientConfig>, HttpsError> {
        let internal = |error: task::BlockingError| HttpsError::Internal(error.to_string());
        match self.ca_file.clone() {
            Some(path) => task::blocking("a CA file", move || trusting(path)).await.map_err(internal)?,
            None => {
                let made = self.system.get_or_try_init(|| async {
                    let roots =
                        task::blocking("system certificates", system_roots).await.map_err(internal)?;
                    client_config(roots).map_err(HttpsError::Internal)
                });
                made.await.cloned()
            }
        }
    }
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, HttpsError> {
        let bad = || HttpsError::Address(uri.authority().map(ToString::to_string).unwrap_or_default());
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let host = uri.host().ok_or_else(bad)?;
        let port = uri.port_u16().unwrap_or(if is_tls { HTTPS_PORT } else { HTTP_PORT });
        let shown = format!("{host}:{port}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, is_tls, shown })
    }
}

async fn connect(target: &Target) -> Result<TcpStream, HttpsError> {
    let shown = || target.shown.clone();
    // A name below `localhost` is this machine, whatever the resolver says (RFC 6761).
    let host = if target.host.ends_with(".localhost") { "localhost" } else { target.host.as_str() };
    let dial = async {
        let found = tokio::net::lookup_host((host, target.port)).await;
        let addresses: Vec<_> =
            found.map_err(|source| HttpsError::Resolve { target: shown(), source })?.collect();
        let connected = TcpStream::connect(addresses.as_slice()).await;
        connected.map_err(|source| HttpsError::Connect { target: shown(), source })
    };
    let late = HttpsError::TimedOut { target: shown(), limit: CONNECT_MAX };
    tokio::time::timeout(CONNECT_MAX, dial).await.unwrap_or(Err(late))
}

/// Sends the request on a fresh connection, reads the answer and hangs up.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Bytes>,
    target: &str,
) -> Result<Response<Bytes>, HttpsError> {
    let broken = |source| HttpsError::Broken { target: target.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = in_origin_form(request, target)?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            let target = target.to_owned();
            match error.is::<LengthLimitError>() {
                true => HttpsError::TooLarge { target },
                false => HttpsError::BrokeOff { target },
            }
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What arrived before the connection ended is still read.
        _ = connection => exchange.await,
    }
}

/// The request as HTTP/1.1 wants it: a path, and the host in a header.
fn in_origin_form(mut request: Request<Bytes>, target: &str) -> Result<Request<Full<Bytes>>, HttpsError> {
    let bad = || HttpsError::Address(target.to_owned());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| bad())?;
    if !request.headers().contains_key(HOST) {
        request.headers_mut().insert(HOST, HeaderValue::from_str(target).map_err(|_| bad())?);
    }
    Ok(request.map(Full::new))
}

fn trusting(path: PathBuf) -> Result<Arc<ClientConfig>, HttpsError> {
    let failed = |why: String| HttpsError::Ca { path: path.clone(), why };
    let text = file::read(&path, BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    client_config(roots).map_err(failed)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::task::Scope;

    /// A server that reads a request's head, sends `answer` and hangs up.
    async fn server(answer: Vec<u8>) -> (String, Scope) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, scope) = (listener.local_addr().unwrap(), Scope::new());
        scope.spawn("server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        (format!("http://{address}/x?y=1"), scope)
    }

    async fn answer(bytes: &[u8]) -> Result<Response<Bytes>, HttpsError> {
        let (url, _scope) = server(bytes.to_vec()).await;
        Https::new(None).send(Request::get(url).body(Bytes::new()).unwrap()).await
    }

    #[tokio::test]
    async fn answers_are_whole_or_an_error() {
        let good = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        assert_eq!((good.status().as_u16(), good.body().as_ref()), (200, &b"ok"[..]));
        let until_end = answer(b"HTTP/1.1 403 No\r\n\r\nno").await.unwrap();
        assert_eq!((until_end.status().as_u16(), until_end.body().as_ref()), (403, &b"no"[..]));
        let short = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok").await;
        assert!(matches!(short, Err(HttpsError::BrokeOff { .. })), "{short:?}");
        let none = answer(b"").await;
        assert!(matches!(none, Err(HttpsError::Broken { .. })), "{none:?}");
        let mut large = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        large.resize(large.len() + (1 << 20) + 1, b'x');
        let large = answer(&large).await;
        assert!(matches!(large, Err(HttpsError::TooLarge { .. })), "{large:?}");
    }

    #[tokio::test]
    async fn what_is_no_address_is_said() {
        for url in ["ftp://h/x", "/x", "h:1"] {
            let sent = Https::new(None).send(Request::get(url).body(Bytes::new()).unwrap()).await;
            assert!(matches!(sent, Err(HttpsError::Address(_))), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let request = Request::get(url).body(Bytes::new()).unwrap();
        let sent = Https::new(None).send_within(request, Duration::from_millis(50)).await;
        assert!(matches!(sent, Err(HttpsError::TimedOut { .. })), "{sent:?}");
    }
}
