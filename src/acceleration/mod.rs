//! Hot datasets, held locally and kept fresh.
//!
//! Batches of a dataset enter; a table that answers from this machine leaves, one whole generation at a time.
//! `store` builds and reads generations, `disk` keeps them over a restart, `refresh` says when the next one is made.

pub(crate) mod chunk_id;
pub(crate) mod disk;
#[cfg_attr(not(test), expect(dead_code, reason = "the results cache will ask what a query has read"))]
pub(crate) mod store;

mod refresh;
mod texts;

pub(crate) use store::{AcceleratedTable, Pins, Reads, Table};

pub use refresh::{
    Acceleration, Ask, AskError, AskMode, Phase, Progress, PutError, RefreshFailure, Refreshes, Status,
    Stored, Writer,
};
