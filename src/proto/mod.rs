//! The wire contracts of `/proto`, compiled: descriptors enter at build time as bytes and leave for
//! reflection. Nothing here is served.
//!
//! The messages of Flight itself are `arrow-flight`'s; those of sidewing's own protocol are in `stream`. `generated.rs` is checked in and never edited:
//! `tests/it/proto.rs` compares it with what `/proto` compiles to, and rewrites it when asked.

mod generated;
pub mod stream;

pub use generated::{FILE_DESCRIPTOR_SET, METHODS};
