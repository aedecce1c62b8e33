//! The messages of `proto/sidewing/stream/v1/stream.proto`: bytes of `app_metadata` in, checked messages out, and back.
//!
//! What is no message of this protocol, or is damaged, is `None`: a stock peer has put something of its own there.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

/// "sidewing" in ASCII: the field by which its messages are told from anybody else's.
const PROTOCOL: u64 = 0x7369_6465_7769_6e67;
/// The version that is spoken here.
const VERSION: u32 = 1;

/// One unbroken history of appended rows: those who hold as many rows of it hold the same rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(Uuid);

/// The first `sequence` rows of `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub sequence: u64,
}

/// What a subscriber asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe {
    /// What it holds for good; none when it begins.
    pub held: Option<Position>,
}

/// What stands beside the data of each message of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub epoch: Epoch,
    /// The sequence of the first row of the batch; 0 without a batch.
    pub first: u64,
    /// What the subscriber holds of the epoch when it has taken this message.
    pub last: u64,
    /// How many rows the epoch has at the publisher.
    pub head: u64,
    /// The publisher's clock, in nanoseconds since the Unix epoch.
    pub sent_unix_nanos: i64,
    /// When the publisher last knew that its own rows were all there are, by the same clock.
    pub watermark_unix_nanos: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a later version.
    Unknown,
    Resume,
    Snapshot,
    Rows,
    Whole,
    Heartbeat,
}

impl Epoch {
    /// A history that begins now.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// None unless these are 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Subscribe {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let epoch = self.held.map(|held| Bytes::copy_from_slice(held.epoch.as_bytes()));
        let message = wire::Subscribe {
            protocol: PROTOCOL,
            version: VERSION,
            epoch: epoch.unwrap_or_default(),
            sequence: self.held.map_or(0, |held| held.sequence),
        };
        message.encode_to_vec().into()
    }

    /// None for anything that is not such a message. An epoch that is none is not held.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = wire::Subscribe::decode(bytes).ok().filter(|message| message.protocol == PROTOCOL)?;
        let epoch = Epoch::from_bytes(&message.epoch);
        Some(Self { held: epoch.map(|epoch| Position { epoch, sequence: message.sequence }) })
    }
}

impl Frame {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = wire::Frame {
            protocol: PROTOCOL,
            version: VERSION,
            kind: self.kind.wire() as i32,
            epoch: Bytes::copy_from_slice(self.epoch.as_bytes()),
            first: self.first,
            last: self.last,
            head: self.head,
            sent_unix_nanos: self.sent_unix_nanos,
            watermark_unix_nanos: self.watermark_unix_nanos,
        };
        message.encode_to_vec().into()
    }

    /// None for anything that is not such a message.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = wire::Frame::decode(bytes).ok().filter(|message| message.protocol == PROTOCOL)?;
        Some(Self {
            kind: Kind::of(message.kind),
            epoch: Epoch::from_bytes(&message.epoch)?,
            first: message.first,
            last: message.last,
            head: message.head,
            sent_unix_nanos: message.sent_unix_nanos,
            watermark_unix_nanos: message.watermark_unix_nanos,
        })
    }
}

impl Kind {
    fn wire(self) -> wire::Kind {
        match self {
            Self::Unknown => wire::Kind::Unspecified,
            Self::Resume => wire::Kind::Resume,
            Self::Snapshot => wire::Kind::Snapshot,
            Self::Rows => wire::Kind::Rows,
            Self::Whole => wire::Kind::Whole,
            Self::Heartbeat => wire::Kind::Heartbeat,
        }
    }

    fn of(number: i32) -> Self {
        match wire::Kind::try_from(number) {
            Err(_) | Ok(wire::Kind::Unspecified) => Self::Unknown,
            Ok(wire::Kind::Resume) => Self::Resume,
            Ok(wire::Kind::Snapshot) => Self::Snapshot,
            Ok(wire::Kind::Rows) => Self::Rows,
            Ok(wire::Kind::Whole) => Self::Whole,
            Ok(wire::Kind::Heartbeat) => Self::Heartbeat,
        }
    }
}

/// As on the wire; a test compares the fields with the `.proto`.
mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Subscribe {
        #[prost(fixed64, tag = "1")]
        pub protocol: u64,
        #[prost(uint32, tag = "2")]
        pub version: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub epoch: Bytes,
        #[prost(uint64, tag = "4")]
        pub sequence: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Frame {
        #[prost(fixed64, tag = "1")]
        pub protocol: u64,
        #[prost(uint32, tag = "2")]
        pub version: u32,
        #[prost(enumeration = "Kind", tag = "3")]
        pub kind: i32,
        #[prost(bytes = "bytes", tag = "4")]
        pub epoch: Bytes,
        #[prost(uint64, tag = "5")]
        pub first: u64,
        #[prost(uint64, tag = "6")]
        pub last: u64,
        #[prost(uint64, tag = "7")]
        pub head: u64,
        #[prost(sfixed64, tag = "8")]
        pub sent_unix_nanos: i64,
        #[prost(sfixed64, tag = "9")]
        pub watermark_unix_nanos: i64,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum Kind {
        Unspecified = 0,
        Resume = 1,
        Snapshot = 2,
        Rows = 3,
        Whole = 4,
        Heartbeat = 5,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn frame() -> Frame {
        Frame {
            kind: Kind::Rows,
            epoch: Epoch::random(),
            first: 5,
            last: 9,
            head: u64::MAX,
            sent_unix_nanos: -1,
            watermark_unix_nanos: i64::MIN,
        }
    }

    #[test]
    fn it_reads_what_it_wrote() {
        let frame = frame();
        assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        for held in [None, Some(Position { epoch: frame.epoch, sequence: 7 })] {
            let subscribe = Subscribe { held };
            assert_eq!(Subscribe::decode(&subscribe.encode()), Some(subscribe));
        }
    }

    #[test]
    fn what_others_write_is_none_of_ours() {
        for bytes in [&b""[..], b"sidewing", b"\x0a\x03abc"] {
            assert_eq!(Frame::decode(bytes), None);
            assert_eq!(Subscribe::decode(bytes), None);
        }
        let later = wire::Frame { kind: 77, ..wire::Frame::decode(frame().encode()).unwrap() };
        assert_eq!(Frame::decode(&later.encode_to_vec()).unwrap().kind, Kind::Unknown);
        let short = wire::Frame { epoch: Bytes::from_static(b"short"), ..later };
        assert_eq!(Frame::decode(&short.encode_to_vec()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), at in any::<prop::sample::Index>(), value: u8) {
            let _ = (Frame::decode(&bytes), Subscribe::decode(&bytes));
            let mut good = frame().encode().to_vec();
            let at = at.index(good.len());
            good[at] = value;
            let _ = (Frame::decode(&good), Subscribe::decode(&good));
        }
    }
}
