//! Whether a text column is worth a dictionary: asked where it is kept in memory and where it is written.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, StringArrayType};
use arrow::datatypes::DataType;

/// The first rows decide.
const SAMPLE_ROWS: usize = 1_024;
/// One in so many of them may be different.
const DIFFERENT_SHARE: usize = 4;

/// Whether the first texts of a column come again and again; false for what is no text.
pub(super) fn repeat(column: &dyn Array) -> bool {
    match column.data_type() {
        DataType::Utf8 => repeats(column.as_string::<i32>()),
        DataType::LargeUtf8 => repeats(column.as_string::<i64>()),
        DataType::Utf8View => repeats(column.as_string_view()),
        _ => false,
    }
}

fn repeats<'a>(texts: impl StringArrayType<'a>) -> bool {
    let looked_at = texts.len().min(SAMPLE_ROWS);
    let different: HashSet<&str> = texts.iter().take(SAMPLE_ROWS).flatten().collect();
    different.len() <= looked_at / DIFFERENT_SHARE
}
