//! Accelerated tables in memory: batches of a dataset enter, immutable generations and a table that queries them leave.
//!
//! A [`Generation`] is a list of [`Chunk`]s, never changed once it exists. [`Load`] and [`Append`] build the next one
//! aside, sharing every chunk that stayed the same; [`Table::publish`] swaps it in; a query pins what it started with.
//! Nothing here reaches an upstream, a file or a clock, and nothing is spawned: callers decide when, and on which
//! thread, because building is plain computation.

mod budget;
mod error;
mod layout;

mod chosen;
mod chunk;
mod coded;
mod cut;
mod hash;
mod keys;
pub(crate) mod shape;
mod time;

mod generation;
mod numbering;
mod seal;

mod append;
mod census;
mod conflict;
mod dedup;
mod load;
mod pack;
mod rebuild;

mod bits;
mod direct;
mod direct_groups;
mod direct_places;
mod groups;
mod join_keys;
mod key_tap;
mod numbered;
mod origin;
mod pins;
mod prune;
mod reader;
mod sample;
mod scan;
mod sieve;
mod table;
mod text_of;
mod zero;

#[cfg(test)]
mod tests;

pub(crate) use append::Append;
pub(crate) use budget::{Budget, Lease};
pub(crate) use census::{Census, RowHash, RowHasher};
pub(crate) use chunk::Chunk;
pub(crate) use direct::GroupDirectly;
pub(crate) use error::StoreError;
pub(crate) use generation::Generation;
pub(crate) use groups::GroupByNumbers;
pub(crate) use join_keys::JoinKeys;
pub(crate) use layout::{Key, Layout, OnConflict, Role, Time, TimeFormat};
pub(crate) use load::Load;
pub(crate) use pack::{Pack, Packer, kept};
pub(crate) use pins::{Pins, Reads};
pub(crate) use rebuild::{compacted, restored, without};
pub(crate) use scan::rows_read;
pub(crate) use table::{AcceleratedTable, Table};
pub(crate) use zero::{OrSource, Source};
