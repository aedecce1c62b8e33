//! Texts of which a chunk has few different ones, kept as codes.
//!
//! A column enters, and leaves equal to what it was; between, each text is there once, and a row is one byte or two.
//! Queries get plain columns: what the codes save in memory costs a copy of the texts that a scan reads, or a view of 16
//! bytes a row where the column is one of views.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArrayType, StringDictionaryBuilder};
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowDictionaryKeyType, ArrowNativeType, DataType, UInt8Type, UInt16Type};
use arrow::error::ArrowError;

use crate::acceleration::texts;

/// Fewer rows are not worth a look.
const ROWS_MIN: usize = 1_024;
/// One in so many texts may be different.
const DIFFERENT_SHARE: usize = 8;

/// `column` as codes, where that takes at most half of its memory.
pub(super) fn coded(column: &ArrayRef) -> Option<ArrayRef> {
    if column.len() < ROWS_MIN || !texts::repeat(column) {
        return None;
    }
    let coded = match column.data_type() {
        DataType::Utf8 => texts_coded(column.as_string::<i32>()),
        DataType::LargeUtf8 => texts_coded(column.as_string::<i64>()),
        DataType::Utf8View => texts_coded(column.as_string_view()),
        _ => None,
    }?;
    (coded.get_buffer_memory_size() <= column.get_buffer_memory_size() / 2).then_some(coded)
}

/// The column of `kind` that [`coded`] was given; a plain one passes.
///
/// # Errors
/// None that is known: every value fits back.
pub(super) fn plain(stored: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match (stored.as_any_dictionary_opt(), kind) {
        _ if stored.data_type() == kind => Ok(Arc::clone(stored)),
        // A view is made for each text, not for each row.
        (Some(codes), DataType::Utf8View) => take(&cast(codes.values(), kind)?, codes.keys(), None),
        _ => cast(stored, kind),
    }
}

fn texts_coded<'a>(texts: impl StringArrayType<'a> + Copy) -> Option<ArrayRef> {
    let different_max = texts.len() / DIFFERENT_SHARE;
    let small = usize::from(u8::MAX);
    with_codes::<UInt8Type>(texts, small.min(different_max))
        .or_else(|| with_codes::<UInt16Type>(texts, usize::from(u16::MAX).min(different_max)))
}

/// None when more than `different_max` texts are different.
fn with_codes<'a, K: ArrowDictionaryKeyType>(
    texts: impl StringArrayType<'a>,
    different_max: usize,
) -> Option<ArrayRef> {
    let mut builder = StringDictionaryBuilder::<K>::new();
    let mut last = 0;
    for text in texts.iter() {
        match text {
            None => builder.append_null(),
            Some(text) => {
                let code = builder.append(text).ok()?;
                last = last.max(code.as_usize());
            }
        }
        if last >= different_max {
            return None;
        }
    }
    let mut coded: ArrayRef = Arc::new(builder.finish());
    coded.shrink_to_fit();
    Some(coded)
}

#[cfg(test)]
mod tests {
    use arrow::array::{LargeStringArray, StringArray, StringViewArray};
    use proptest::prelude::*;

    use super::*;

    fn few(rows: usize, different: usize) -> Vec<Option<String>> {
        let text =
            |row: usize| format!("a text that is longer than a view holds, number {}", row * 7 % different);
        (0..rows).map(|row| (row % 11 != 3).then(|| text(row))).collect()
    }

    #[test]
    fn few_texts_take_a_byte_a_row() {
        let texts = few(10_000, 200);
        for column in [
            Arc::new(StringArray::from(texts.clone())) as ArrayRef,
            Arc::new(LargeStringArray::from(texts.clone())),
            Arc::new(StringViewArray::from(texts)),
        ] {
            let stored = coded(&column).unwrap();
            assert!(
                stored.get_buffer_memory_size() < 10_000 * 2 + 20_000,
                "{}",
                stored.get_buffer_memory_size()
            );
            assert_eq!(plain(&stored, column.data_type()).unwrap().as_ref(), column.as_ref());
        }
    }

    #[test]
    fn many_texts_stay_as_they_are() {
        for column in [few(10_000, 9_000), few(1_000, 3)] {
            let column: ArrayRef = Arc::new(StringArray::from(column));
            assert!(coded(&column).is_none());
        }
        // Few among the first rows, many later.
        let mut later = few(2_000, 3);
        later.extend(few(20_000, 15_000));
        assert!(coded(&(Arc::new(StringArray::from(later)) as ArrayRef)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn what_is_coded_comes_back(rows in 1_024usize..6_000, different in 1usize..700) {
            let column: ArrayRef = Arc::new(StringArray::from(few(rows, different)));
            if let Some(stored) = coded(&column) {
                let back = plain(&stored, column.data_type()).unwrap();
                prop_assert_eq!(back.as_ref(), column.as_ref());
                let part = plain(&stored.slice(rows / 3, rows / 3), column.data_type()).unwrap();
                let wanted = column.slice(rows / 3, rows / 3);
                prop_assert_eq!(part.as_ref(), wanted.as_ref());
            }
        }
    }
}
