//! The text that a number of [`Numbered`](super::numbered::Numbered) stands for, as an expression.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{take, unary};
use arrow::datatypes::{DataType, FieldRef, Schema, UInt32Type};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;

use super::numbered::Part;

/// A text for each number of a column.
#[derive(Debug, Clone)]
pub(super) struct TextOf {
    number: Arc<dyn PhysicalExpr>,
    part: Part,
    /// The column as it would have been read.
    field: FieldRef,
}

impl TextOf {
    /// `field` is that of the column that was numbered as `part`.
    pub(super) fn new(number: Arc<dyn PhysicalExpr>, part: Part, field: FieldRef) -> Self {
        Self { number, part, field }
    }
}

impl PhysicalExpr for TextOf {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn return_field(&self, _input: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let numbers = self.number.evaluate(batch)?.into_array(batch.num_rows())?;
        let (by, count) = (self.part.by, self.part.numbering.count());
        let own = |number: u32| ((number / by) as usize % count) as u32;
        let own: UInt32Array = unary(numbers.as_primitive::<UInt32Type>(), own);
        Ok(ColumnarValue::Array(take(self.part.numbering.texts(), &own, None)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.number]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let number = children.pop().unwrap_or_else(|| Arc::clone(&self.number));
        Ok(Arc::new(Self { number, ..Self::clone(&self) }))
    }

    fn fmt_sql(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for TextOf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "text_of({}, {})", self.field.name(), self.number)
    }
}

impl PartialEq for TextOf {
    fn eq(&self, other: &Self) -> bool {
        self.number.eq(&other.number)
            && Arc::ptr_eq(&self.part.numbering, &other.part.numbering)
            && self.part.by == other.part.by
    }
}

impl Eq for TextOf {}

impl Hash for TextOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
        self.part.by.hash(state);
    }
}
