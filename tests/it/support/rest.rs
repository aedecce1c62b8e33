//! An HTTPS server whose answers the test writes: requests enter a closure, statuses and JSON leave.
//!
//! It stands where a real server cannot be had, and speaks only what the test says that the real one documents.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sidewing::task::Scope;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::pki::ServerTls;

/// What was asked.
pub struct Asked {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

/// What is answered: a status and a body, and a header where there is one.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub header: Option<(&'static str, String)>,
}

/// A running server; it ends with its owner.
pub struct Rest {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    scope: Scope,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

pub fn answer(status: u16, body: Value) -> Answer {
    Answer { status, body, header: None }
}

impl Rest {
    /// Listens on 127.0.0.1 and answers with `answers`.
    pub async fn start(tls: &ServerTls, answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mut config = (*tls.server_config()).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (asked, answers, scope) = (Arc::default(), Arc::new(answers), Scope::new());
        let (heard, connections) = (Arc::clone(&asked), scope.clone());
        scope.spawn("rest server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, heard, answers) = (acceptor.clone(), Arc::clone(&heard), Arc::clone(&answers));
                connections.spawn("rest connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service =
                        service_fn(move |request| serve(request, Arc::clone(&heard), Arc::clone(&answers)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, asked, scope }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `GET /path` of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often that was asked.
    pub fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == what).count()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

async fn serve<F>(
    request: http::Request<hyper::body::Incoming>,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Arc<F>,
) -> Result<http::Response<Full<Bytes>>, hyper::Error>
where
    F: Fn(&Asked) -> Answer,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    heard.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {}", asked.method, asked.path));
    let Answer { status, body, header } = answers(&asked);
    let mut response = http::Response::builder().status(status).header("content-type", "application/json");
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body.to_string())).expect("a response"))
}
