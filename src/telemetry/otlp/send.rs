//! One request: a message enters, and whether the collector took it leaves.

use std::error::Error;

use ::http::header::CONTENT_TYPE;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::connect::Connector;
use super::{Otlp, OtlpError, OtlpProtocol};

/// Of a refusal this much is read.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Connections are kept between requests, and made anew when they have ended.
pub(super) struct Sender {
    endpoint: Uri,
    headers: HeaderMap,
    wire: Wire,
}

enum Wire {
    Grpc(Client<Connector, tonic::body::Body>),
    Http(Client<Connector, Full<Bytes>>),
}

impl Sender {
    /// # Errors
    /// [`OtlpError::Roots`].
    pub fn try_new(otlp: &Otlp) -> Result<Self, OtlpError> {
        let wire = match otlp.protocol {
            OtlpProtocol::Grpc => {
                let connector = Connector::try_new(&otlp.endpoint, b"h2")?;
                Wire::Grpc(Client::builder(TokioExecutor::new()).http2_only(true).build(connector))
            }
            OtlpProtocol::Http => {
                let connector = Connector::try_new(&otlp.endpoint, b"http/1.1")?;
                Wire::Http(Client::builder(TokioExecutor::new()).build(connector))
            }
        };
        Ok(Self { endpoint: otlp.endpoint.clone(), headers: otlp.headers.clone(), wire })
    }

    pub async fn spans(&self, request: &ExportTraceServiceRequest) -> Result<(), OtlpError> {
        match &self.wire {
            Wire::Grpc(client) => {
                let mut client = TraceServiceClient::with_origin(client.clone(), self.endpoint.clone());
                let sent = client.export(self.grpc(request.clone())).await;
                sent.map(|_| ()).map_err(|status| self.status(&status))
            }
            Wire::Http(client) => self.post(client, "v1/traces", request).await,
        }
    }

    pub async fn numbers(&self, request: &ExportMetricsServiceRequest) -> Result<(), OtlpError> {
        match &self.wire {
            Wire::Grpc(client) => {
                let mut client = MetricsServiceClient::with_origin(client.clone(), self.endpoint.clone());
                let sent = client.export(self.grpc(request.clone())).await;
                sent.map(|_| ()).map_err(|status| self.status(&status))
            }
            Wire::Http(client) => self.post(client, "v1/metrics", request).await,
        }
    }

    fn grpc<T>(&self, message: T) -> tonic::Request<T> {
        let metadata = MetadataMap::from_headers(self.headers.clone());
        tonic::Request::from_parts(metadata, ::http::Extensions::new(), message)
    }

    async fn post(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        path: &str,
        message: &impl Message,
    ) -> Result<(), OtlpError> {
        let mut request = Request::post(self.below(path)?)
            .body(Full::from(message.encode_to_vec()))
            .map_err(|error| self.unreachable(&error))?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let response = client.request(request).await.map_err(|error| self.unreachable(&error))?;
        let (head, body) = response.into_parts();
        // Read to its end, so that the connection can be used again.
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes());
        if head.status.is_success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
        let printable: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
        let reason = format!("{} {printable}", head.status).trim_end().to_owned();
        Err(self.refused(reason, is_passing(head.status)))
    }

    /// A path below the endpoint's own.
    fn below(&self, path: &str) -> Result<Uri, OtlpError> {
        let mut parts = self.endpoint.clone().into_parts();
        let base = self.endpoint.path().trim_end_matches('/');
        let path = format!("{base}/{path}").parse::<PathAndQuery>();
        parts.path_and_query = Some(path.map_err(|error| self.unreachable(&error))?);
        Uri::from_parts(parts).map_err(|error| self.unreachable(&error))
    }

    fn status(&self, status: &Status) -> OtlpError {
        match status.source() {
            Some(source) => self.unreachable(source),
            None => self.refused(status.message().to_owned(), is_passing_code(status.code())),
        }
    }

    fn refused(&self, reason: String, may_pass: bool) -> OtlpError {
        OtlpError::Refused { endpoint: self.endpoint.to_string(), reason, may_pass }
    }

    fn unreachable(&self, error: &dyn Error) -> OtlpError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        OtlpError::Unreachable { endpoint: self.endpoint.to_string(), reason }
    }
}

/// What the OTLP specification calls retryable.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}

fn is_passing_code(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}
