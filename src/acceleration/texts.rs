//! Whether a text column is worth a dictionary: asked where it is kept in memory and where it is written.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, StringArrayType};
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::RandomState;

/// The first rows decide.
const SAMPLE_ROWS: usize = 1_024;
/// One in so many of them may be different.
const DIFFERENT_SHARE: usize = 4;

/// Whether the first texts of a column, in pieces of one type, come again and again; false for what is no text.
pub(super) fn repeat(pieces: &[ArrayRef]) -> bool {
    match pieces.first().map(|piece| piece.data_type()) {
        Some(DataType::Utf8) => repeats(pieces.iter().map(|piece| piece.as_string::<i32>())),
        Some(DataType::LargeUtf8) => repeats(pieces.iter().map(|piece| piece.as_string::<i64>())),
        Some(DataType::Utf8View) => repeats(pieces.iter().map(|piece| piece.as_string_view())),
        _ => false,
    }
}

fn repeats<'a>(pieces: impl Iterator<Item = impl StringArrayType<'a>>) -> bool {
    let mut different: HashSet<&str, RandomState> = HashSet::default();
    let mut looked_at = 0;
    for text in pieces.flat_map(|piece| piece.iter()).take(SAMPLE_ROWS) {
        looked_at += 1;
        different.extend(text);
        if different.len() > SAMPLE_ROWS / DIFFERENT_SHARE {
            return false;
        }
    }
    different.len() <= looked_at / DIFFERENT_SHARE
}
