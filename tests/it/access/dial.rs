//! Connections by hand: over TCP, TLS or a socket; one HTTP request, or a Flight client, on each.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::support::pki::{Identity, roots};

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a listener is reached.
#[derive(Clone)]
pub enum Dial {
    Plain(String),
    Tls(String, Arc<ClientConfig>),
    Unix(PathBuf),
}

/// An answer, its gRPC status included, wherever that stood.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub grpc_status: Option<String>,
    pub headers: HeaderMap,
    pub body: String,
}

/// A client's config that trusts `ca` (PEM), shows `identity`, and offers `alpn`.
pub fn client_config(ca: &str, identity: Option<&Identity>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes());
            let chain: Result<Vec<_>, _> = chain.collect();
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.unwrap(), key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

impl Dial {
    pub async fn connect(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Plain(address) => Ok(Box::new(TcpStream::connect(address).await?)),
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tls(address, config) => Ok(Box::new(tls(address, config).await?)),
        }
    }

    /// One request over HTTP/2 with prior knowledge, on a connection of its own.
    pub async fn ask(&self, method: Method, path: &str, headers: HeaderMap, body: &str) -> io::Result<Got> {
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, self.exchange(method, path, headers, body)).await;
        answer.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, path.to_owned()))?
    }

    async fn exchange(&self, method: Method, path: &str, headers: HeaderMap, body: &str) -> io::Result<Got> {
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
        *request.headers_mut() = headers;
        let answer = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let (parts, body) = response.into_parts();
            let collected = body.collect().await.map_err(io::Error::other)?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status"));
            let grpc_status = status.map(|status| status.to_str().unwrap().to_owned());
            let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
            Ok(Got { status: parts.status.as_u16(), grpc_status, headers: parts.headers, body })
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                Err(error) => Err(io::Error::other(error)),
                Ok(()) => answer.await,
            },
        }
    }

    /// A Flight client; it connects at its first call.
    pub fn flight(&self) -> FlightServiceClient<Channel> {
        let dial = self.clone();
        let connector = tower::service_fn(move |_| {
            let dial = dial.clone();
            async move { dial.connect().await.map(TokioIo::new) }
        });
        FlightServiceClient::new(
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector),
        )
    }
}

/// A TLS connection to `address`, whose certificate is for `localhost`.
pub async fn tls(
    address: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, TcpStream::connect(address).await?).await
}
