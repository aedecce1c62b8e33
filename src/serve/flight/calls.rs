//! The Flight service on its listener: DoGet is answered beside tonic's generated code, which copies the body of each
//! message into a buffer of its own; everything else by it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;

use super::REQUEST_BYTES_MAX;
use super::outgoing::GrpcBody;
use super::service::Service;
use crate::serve::Door;
use crate::wire::{CONTENT_TYPE, DO_GET, Messages};

const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";
/// Encodings that answers can have.
const ENCODINGS: [&str; 2] = ["gzip", "zstd"];

/// See the module.
pub(super) struct Calls<D: Door> {
    service: Arc<Service<D>>,
    generated: FlightServiceServer<Service<D>>,
}

impl<D: Door> Calls<D> {
    pub(super) fn new(service: Service<D>) -> Self {
        let service = Arc::new(service);
        let generated = FlightServiceServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd);
        Self { service, generated }
    }
}

impl<D: Door> Clone for Calls<D> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), generated: self.generated.clone() }
    }
}

impl<D: Door> NamedService for Calls<D> {
    const NAME: &'static str = FlightServiceServer::<Service<D>>::NAME;
}

impl<D: Door> tower::Service<Request<Body>> for Calls<D> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let wants_compression = wants_compression(request.headers());
        if !wants_compression {
            request.headers_mut().remove(ACCEPTED);
        }
        let is_plain = !request.headers().contains_key(ENCODING) && !wants_compression;
        match is_plain && request.uri().path() == DO_GET {
            true => {
                let service = Arc::clone(&self.service);
                Box::pin(async move { Ok(do_get(&service, request).await.unwrap_or_else(Status::into_http)) })
            }
            false => tower::Service::call(&mut self.generated, request),
        }
    }
}

/// Whether a client asks for compressed answers: what it names first is what it wants. Most clients say that they could
/// take them, and name `identity` first.
fn wants_compression(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPTED).and_then(|accepted| accepted.to_str().ok());
    let first = accepted.and_then(|accepted| accepted.split(',').next()).map(str::trim);
    first.is_some_and(|first| ENCODINGS.contains(&first))
}

async fn do_get<D: Door>(service: &Service<D>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let ticket = ticket(body).await?;
    let metadata = MetadataMap::from_headers(head.headers);
    let request = tonic::Request::from_parts(metadata, head.extensions, ticket);
    let (metadata, frames, extensions) = service.frames(request).await?.into_parts();
    let mut response = Response::new(Body::new(GrpcBody::new(frames)));
    *response.headers_mut() = metadata.into_headers();
    *response.extensions_mut() = extensions;
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(response)
}

/// The one message of the request.
async fn ticket(mut body: Body) -> Result<Ticket, Status> {
    let mut messages = Messages::new(REQUEST_BYTES_MAX);
    loop {
        if let Some(message) = messages.take()? {
            let wrong = |error| Status::internal(format!("the ticket cannot be decoded: {error}"));
            return Ticket::decode(message.joined()).map_err(wrong);
        }
        match body.frame().await.transpose()?.map(http_body::Frame::into_data) {
            Some(Ok(chunk)) => messages.push(chunk),
            Some(Err(_)) => {}
            None => return Err(Status::internal("the request ended before its ticket")),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_named_first_is_wanted() {
        for (accepted, wanted) in [
            ("gzip", true),
            ("gzip,identity", true),
            ("zstd, gzip", true),
            ("identity,deflate,gzip", false),
            ("identity", false),
            ("deflate,gzip", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static(ACCEPTED),
                HeaderValue::from_static(accepted),
            )]);
            assert_eq!(wants_compression(&headers), wanted, "{accepted}");
        }
        assert!(!wants_compression(&HeaderMap::new()));
    }
}
