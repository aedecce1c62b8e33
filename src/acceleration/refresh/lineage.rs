//! What a generation continues: the rows before it, and the stream of its upstream. Kept beside the rows, on disk in
//! one commit with them.
//!
//! Rows of one epoch are numbered in the order in which the table took them. A generation whose chunks begin with those
//! of the one before only adds to it, so the numbers stay; any other begins an epoch of its own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::acceleration::chunk_id::ChunkId;
use crate::proto::stream::{Epoch, Position};

/// Of the encoded form.
const VERSION: u8 = 1;
const EPOCH_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Of the table itself.
    pub epoch: Epoch,
    /// Where in the stream of its upstream the rows end, where they came from such a stream.
    pub upstream: Option<Position>,
}

impl Lineage {
    pub(super) fn begin(upstream: Option<Position>) -> Self {
        Self { epoch: Epoch::random(), upstream }
    }

    /// Of a generation with the chunks `next` after this one with the chunks `before`.
    pub(super) fn followed_by(
        self,
        before: impl ExactSizeIterator<Item = ChunkId>,
        next: impl ExactSizeIterator<Item = ChunkId>,
        upstream: Option<Position>,
    ) -> Self {
        match before.len() <= next.len() && before.zip(next).all(|(before, next)| before == next) {
            true => Self { upstream, ..self },
            false => Self::begin(upstream),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + 2 * EPOCH_BYTES + 8);
        bytes.put_u8(VERSION);
        bytes.put_slice(self.epoch.as_bytes());
        if let Some(upstream) = &self.upstream {
            bytes.put_slice(upstream.epoch.as_bytes());
            bytes.put_u64_le(upstream.sequence);
        }
        bytes.freeze()
    }

    /// None for bytes of another version or length: what is held is then known to continue nothing.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION || bytes.len() < EPOCH_BYTES {
            return None;
        }
        let (epoch, mut rest) = bytes.split_at(EPOCH_BYTES);
        let epoch = Epoch::from_bytes(epoch)?;
        let upstream = match rest.len() {
            0 => None,
            length if length == EPOCH_BYTES + 8 => {
                let epoch = Epoch::from_bytes(&rest[..EPOCH_BYTES])?;
                rest.advance(EPOCH_BYTES);
                Some(Position { epoch, sequence: rest.get_u64_le() })
            }
            _ => return None,
        };
        Some(Self { epoch, upstream })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn it_reads_what_it_wrote() {
        let alone = Lineage::begin(None);
        let following = Lineage::begin(Some(Position { epoch: Epoch::random(), sequence: u64::MAX }));
        for lineage in [alone, following] {
            assert_eq!(Lineage::decode(&lineage.encode()), Some(lineage));
            assert_eq!(Lineage::decode(&lineage.encode()[1..]), None);
        }
    }

    #[test]
    fn more_chunks_continue_and_others_do_not() {
        let chunks: Vec<ChunkId> = (0..4).map(|_| ChunkId::fresh()).collect();
        let before = Lineage::begin(None);
        let after = |from: &[usize], to: &[usize]| {
            let ids = |at: &[usize]| at.iter().map(|at| chunks[*at]).collect::<Vec<_>>().into_iter();
            before.followed_by(ids(from), ids(to), None).epoch == before.epoch
        };
        assert!(after(&[0, 1], &[0, 1, 2]) && after(&[0, 1], &[0, 1]) && after(&[], &[3]));
        assert!(!after(&[0, 1], &[0]) && !after(&[0, 1], &[0, 2, 1]) && !after(&[0, 1], &[1, 0, 2]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Lineage::decode(&bytes);
        }
    }
}
