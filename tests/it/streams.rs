//! Append streams: rows that are pushed upstream are here a moment later, once each, whatever happens on the way.
//!
//! - [`chain`]: three processes one behind the other.
//! - [`fake`]: the fake upstream's own streams are what stock upstreams send.
//! - [`subscribe`]: the real binary follows them.

mod chain;
mod fake;
mod subscribe;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

/// Rows of these numbers, each with a word that follows from its number.
fn rows(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let ids = Int64Array::from_iter_values(ids);
    let words: StringArray = ids.values().iter().map(|id| Some(format!("row {id}"))).collect();
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("word", Arc::new(words))];
    RecordBatch::try_from_iter(columns).expect("two columns")
}
