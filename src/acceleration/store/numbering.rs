//! One number for each text of a column, the same in every chunk of a generation.
//!
//! The codes of a chunk mean something in that chunk alone. To group rows by texts without looking at a text per row,
//! the few texts of all chunks are numbered once for a generation, when a query first asks for it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, AsArray, PrimitiveArray, StringArray, StringBuilder, UInt32Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, UInt8Type, UInt16Type, UInt32Type,
};
use arrow::error::ArrowError;

use super::Chunk;
use super::chosen::Chosen;

/// So many texts, and numbers save little.
const TEXTS_MAX: usize = 4_096;
/// A text is looked up once a chunk: where there are not so many rows for each, that is no better than once a row.
const ROWS_PER_TEXT: usize = 32;
/// A query that finds a new generation waits for it, some milliseconds.
const LOOKS_MAX: usize = 1 << 17;
/// The number of NULL, whether there is one or not.
const NULL: u32 = 0;

/// The texts of a column by their numbers, and the numbers in each chunk.
#[derive(Debug)]
pub(super) struct Numbering {
    /// In the type of the column; the first is NULL.
    texts: ArrayRef,
    /// One for each chunk of the generation.
    chunks: Vec<Numbers>,
}

/// The numbers in a chunk.
#[derive(Debug)]
enum Numbers {
    /// By the chunk's own code.
    OfCodes(Vec<u32>),
    /// By row: of a chunk too small for codes.
    OfRows(UInt32Array),
}

impl Numbering {
    /// Of the column at `column`, of type `kind`. None where it is not kept as codes, or has too many texts.
    pub(super) fn of(chunks: &[Arc<Chunk>], column: usize, kind: &DataType) -> Option<Self> {
        let rows: usize = chunks.iter().map(|chunk| chunk.rows()).sum();
        let looks: usize = chunks.iter().map(|chunk| looks(chunk.stored(column))).sum();
        if !is_text(kind) || looks > LOOKS_MAX.min(rows / ROWS_PER_TEXT) {
            return None;
        }
        let mut known = Known::default();
        let numbers = chunks.iter().map(|chunk| known.numbers(chunk.stored(column)));
        let chunks = numbers.collect::<Option<Vec<_>>>()?;
        Some(Self { texts: cast(&known.texts(), kind).ok()?, chunks })
    }

    /// How many numbers there are, that of NULL included.
    pub(super) fn count(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn texts(&self) -> &ArrayRef {
        &self.texts
    }

    /// Adds `by` times the number of each chosen row of the chunk at `at` to `sums`, one for each of them. `stored` is
    /// the chunk's column.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn add(
        &self,
        (at, stored): (usize, &ArrayRef),
        chosen: &Chosen,
        by: u32,
        sums: &mut [u32],
    ) -> Result<(), ArrowError> {
        let numbers = match self.chunks.get(at) {
            Some(Numbers::OfCodes(numbers)) => numbers,
            Some(Numbers::OfRows(rows)) => {
                let rows = chosen.of(rows)?;
                let rows = rows.as_primitive::<UInt32Type>().values();
                sums.iter_mut().zip(rows).for_each(|(sum, number)| *sum += number * by);
                return Ok(());
            }
            None => return Err(ArrowError::ComputeError(format!("no numbers of chunk {at}"))),
        };
        let codes = stored.as_any_dictionary_opt().ok_or_else(|| {
            ArrowError::CastError(format!("{} where codes were numbered", stored.data_type()))
        })?;
        let keys = chosen.of(codes.keys())?;
        // Multiplied once a text, not once a row.
        let numbers: Vec<u32> = numbers.iter().map(|number| number * by).collect();
        match keys.data_type() {
            DataType::UInt8 => add_codes(keys.as_primitive::<UInt8Type>(), &numbers, sums),
            _ => add_codes(keys.as_primitive::<UInt16Type>(), &numbers, sums),
        }
        Ok(())
    }
}

/// NULL's number is added by adding nothing.
fn add_codes<K: ArrowDictionaryKeyType>(keys: &PrimitiveArray<K>, numbers: &[u32], sums: &mut [u32]) {
    let codes = keys.values().iter().map(|code| numbers[code.as_usize()]);
    match keys.nulls() {
        None => sums.iter_mut().zip(codes).for_each(|(sum, number)| *sum += number),
        Some(nulls) => {
            let valid = nulls.iter();
            // What stands at a NULL need not be a code.
            let codes = keys.values().iter().zip(valid);
            let codes = codes.map(|(code, valid)| if valid { numbers[code.as_usize()] } else { NULL });
            sums.iter_mut().zip(codes).for_each(|(sum, number)| *sum += number);
        }
    }
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// How often a text is looked up to number a column of a chunk.
fn looks(stored: &ArrayRef) -> usize {
    stored.as_any_dictionary_opt().map_or(stored.len(), |codes| codes.values().len())
}

/// Numbers that were given out.
#[derive(Default)]
struct Known<'a>(HashMap<&'a str, u32>);

impl<'a> Known<'a> {
    /// None where they would be too many.
    fn numbers(&mut self, stored: &'a ArrayRef) -> Option<Numbers> {
        let column = stored.as_ref();
        Some(match column.data_type() {
            DataType::Dictionary(..) => {
                let codes = column.as_any_dictionary_opt()?;
                let texts: &StringArray = codes.values().as_string_opt()?;
                Numbers::OfCodes(self.of_texts(texts)?)
            }
            DataType::Utf8 => Numbers::OfRows(self.of_texts(column.as_string::<i32>())?.into()),
            DataType::LargeUtf8 => Numbers::OfRows(self.of_texts(column.as_string::<i64>())?.into()),
            DataType::Utf8View => Numbers::OfRows(self.of_texts(column.as_string_view())?.into()),
            _ => return None,
        })
    }

    fn of_texts(&mut self, texts: impl ArrayAccessor<Item = &'a str>) -> Option<Vec<u32>> {
        let number = |at| {
            if texts.is_null(at) {
                return Some(NULL);
            }
            let next = u32::try_from(self.0.len() + 1).ok()?;
            let number = *self.0.entry(texts.value(at)).or_insert(next);
            (self.0.len() <= TEXTS_MAX).then_some(number)
        };
        (0..texts.len()).map(number).collect()
    }

    /// By their numbers.
    fn texts(&self) -> StringArray {
        let mut by_number: Vec<(u32, &str)> = self.0.iter().map(|(text, number)| (*number, *text)).collect();
        by_number.sort_unstable();
        let mut texts = StringBuilder::new();
        texts.append_null();
        by_number.iter().for_each(|(_, text)| texts.append_value(text));
        texts.finish()
    }
}
