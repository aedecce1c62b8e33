//! Hot datasets, held locally and kept fresh.
//!
//! Batches of a dataset enter; a table that answers from this machine leaves, one whole generation at a time.

pub(crate) mod chunk_id;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "wired by refresh"))]
pub(crate) mod disk;
