//! The messages of a stream that a client sends, as schemas and batches: bounded in what they unpack to. Bytes come from
//! outside: whatever they are, they end as Arrow data or as an error.

use std::panic::AssertUnwindSafe;

use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{FutureExt, Stream, StreamExt};
use tonic::{Code, Status};

use super::sizes::Unpacked;
use crate::serve::status;

/// See the module.
pub(super) struct Decoder(FlightDataDecoder);

/// Why no more comes.
#[derive(Debug)]
pub(super) enum Broken {
    /// What came cannot be taken. The client is there, and is told.
    Refused(Status),
    /// The client is gone.
    Gone(Status),
}

impl Decoder {
    pub(super) fn new(messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Self {
        let mut unpacked = Unpacked::default();
        let counted = messages.filter_map(move |message| {
            let counted = match message {
                // Metadata alone, or a descriptor.
                Ok(message) if message.data_header.is_empty() && message.data_body.is_empty() => None,
                Ok(message) => {
                    Some(unpacked.count(&message).map(|()| message).map_err(FlightError::DecodeError))
                }
                Err(status) => Some(Err(FlightError::from(status))),
            };
            std::future::ready(counted)
        });
        Self(FlightDataDecoder::new(counted))
    }

    /// What the next message holds; none at the end.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(super) async fn next(&mut self) -> Result<Option<DecodedPayload>, Broken> {
        match AssertUnwindSafe(self.0.next()).catch_unwind().await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(message))) => Ok(Some(message.payload)),
            Ok(Some(Err(FlightError::Tonic(status)))) => Err(broken(*status)),
            Ok(Some(Err(error))) => Err(refused(&format!("the stream cannot be read: {error}"))),
            Err(_) => Err(refused("the stream cannot be read: a message is malformed")),
        }
    }
}

/// What panics over bytes from outside is an error like any other.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err("the message is malformed".to_owned()))
}

pub(super) fn refused(message: &str) -> Broken {
    Broken::Refused(status::told(Code::InvalidArgument, message.to_owned()))
}

/// A failure of the transport. A message that is too large was sent by somebody who is still there.
pub(super) fn broken(status: Status) -> Broken {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            let text = format!("{}; send smaller batches", status.message());
            Broken::Refused(Status::new(Code::ResourceExhausted, text))
        }
        _ => Broken::Gone(status),
    }
}

impl Broken {
    pub(super) fn status(self) -> Status {
        match self {
            Self::Refused(status) | Self::Gone(status) => status,
        }
    }
}
