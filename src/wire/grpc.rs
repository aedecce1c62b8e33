//! The messages of a gRPC body: its chunks enter as they arrive, whole messages leave as the same chunks, cut where
//! messages begin and never copied.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use http::HeaderValue;
use thiserror::Error;
use tonic::{Code, Status};

/// The path of DoGet.
pub const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// A flag, and a length of four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

/// Chunks below this size, in bytes, are put together when so many of them stand in a row: a body that comes byte by byte
/// would take many times its size.
const SMALL_BYTES: usize = 1 << 10;
const SMALL_MAX: usize = 64;

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    // The words are those of tonic: others know errors by them.
    #[error("Error, decoded message length too large: found {bytes} bytes, the limit is: {limit} bytes")]
    TooLarge { bytes: usize, limit: usize },
    #[error("protocol error: received message with compressed-flag but no grpc-encoding was specified")]
    Compressed,
    #[error("protocol error: received message with invalid compression flag: {0} (valid flags are 0 and 1)")]
    Flag(u8),
}

impl From<Unreadable> for Status {
    fn from(error: Unreadable) -> Self {
        let code = match error {
            Unreadable::TooLarge { .. } => Code::OutOfRange,
            Unreadable::Compressed | Unreadable::Flag(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// One message with its prefix, in the chunks that it came in.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) chunks: Vec<Bytes>,
    /// Without the prefix.
    pub(super) bytes: usize,
}

/// See the module. Holds what has come of a message that is not whole.
#[derive(Debug)]
pub struct Messages {
    limit: usize,
    chunks: VecDeque<Bytes>,
    held: usize,
    /// How many small chunks came last.
    small: usize,
}

impl Messages {
    /// Messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, chunks: VecDeque::new(), held: 0, small: 0 }
    }

    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.held += chunk.len();
        self.small = if chunk.len() < SMALL_BYTES { self.small + 1 } else { 0 };
        self.chunks.push_back(chunk);
        if self.small == SMALL_MAX {
            let together = self.chunks.split_off(self.chunks.len() - SMALL_MAX);
            self.chunks.push_back(together.iter().flatten().copied().collect::<Vec<u8>>().into());
            self.small = 0;
        }
    }

    /// The next message, when all of it is here.
    ///
    /// # Errors
    /// See [`Unreadable`]; the body is of no use any more.
    pub fn take(&mut self) -> Result<Option<Message>, Unreadable> {
        let Some([flag, length @ ..]) = self.prefix() else { return Ok(None) };
        match flag {
            0 => {}
            1 => return Err(Unreadable::Compressed),
            other => return Err(Unreadable::Flag(other)),
        }
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > self.limit {
            return Err(Unreadable::TooLarge { bytes, limit: self.limit });
        }
        if self.held < PREFIX_BYTES + bytes {
            return Ok(None);
        }
        Ok(Some(Message { chunks: self.cut(PREFIX_BYTES + bytes), bytes }))
    }

    /// Whether a part of a message is held: the body may not end here.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.held > 0
    }

    fn prefix(&self) -> Option<[u8; PREFIX_BYTES]> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut bytes = self.chunks.iter().flat_map(|chunk| chunk.iter().take(PREFIX_BYTES));
        for place in &mut prefix {
            *place = *bytes.next()?;
        }
        Some(prefix)
    }

    /// The first `bytes`, which are there.
    fn cut(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut taken = Vec::with_capacity(self.chunks.len());
        let mut left = bytes;
        while left > 0 {
            let Some(mut chunk) = self.chunks.pop_front() else { break };
            if chunk.len() > left {
                let rest = chunk.split_off(left);
                self.chunks.push_front(rest);
            }
            left -= chunk.len();
            taken.push(chunk);
        }
        self.held -= bytes;
        self.small = self.small.min(self.chunks.len());
        taken
    }
}

impl Message {
    /// A message of one chunk, as an answer that was collected holds it.
    #[must_use]
    pub fn in_one_piece(&self) -> Self {
        let mut whole = Vec::with_capacity(PREFIX_BYTES + self.bytes);
        self.chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        Self { chunks: vec![whole.into()], bytes: self.bytes }
    }

    /// The message without its prefix, in one piece.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        let mut chunks = self.payload();
        match (chunks.next(), chunks.next()) {
            (None, _) => Bytes::new(),
            (Some(one), None) => one,
            (Some(one), Some(two)) => {
                let rest = chunks.flatten();
                one.into_iter().chain(two).chain(rest).collect::<Vec<u8>>().into()
            }
        }
    }

    /// The chunks of the message, without its prefix.
    pub(super) fn payload(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut prefix = PREFIX_BYTES;
        self.chunks.iter().filter_map(move |chunk| {
            let mut chunk = chunk.clone();
            let skipped = prefix.min(chunk.len());
            chunk.advance(skipped);
            prefix -= skipped;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

/// A body of one message.
#[must_use]
pub fn framed(message: &impl prost::Message) -> Bytes {
    let mut body = prefix(message.encoded_len()).to_vec();
    // A vector has room.
    let _ = message.encode(&mut body);
    body.into()
}

/// The prefix of a message of so many bytes.
pub(super) fn prefix(bytes: usize) -> [u8; PREFIX_BYTES] {
    // Nobody makes larger ones: a body is below 2 GiB.
    let [a, b, c, d] = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|message| [&prefix(message.len())[..], message].concat()).collect()
    }

    #[test]
    fn what_is_no_message_is_told() {
        let mut messages = Messages::new(4);
        messages.push(Bytes::from_static(&[0, 0, 0, 0]));
        assert!(messages.take().unwrap().is_none() && messages.is_amid());
        messages.push(Bytes::from_static(&[5]));
        assert_eq!(messages.take().unwrap_err(), Unreadable::TooLarge { bytes: 5, limit: 4 });
        for (first, error) in [(1, Unreadable::Compressed), (60, Unreadable::Flag(60))] {
            let mut messages = Messages::new(4);
            messages.push(vec![first, 0, 0, 0, 0].into());
            assert_eq!(messages.take().unwrap_err(), error);
        }
    }

    #[test]
    fn a_body_that_comes_byte_by_byte_is_put_together() {
        let sent: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        let mut messages = Messages::new(sent.len());
        for byte in body(std::slice::from_ref(&sent)) {
            messages.push(vec![byte].into());
        }
        assert!(messages.chunks.len() < sent.len() / 32, "{} chunks", messages.chunks.len());
        let message = messages.take().unwrap().unwrap();
        assert_eq!(message.payload().flatten().collect::<Vec<u8>>(), sent);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However a body is cut, its messages are the same, and their chunks are those that came.
        #[test]
        fn messages_do_not_depend_on_chunks(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let all = Bytes::from(body(&sent));
            let (mut messages, mut read, mut at) = (Messages::new(40), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(all.len());
                messages.push(all.slice(at..end));
                at = end;
                while let Some(message) = messages.take().unwrap() {
                    for chunk in &message.chunks {
                        prop_assert!(all.as_ptr_range().contains(&chunk.as_ptr()));
                    }
                    prop_assert_eq!(&message.in_one_piece().chunks[0][PREFIX_BYTES..], &message.payload().flatten().collect::<Vec<_>>()[..]);
                    read.push(message.payload().flatten().collect::<Vec<u8>>());
                }
                if at == all.len() {
                    break;
                }
            }
            prop_assert_eq!(read, sent);
            prop_assert!(!messages.is_amid());
        }
    }
}
