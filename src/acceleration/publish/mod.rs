//! Datasets as streams of their appended rows: generations enter, what each subscriber is to be told next leaves.
//!
//! The table is the log. The rows of an epoch are numbered in the order in which the table took them, and every
//! generation of the epoch begins with the rows of the one before; so a subscriber is a number of rows, a resume reads
//! on from there, and a snapshot is a resume from nothing. No row is kept for a subscriber: it reads from the
//! generation of now, and only where another epoch has begun before it has read the last one is that one held for it,
//! for a time and a size that [`Retention`] bounds.
//!
//! Nothing here knows the wire, and nobody waits for a subscriber.

mod error;
mod rows;

mod finishing;
mod publication;

mod plan;
mod subscription;

mod counts;
mod log;

#[cfg(test)]
mod tests;

pub use error::{Limit, StreamEnd};
pub use log::MemoryLog;
pub use publication::{Publication, Retention};
pub use subscription::{Standing, StreamEvent, Subscription};

pub(crate) use rows::{Piece, Published};
