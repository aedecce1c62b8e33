//! Texts of which a chunk has few different ones, kept as codes.
//!
//! A column enters, and leaves equal to what it was; between, each text is there once, and a row is one byte or two.
//! Queries get plain columns: what the codes save in memory costs a copy of the texts that a scan reads, or a view of 16
//! bytes a row where the column is one of views.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, MAX_INLINE_VIEW_LEN, NullBufferBuilder, PrimitiveArray,
    StringArray, StringArrayType,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowDictionaryKeyType, ArrowNativeType, DataType, UInt8Type, UInt16Type};
use arrow::error::ArrowError;
use datafusion::common::hash_utils::RandomState;

use crate::acceleration::texts;

/// Fewer rows are not worth a look.
const ROWS_MIN: usize = 1_024;
/// One in so many texts may be different.
const DIFFERENT_SHARE: usize = 8;
/// A view of a text, in bytes.
const VIEW_BYTES: usize = size_of::<u128>();
/// So many texts are found again without a hash, at most.
const LAST: usize = 256;

/// A column as codes.
pub(super) struct Coded {
    pub stored: ArrayRef,
    /// What the plain column takes, in bytes.
    pub plain_bytes: usize,
}

/// A column in `pieces` of one type as codes, where that takes at most half of its memory.
pub(super) fn coded(pieces: &[ArrayRef]) -> Option<Coded> {
    let rows: usize = pieces.iter().map(|piece| piece.len()).sum();
    if rows < ROWS_MIN || !texts::repeat(pieces) {
        return None;
    }
    let inline_max = MAX_INLINE_VIEW_LEN as usize;
    let coded = match pieces.first()?.data_type() {
        DataType::Utf8 => {
            let pieces = pieces.iter().map(|piece| piece.as_string::<i32>()).collect();
            Texts { pieces, rows, row_bytes: size_of::<i32>(), inline_max: 0 }.coded()
        }
        DataType::LargeUtf8 => {
            let pieces = pieces.iter().map(|piece| piece.as_string::<i64>()).collect();
            Texts { pieces, rows, row_bytes: size_of::<i64>(), inline_max: 0 }.coded()
        }
        DataType::Utf8View => {
            let pieces = pieces.iter().map(|piece| piece.as_string_view()).collect();
            Texts { pieces, rows, row_bytes: VIEW_BYTES, inline_max }.coded()
        }
        _ => None,
    }?;
    (coded.stored.get_buffer_memory_size() <= coded.plain_bytes / 2).then_some(coded)
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

/// A column, and what a plain one takes: so much for each row, and what is longer than `inline_max` beside it, in bytes.
struct Texts<T> {
    pieces: Vec<T>,
    rows: usize,
    row_bytes: usize,
    inline_max: usize,
}

impl<'a, T: StringArrayType<'a> + Copy> Texts<T> {
    fn coded(&self) -> Option<Coded> {
        let (different_max, small) = (self.rows / DIFFERENT_SHARE, usize::from(u8::MAX));
        self.with_codes::<UInt8Type>(small.min(different_max))
            .or_else(|| self.with_codes::<UInt16Type>(usize::from(u16::MAX).min(different_max)))
    }

    /// None when more than `different_max` texts are different.
    fn with_codes<K: ArrowDictionaryKeyType>(&self, different_max: usize) -> Option<Coded> {
        let mut words = Words::of_at_most(different_max);
        let (mut codes, mut nulls) = (Vec::with_capacity(self.rows), NullBufferBuilder::new(self.rows));
        let mut plain_bytes = self.rows * self.row_bytes;
        for piece in &self.pieces {
            for text in piece.iter() {
                let bytes = text.map_or(0, str::len);
                plain_bytes += if bytes > self.inline_max { bytes } else { 0 };
                let code = text.map_or(Some(0), |text| words.code(text))?;
                codes.push(K::Native::from_usize(code)?);
            }
            match piece.nulls() {
                Some(valid) => nulls.append_buffer(valid),
                None => nulls.append_n_non_nulls(piece.len()),
            }
        }
        let codes = PrimitiveArray::<K>::new(codes.into(), nulls.finish());
        let words = StringArray::from_iter_values(words.all);
        let mut stored: ArrayRef = Arc::new(DictionaryArray::try_new(codes, Arc::new(words)).ok()?);
        stored.shrink_to_fit();
        Some(Coded { stored, plain_bytes })
    }
}

/// Different texts, numbered as they come.
struct Words<'a> {
    max: usize,
    all: Vec<&'a str>,
    codes: HashMap<&'a str, usize, RandomState>,
    /// The last texts, by their length and their ends: most rows repeat one of them, and to compare is less than to hash.
    last: [(&'a str, usize); LAST],
}

impl<'a> Words<'a> {
    fn of_at_most(max: usize) -> Self {
        // The texts come from outside: which of them collide is not to be known there.
        let codes = HashMap::with_hasher(RandomState::with_seed(rand::random()));
        Self { max, all: Vec::new(), codes, last: [("", usize::MAX); LAST] }
    }

    /// None when there are too many.
    fn code(&mut self, text: &'a str) -> Option<usize> {
        let last = &mut self.last[place(text.as_bytes())];
        if last.0 == text && last.1 != usize::MAX {
            return Some(last.1);
        }
        let code = *self.codes.entry(text).or_insert_with(|| {
            self.all.push(text);
            self.all.len() - 1
        });
        *last = (text, code);
        (code < self.max).then_some(code)
    }
}

/// By the length and the ends of a text: most texts of a column differ there.
fn place(text: &[u8]) -> usize {
    let (first, last) = match text {
        [_, _, _, _, _, _, _, _, ..] => ends(text, u64::from_le_bytes),
        [_, _, _, _, ..] => ends(text, |bytes| u32::from_le_bytes(bytes).into()),
        [first, .., last] => (u64::from(*first), u64::from(*last)),
        [one] => (u64::from(*one), 0),
        [] => (0, 0),
    };
    let mixed = first ^ last.rotate_left(29) ^ text.len() as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - LAST.ilog2())) as usize % LAST
}

