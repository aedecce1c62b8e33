//! Hashes of rows, equal in every run of the process and for every batch that a row stands in.
//!
//! They find candidates; whoever acts on two rows being equal compares the rows themselves.

use arrow::array::ArrayRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;

const STATE: RandomState = RandomState::with_seed(0x5157_494e_4753_544f);

/// One hash for each of the `rows` of `columns`. `-0.0` hashes like `0.0`, a dictionary like its values.
pub(super) fn of_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(columns, &STATE, &mut hashes)?;
    for hash in &mut hashes {
        *hash = spread(*hash);
    }
    Ok(hashes)
}

/// The order of rows counts: the hash of the rows before, and one row more.
pub(super) fn followed_by(before: u64, row: u64) -> u64 {
    spread(before.rotate_left(23) ^ row)
}

/// Every bit of the result depends on every bit of the hash (the finisher of splitmix64): cuts read the low ones,
/// indexes the high ones.
fn spread(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
