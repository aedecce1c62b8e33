//! Some rows of a chunk.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};
use arrow::error::ArrowError;

/// Rows that are fewer than this share of those before are named one by one, not marked among the others.
const SPARSE_SHARE: usize = 4;

/// Rows of one chunk.
#[derive(Debug, Clone)]
pub(super) enum Chosen {
    /// So many from the first on.
    First(usize),
    /// Those that are true; none is NULL, and every row of the chunk is there.
    Marked(BooleanArray),
    /// Those at these positions, ascending.
    At(UInt32Array),
}

impl Chosen {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::First(rows) => *rows,
            Self::Marked(mask) => mask.true_count(),
            Self::At(rows) => rows.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These of a column of the chunk.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn of(&self, column: &dyn Array) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::First(rows) => column.slice(0, *rows),
            Self::Marked(mask) => filter(column, mask)?,
            Self::At(rows) => take(column, rows, None)?,
        })
    }

    /// The first of them, at most `rows`.
    pub(super) fn at_most(self, rows: usize) -> Self {
        match self {
            few if few.len() <= rows => few,
            Self::First(_) => Self::First(rows),
            Self::Marked(mask) => Self::At(positions(&mask).slice(0, rows)),
            Self::At(at) => Self::At(at.slice(0, rows)),
        }
    }

    /// Those of them for which `mask` is true, which has a row for each of them. Of [`Chosen::First`] all rows of the
    /// chunk are meant.
    ///
    /// # Errors
    /// A kernel's failure.
    pub(super) fn narrowed(self, mask: BooleanArray) -> Result<Self, ArrowError> {
        let before = match self {
            Self::First(_) => None,
            Self::Marked(before) => Some(positions(&before)),
            Self::At(rows) => Some(rows),
        };
        if let Some(before) = before {
            return Ok(Self::At(filter(&before, &mask)?.as_primitive().clone()));
        }
        let count = mask.true_count();
        Ok(match count {
            _ if count == mask.len() => Self::First(count),
            _ if count * SPARSE_SHARE < mask.len() => Self::At(positions(&mask)),
            _ => Self::Marked(mask),
        })
    }
}

/// Where `mask` is true.
fn positions(mask: &BooleanArray) -> UInt32Array {
    let mut at = Vec::with_capacity(mask.true_count());
    at.extend(mask.values().set_indices_u32());
    UInt32Array::from(at)
}
