//! The messages of one DoGet as they come: a ticket enters, messages leave in the chunks of their connection.
//!
//! Beside tonic's generated client, which copies each message into one buffer and takes a body that breaks off between
//! two messages for a whole one.

use std::pin::Pin;

use arrow_flight::Ticket;
use futures::Stream;
use http::{HeaderValue, Method, Request as HttpRequest, Uri, Version, header};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tower::Service;

use super::channel::Wire;
use crate::wire::{self, CONTENT_TYPE, DO_GET, Message, Messages};

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Messages as they come; ends after the first error. Dropping it cancels the call.
pub(super) type Incoming = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// Calls DoGet; messages are at most `limit` bytes.
///
/// # Errors
/// What the server, or the way to it, says instead of an answer.
pub(super) async fn do_get(
    mut wire: Wire,
    request: Request<Ticket>,
    limit: usize,
) -> Result<Incoming, Status> {
    let response = wire.call(http(request)).await.map_err(|error| Status::from_error(Box::new(error)))?;
    let (head, body) = response.into_parts();
    // An answer without messages says how it ended in its head.
    let is_over = match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => return Err(status),
        told => told.is_some(),
    };
    let reader = Reader { body, messages: Messages::new(limit), is_over };
    Ok(Box::pin(futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(message) => message.map(|message| (Ok(message), Some(reader))),
            Err(status) => Some((Err(status), None)),
        }
    })))
}

fn http(request: Request<Ticket>) -> HttpRequest<Body> {
    let (metadata, _, ticket) = request.into_parts();
    let mut request = HttpRequest::new(Body::new(Full::new(wire::framed(&ticket))));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(DO_GET);
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(header::TE, TRAILERS);
    request.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    request
}

struct Reader {
    body: Body,
    messages: Messages,
    /// The server has said that it went well.
    is_over: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Message>, Status> {
        loop {
            if let Some(message) = self.messages.take()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else { return self.end().map(|()| None) };
            match frame?.into_data() {
                Ok(chunk) => self.messages.push(chunk),
                Err(other) => {
                    if let Some(status) = other.trailers_ref().and_then(Status::from_header_map) {
                        match status.code() {
                            Code::Ok => self.is_over = true,
                            _ => return Err(status),
                        }
                    }
                }
            }
        }
    }

    /// The body has ended: it must have been at its end.
    fn end(&self) -> Result<(), Status> {
        match self.is_over && !self.messages.is_amid() {
            true => Ok(()),
            false => Err(Status::unavailable("the answer broke off before its end")),
        }
    }
}
