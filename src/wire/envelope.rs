//! The protobuf fields of a FlightData message, found in the chunks that it came in: its header is small and read, its
//! body is only counted.

use arrow_flight::FlightData;
use bytes::{Buf, Bytes};
use thiserror::Error;

use super::grpc::Message;

/// Numbers of the fields of FlightData (Flight.proto).
const DESCRIPTOR: u64 = 1;
const HEADER: u64 = 2;
const METADATA: u64 = 3;
const BODY: u64 = 1000;
/// The wire types of protobuf.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const DELIMITED: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The message is no FlightData.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message of DoGet is no FlightData")]
pub struct Malformed;

/// What a message holds, without the bytes of its body.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// The Arrow message.
    pub header: Bytes,
    pub metadata: Bytes,
    /// The chunks of the body.
    pub body: Vec<Bytes>,
    pub has_descriptor: bool,
}

impl Envelope {
    /// # Errors
    /// See [`Malformed`].
    pub fn of(message: &Message) -> Result<Self, Malformed> {
        let mut reader = Reader { chunks: message.payload().collect(), at: 0 };
        let mut envelope = Self::default();
        while reader.has_more() {
            let key = reader.varint()?;
            match (key >> 3, key & 7) {
                (HEADER, DELIMITED) => envelope.header = reader.delimited()?.joined(),
                (METADATA, DELIMITED) => envelope.metadata = reader.delimited()?.joined(),
                (BODY, DELIMITED) => envelope.body = reader.delimited()?.0,
                (DESCRIPTOR, DELIMITED) => {
                    envelope.has_descriptor = true;
                    reader.delimited()?;
                }
                (_, DELIMITED) => drop(reader.delimited()?),
                (_, VARINT) => drop(reader.varint()?),
                (_, EIGHT_BYTES) => drop(reader.take(8)?),
                (_, FOUR_BYTES) => drop(reader.take(4)?),
                _ => return Err(Malformed),
            }
        }
        Ok(envelope)
    }

    /// Header, body and metadata, in bytes.
    pub fn bytes(&self) -> usize {
        self.header.len() + self.metadata.len() + self.body.iter().map(Bytes::len).sum::<usize>()
    }

    /// The message as arrow-flight has it. Its descriptor, which answers do not have, is left out.
    pub fn into_flight_data(self) -> FlightData {
        FlightData {
            flight_descriptor: None,
            data_header: self.header,
            app_metadata: self.metadata,
            data_body: super::frame::aligned(self.body),
        }
    }
}

impl Message {
    /// As arrow-flight has it.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn flight_data(&self) -> Result<FlightData, Malformed> {
        Envelope::of(self).map(Envelope::into_flight_data)
    }
}

/// Bytes in the chunks that they came in.
struct Chunks(Vec<Bytes>);

impl Chunks {
    fn joined(mut self) -> Bytes {
        match self.0.len() {
            0 => Bytes::new(),
            1 => self.0.swap_remove(0),
            _ => self.0.concat().into(),
        }
    }
}

/// Reads a message from its first byte on.
struct Reader {
    chunks: Vec<Bytes>,
    /// The chunk that is being read.
    at: usize,
}

impl Reader {
    fn has_more(&mut self) -> bool {
        while self.chunks.get(self.at).is_some_and(Bytes::is_empty) {
            self.at += 1;
        }
        self.at < self.chunks.len()
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        match self.has_more() {
            true => Ok(self.chunks[self.at].get_u8()),
            false => Err(Malformed),
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn delimited(&mut self) -> Result<Chunks, Malformed> {
        let bytes = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(bytes)
    }

    fn take(&mut self, bytes: usize) -> Result<Chunks, Malformed> {
        let (mut left, mut taken) = (bytes, Vec::new());
        while left > 0 {
            if !self.has_more() {
                return Err(Malformed);
            }
            let chunk = &mut self.chunks[self.at];
            let piece = chunk.split_to(left.min(chunk.len()));
            left -= piece.len();
            taken.push(piece);
        }
        Ok(Chunks(taken))
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::FlightDescriptor;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::grpc::{Messages, prefix};
    use super::*;

    /// A body of one message, in chunks of `cut` bytes.
    fn message(payload: &[u8], cut: usize) -> Message {
        let body = Bytes::from([&prefix(payload.len())[..], payload].concat());
        let mut messages = Messages::new(1 << 20);
        for start in (0..body.len()).step_by(cut) {
            messages.push(body.slice(start..body.len().min(start + cut)));
        }
        messages.take().unwrap().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
            Some(_) => 1_000_000,
            None => 512,
        }))]

        /// What prost reads is read, however it was cut.
        #[test]
        fn fields_are_those_that_prost_reads(
            header in prop::collection::vec(any::<u8>(), 0..80), metadata in prop::collection::vec(any::<u8>(), 0..9),
            body in prop::collection::vec(any::<u8>(), 0..200), has_descriptor: bool, cut in 1_usize..60,
        ) {
            let flight_descriptor = has_descriptor.then(|| FlightDescriptor::new_cmd("SELECT 1"));
            let data = FlightData {
                flight_descriptor, data_header: header.into(), app_metadata: metadata.into(), data_body: body.into(),
            };
            let envelope = Envelope::of(&message(&data.encode_to_vec(), cut)).unwrap();
            prop_assert_eq!(envelope.has_descriptor, has_descriptor);
            prop_assert_eq!(envelope.into_flight_data(), FlightData { flight_descriptor: None, ..data });
        }

        /// Bytes that are no message are an error for both, or read alike.
        #[test]
        fn other_bytes_are_an_error_at_worst(payload in prop::collection::vec(any::<u8>(), 0..60), cut in 1_usize..20) {
            let ours = Envelope::of(&message(&payload, cut)).map(Envelope::into_flight_data);
            if let Ok(theirs) = FlightData::decode(&payload[..]) {
                prop_assert_eq!(ours, Ok(FlightData { flight_descriptor: None, ..theirs }));
            }
        }
    }
}
