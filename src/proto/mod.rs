//! The wire contracts of `/proto`, compiled: descriptors enter at build time as bytes and leave for
//! reflection; nothing here is encoded, decoded or served.
//!
//! The messages themselves are `arrow-flight`'s. `generated.rs` is checked in and never edited:
//! `tests/it/proto.rs` compares it with what `/proto` compiles to, and rewrites it when asked.

mod generated;

pub use generated::{FILE_DESCRIPTOR_SET, METHODS};
