//! Columns of texts that a scan reads as one number a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion::common::ColumnStatistics;
use datafusion::common::stats::Precision;
use datafusion::scalar::ScalarValue;

use super::Chunk;
use super::chosen::Chosen;
use super::numbering::Numbering;

/// Combinations of texts have at most so many numbers.
const NUMBERS_MAX: usize = 1 << 16;

/// Columns of a scan that are read together: a row's number is unique to its texts. It stands where the first of them
/// stood; where the others stood is nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbered {
    parts: Vec<Part>,
}

/// A column of them.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its position among the scan's columns.
    pub output: usize,
    /// And in the table.
    pub column: usize,
    pub numbering: Arc<Numbering>,
    /// What its numbers are multiplied by; the parts after it have this times [`Numbering::count`].
    pub by: u32,
}

impl Numbered {
    /// Takes one more column along, unless the combinations became too many.
    pub(super) fn add(&mut self, output: usize, column: usize, numbering: &Arc<Numbering>) -> bool {
        let by = self.parts.last().map_or(1, |last| last.by as usize * last.numbering.count());
        let fits = by * numbering.count() <= NUMBERS_MAX;
        if let (true, Ok(by)) = (fits, u32::try_from(by)) {
            self.parts.push(Part { output, column, numbering: Arc::clone(numbering), by });
        }
        fits
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What is known of the column of each part.
    pub(super) fn statistics(&self) -> impl Iterator<Item = ColumnStatistics> {
        let count = self.parts.last().map_or(0, |last| last.by.saturating_mul(last.numbering.count() as u32));
        let number = |number: u32| Precision::Exact(ScalarValue::UInt32(Some(number)));
        let numbers = ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: number(0),
            max_value: number(count.saturating_sub(1)),
            ..ColumnStatistics::new_unknown()
        };
        std::iter::once(numbers).chain(std::iter::repeat_with(ColumnStatistics::new_unknown))
    }

    /// Changes the fields that these columns had in the scan's schema.
    pub(super) fn apply(&self, schema: &Schema) -> Schema {
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        for (nth, part) in self.parts.iter().enumerate() {
            let Some(field) = fields.get_mut(part.output) else { continue };
            let (kind, nullable) = if nth == 0 { (DataType::UInt32, false) } else { (DataType::Null, true) };
            *field = Arc::new(Field::new(field.name(), kind, nullable));
        }
        Schema::new_with_metadata(fields, schema.metadata().clone())
    }

    /// The column at `output` for some rows of the chunk at `at` in the generation; none where it is read as it is.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn read(
        &self,
        output: usize,
        (at, chunk): (usize, &Chunk),
        chosen: &Chosen,
    ) -> Option<Result<ArrayRef, ArrowError>> {
        match self.parts.iter().position(|part| part.output == output)? {
            0 => Some(self.numbers((at, chunk), chosen)),
            _ => Some(Ok(Arc::new(NullArray::new(chosen.len())))),
        }
    }

    fn numbers(&self, (at, chunk): (usize, &Chunk), chosen: &Chosen) -> Result<ArrayRef, ArrowError> {
        let mut sums = vec![0; chosen.len()];
        for part in &self.parts {
            part.numbering.add((at, chunk.stored(part.column)), chosen, part.by, &mut sums)?;
        }
        Ok(Arc::new(UInt32Array::from(sums)))
    }
}
