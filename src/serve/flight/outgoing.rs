//! An answer of DoGet on its way out: parts enter, the chunks of a gRPC body leave. The bodies of messages are not
//! copied, neither those that were encoded here nor those that are handed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt};
use http::HeaderMap;
use http_body::Frame as BodyFrame;
use tonic::Status;

use super::service::refusal;
use crate::query::{Answer, Parts};
use crate::wire::{Encoder, Frame, Part};

/// Smaller chunks travel together.
const CHUNK_BYTES: usize = 16 << 10;

/// Messages, made only as fast as they are taken.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// The messages of an answer: its schema, then its rows.
pub(super) fn frames(answer: Answer) -> Frames {
    let encoder = Encoder::new(answer.schema);
    let outgoing = Outgoing { parts: answer.parts, encoder };
    let frames = stream::try_unfold(outgoing, |mut outgoing| async move {
        Ok(outgoing.next().await?.map(|frame| (frame, outgoing)))
    });
    frames.boxed()
}

struct Outgoing {
    parts: Parts,
    encoder: Encoder,
}

impl Outgoing {
    async fn next(&mut self) -> Result<Option<Frame>, Status> {
        let broken = |error| Status::internal(format!("the answer cannot be encoded: {error}"));
        loop {
            if let Some((message, rows)) = self.encoder.take_counted().map_err(broken)? {
                return Ok(Some(Frame::encoded(&message, rows)));
            }
            match self.parts.next().await.transpose().map_err(refusal)? {
                Some(Part::Batch(batch)) => self.encoder.feed(batch).map_err(broken)?,
                Some(Part::Frame(frame)) => return Ok(Some(frame)),
                None => return Ok(None),
            }
        }
    }
}

/// The messages as the body of a response, and how it went as its trailers.
pub(super) struct GrpcBody {
    /// None after the end.
    frames: Option<Frames>,
    chunks: VecDeque<Bytes>,
    /// Bytes of the chunks.
    held: usize,
    /// After the last chunk.
    trailers: Option<HeaderMap>,
}

impl GrpcBody {
    pub(super) fn new(frames: Frames) -> Self {
        Self { frames: Some(frames), chunks: VecDeque::new(), held: 0, trailers: None }
    }

    /// Takes what is ready, as long as it is little: a short answer travels in one piece.
    fn fill(&mut self, cx: &mut Context<'_>) {
        while self.held < CHUNK_BYTES {
            let Some(frames) = &mut self.frames else { return };
            match frames.as_mut().poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => {
                    let chunks = frame.into_chunks();
                    self.held += chunks.iter().map(Bytes::len).sum::<usize>();
                    self.chunks.extend(chunks);
                }
                Poll::Ready(end) => {
                    let status = end.and_then(Result::err).unwrap_or_else(|| Status::ok(""));
                    self.trailers = Some(trailers(&status));
                    self.frames = None;
                }
            }
        }
    }

    /// The next chunk of what is here, small ones together.
    fn chunk(&mut self) -> Option<Bytes> {
        let first = self.chunks.pop_front()?;
        let fits = |bytes: usize, next: &mut Bytes| bytes + next.len() <= CHUNK_BYTES;
        let chunk = match self.chunks.pop_front_if(|next| fits(first.len(), next)) {
            None => first,
            Some(second) => {
                let mut together = BytesMut::with_capacity(self.held.min(CHUNK_BYTES));
                together.extend_from_slice(&first);
                together.extend_from_slice(&second);
                while let Some(next) = self.chunks.pop_front_if(|next| fits(together.len(), next)) {
                    together.extend_from_slice(&next);
                }
                together.freeze()
            }
        };
        self.held -= chunk.len();
        Some(chunk)
    }
}

impl http_body::Body for GrpcBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        self.fill(cx);
        if let Some(chunk) = self.chunk() {
            return Poll::Ready(Some(Ok(BodyFrame::data(chunk))));
        }
        match (self.trailers.take(), &self.frames) {
            (Some(trailers), _) => Poll::Ready(Some(Ok(BodyFrame::trailers(trailers)))),
            (None, None) => Poll::Ready(None),
            (None, Some(_)) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none() && self.chunks.is_empty() && self.trailers.is_none()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its words cannot stand in a header.
        let plain = Status::new(status.code(), "the words of this error cannot be sent");
        let _ = plain.add_header(&mut trailers);
    }
    trailers
}
