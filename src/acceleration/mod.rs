//! Hot datasets, held locally and kept fresh.
//!
//! Batches of a dataset enter; a table that answers from this machine leaves, one whole generation at a time.
//! `store` builds and reads generations, `disk` keeps them over a restart, `refresh` says when the next one is made,
//! `publish` tells subscribers what it added.

pub(crate) mod chunk_id;
pub(crate) mod disk;
pub(crate) mod store;

mod publish;
mod refresh;
mod texts;

pub(crate) use store::{
    AcceleratedTable, GroupByNumbers, GroupDirectly, JoinKeys, Pins, Reads, Table, rows_read,
};

pub use publish::{Limit, MemoryLog, Publication, Retention, Standing, StreamEnd, StreamEvent, Subscription};
pub use refresh::{
    Acceleration, Ask, AskError, AskMode, Phase, Progress, PutError, RefreshFailure, Refreshes, Status,
    Stored, StreamStatus, Writer,
};