fn ends<const N: usize>(text: &[u8], number: impl Fn([u8; N]) -> u64) -> (u64, u64) {
    let number = |bytes: Option<&[u8; N]>| bytes.map_or(0, |bytes| number(*bytes));
    (number(text.first_chunk()), number(text.last_chunk()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{LargeStringArray, StringViewArray};
    use proptest::prelude::*;

    use super::super::shape;
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
            let Coded { stored, plain_bytes } = coded(&[Arc::clone(&column)]).unwrap();
            assert!(plain_bytes <= column.get_buffer_memory_size() && plain_bytes > 400_000, "{plain_bytes}");
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
            assert!(coded(&[column]).is_none());
        }
        // Few among the first rows, many later.
        let mut later = few(2_000, 3);
        later.extend(few(20_000, 15_000));
        assert!(coded(&[Arc::new(StringArray::from(later))]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// From any pieces, with texts of any length, and with its memory told as it would have been.
        #[test]
        fn what_is_coded_comes_back(
            words in prop::collection::vec("[a-c]{0,3}|[a-bä]{3,20}", 1..700),
            rows in 1_024_usize..6_000,
            cuts in prop::collection::vec(0_usize..6_000, 0..5),
            is_coded_at in prop::sample::select(vec![DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View]),
        ) {
            let text = |row: usize| (row % 11 != 3).then(|| words[row * row % words.len()].as_str());
            let texts: ArrayRef = Arc::new(StringArray::from_iter((0..rows).map(text)));
            let column = cast(&texts, &is_coded_at).unwrap();
            let cuts: BTreeSet<usize> = cuts.into_iter().filter(|cut| *cut < rows).chain([0, rows]).collect();
            let cuts: Vec<usize> = cuts.into_iter().collect();
            let pieces: Vec<ArrayRef> =
                cuts.windows(2).map(|ends| column.slice(ends[0], ends[1] - ends[0])).collect();
            if let Some(Coded { stored, plain_bytes }) = coded(&pieces) {
                let back = plain(&stored, column.data_type()).unwrap();
                prop_assert_eq!(back.as_ref(), column.as_ref());
                let part = plain(&stored.slice(rows / 3, rows / 3), column.data_type()).unwrap();
                let wanted = column.slice(rows / 3, rows / 3);
                prop_assert_eq!(part.as_ref(), wanted.as_ref());
                let owned = shape::owned_column(&pieces).unwrap().get_buffer_memory_size();
                // Which bits are NULLs, the end of the offsets, and what a buffer is rounded up by.
                prop_assert!(plain_bytes <= owned && owned <= plain_bytes + rows / 8 + 256, "{} {}", plain_bytes, owned);
            }
        }

        /// Texts that share a place in `last` keep their own codes.
        #[test]
        fn each_text_has_one_code(texts in prop::collection::vec("[ab]{0,2}|[ab]{12}", 1..400)) {
            let mut words = Words::of_at_most(400);
            let codes: Vec<usize> = texts.iter().map(|text| words.code(text).unwrap()).collect();
            for (text, code) in texts.iter().zip(codes) {
                prop_assert_eq!(words.all[code], text.as_str());
            }
            prop_assert_eq!(words.all.len(), texts.iter().collect::<BTreeSet<_>>().len());
        }
    }
}
