//! Checksums of a file: one for the whole, one for each block, so that a part can be verified alone.

use std::io::{self, Read};

/// The unit of partial reads, in bytes: small enough for a point lookup, large enough that sums are one in 65,536.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The sums of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub whole: u32,
    /// Each block's CRC-32, little endian, one after the other.
    pub blocks: Vec<u8>,
}

impl Sums {
    pub fn of(content: &[u8]) -> Self {
        let mut sums = Summing::default();
        content.chunks(BLOCK_BYTES).for_each(|block| sums.add(block));
        sums.done()
    }

    /// Of at most `limit` bytes of `content`, without holding more than a block.
    pub fn read(content: impl Read, limit: u64) -> io::Result<Self> {
        let mut content = content.take(limit);
        let mut sums = Summing::default();
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        while content.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? > 0 {
            sums.add(&block);
            block.clear();
        }
        Ok(sums.done())
    }
}

/// True when `block`, the `index`-th of its file, is what `blocks` says.
pub(super) fn block_is_right(blocks: &[u8], index: usize, block: &[u8]) -> bool {
    blocks.chunks_exact(4).nth(index).is_some_and(|sum| sum == crc32fast::hash(block).to_le_bytes())
}

#[derive(Default)]
struct Summing {
    whole: crc32fast::Hasher,
    blocks: Vec<u8>,
}

impl Summing {
    fn add(&mut self, block: &[u8]) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(block);
        self.whole.combine(&hasher);
        self.blocks.extend(hasher.finalize().to_le_bytes());
    }

    fn done(self) -> Sums {
        Sums { whole: self.whole.finalize(), blocks: self.blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_held_content_have_the_same_sums() {
        for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let sums = Sums::of(&content);
            assert_eq!(sums.whole, crc32fast::hash(&content));
            assert_eq!(sums.blocks.len(), 4 * bytes.div_ceil(BLOCK_BYTES));
            assert_eq!(Sums::read(&content[..], u64::MAX).unwrap(), sums);
            for (index, block) in content.chunks(BLOCK_BYTES).enumerate() {
                assert!(block_is_right(&sums.blocks, index, block));
                assert!(!block_is_right(&sums.blocks, index + 1, block) || bytes > BLOCK_BYTES);
            }
        }
    }
}
