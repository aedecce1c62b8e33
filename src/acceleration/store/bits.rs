//! `IN` lists of whole numbers as bits: one look for each row, at a place that the row's number names.
//!
//! The filters that joins make list the keys of their smaller side, and DataFusion hashes each row's key to find it among
//! them. Keys of tables lie close to each other; where the list spans few enough numbers, a bit for each of them says
//! the same for a tenth of the time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Int32Type, Int64Type, Schema, UInt32Type};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{InListExpr, Literal};
use datafusion::physical_plan::PhysicalExpr;

/// Shorter lists are compared number by number.
const LIST_MIN: usize = 8;
/// 4 MiB: a core's own cache has the half of it, and a look outside of it still is a fraction of a hash table's.
const SPAN_MAX: u64 = 1 << 25;

/// `expr` with bits in place of lists, where they can be.
///
/// # Errors
/// None that is known: a node takes children of the types that it had.
pub(super) fn in_bits(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let bits = |expr: Arc<dyn PhysicalExpr>| {
        Ok(InBits::of(&expr)
            .map_or_else(|| Transformed::no(expr), |bits| Transformed::yes(Arc::new(bits) as _)))
    };
    expr.transform_up(bits).data()
}

/// Whether a number is in a list that names no NULL.
#[derive(Debug, Clone)]
struct InBits {
    number: Arc<dyn PhysicalExpr>,
    list: Arc<Bits>,
    plain: Arc<dyn PhysicalExpr>,
}

/// A bit for each number from `least` on.
#[derive(Debug)]
pub(super) struct Bits {
    least: i64,
    words: Vec<u64>,
}

impl Bits {
    /// What they take for the numbers from `least` to `greatest`; none where that is too much.
    pub(super) fn bytes(least: i64, greatest: i64) -> Option<usize> {
        let span = greatest.wrapping_sub(least) as u64;
        (least <= greatest && span < SPAN_MAX).then(|| (span as usize / 64 + 1) * 8)
    }

    /// None of the numbers from `least` to `greatest`.
    pub(super) fn none(least: i64, greatest: i64) -> Option<Self> {
        Some(Self { least, words: vec![0; Self::bytes(least, greatest)? / 8] })
    }

    fn of_all(numbers: &[i64]) -> Option<Self> {
        let mut bits = Self::none(*numbers.iter().min()?, *numbers.iter().max()?)?;
        numbers.iter().for_each(|number| bits.insert(*number));
        Some(bits)
    }

    fn insert(&mut self, number: i64) {
        let at = number.wrapping_sub(self.least) as u64;
        if let Some(word) = self.words.get_mut((at / 64) as usize) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, number: i64) -> bool {
        let at = number.wrapping_sub(self.least) as u64;
        match self.words.get((at / 64) as usize) {
            Some(word) => word >> (at % 64) & 1 == 1,
            None => false,
        }
    }

    /// Those that are not NULL, as far as there are bits for them. False where `numbers` are of no type that can be.
    pub(super) fn add(&mut self, numbers: &ArrayRef) -> bool {
        match numbers.data_type() {
            DataType::Int32 => self.add_rows::<Int32Type>(numbers.as_primitive()),
            DataType::Int64 => self.add_rows::<Int64Type>(numbers.as_primitive()),
            DataType::UInt32 => self.add_rows::<UInt32Type>(numbers.as_primitive()),
            _ => return false,
        }
        true
    }

    fn add_rows<T: ArrowPrimitiveType<Native: Into<i64>>>(&mut self, numbers: &PrimitiveArray<T>) {
        match numbers.null_count() {
            0 => numbers.values().iter().for_each(|number| self.insert((*number).into())),
            _ => numbers.iter().flatten().for_each(|number| self.insert(number.into())),
        }
    }

    /// Which of `numbers` are there, NULL where the number is. None where they are of no type that can be.
    pub(super) fn of(&self, numbers: &ArrayRef) -> Option<BooleanArray> {
        match numbers.data_type() {
            DataType::Int32 => Some(self.of_rows::<Int32Type>(numbers.as_primitive())),
            DataType::Int64 => Some(self.of_rows::<Int64Type>(numbers.as_primitive())),
            DataType::UInt32 => Some(self.of_rows::<UInt32Type>(numbers.as_primitive())),
            _ => None,
        }
    }

    fn of_rows<T: ArrowPrimitiveType<Native: Into<i64>>>(&self, numbers: &PrimitiveArray<T>) -> BooleanArray {
        let values = numbers.values();
        let has = BooleanBuffer::collect_bool(values.len(), |at| self.has(values[at].into()));
        BooleanArray::new(has, numbers.nulls().cloned())
    }
}

impl InBits {
    fn of(plain: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let list = plain.downcast_ref::<InListExpr>()?;
        if list.negated() || list.len() < LIST_MIN {
            return None;
        }
        let number = |item: &Arc<dyn PhysicalExpr>| match item.downcast_ref::<Literal>()?.value() {
            ScalarValue::Int32(Some(number)) => Some(i64::from(*number)),
            ScalarValue::Int64(Some(number)) => Some(*number),
            _ => None,
        };
        let numbers = list.list().iter().map(number).collect::<Option<Vec<_>>>()?;
        Some(Self {
            number: Arc::clone(list.expr()),
            list: Arc::new(Bits::of_all(&numbers)?),
            plain: Arc::clone(plain),
        })
    }
}

impl PhysicalExpr for InBits {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.plain.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.plain.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let numbers = match self.number.evaluate(batch)? {
            ColumnarValue::Array(numbers) => numbers,
            ColumnarValue::Scalar(_) => return self.plain.evaluate(batch),
        };
        match self.list.of(&numbers) {
            Some(found) => Ok(ColumnarValue::Array(Arc::new(found))),
            None => self.plain.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.plain.children()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        in_bits(Arc::clone(&self.plain).with_new_children(children)?)
    }

    fn fmt_sql(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plain.fmt_sql(out)
    }
}

impl fmt::Display for InBits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plain.fmt(out)
    }
}

impl PartialEq for InBits {
    fn eq(&self, other: &Self) -> bool {
        self.plain.eq(&other.plain)
    }
}

impl Eq for InBits {}

impl Hash for InBits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array};
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{cast, col, in_list, lit};
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => -300_i64..300,
            2 => -20_000_000_i64..20_000_000,
            1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, i32::MAX.into(), i32::MIN.into()]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bits_say_what_lists_say(
            list in prop::collection::vec(number(), 0..40), around in any::<bool>(),
            rows in prop::collection::vec(prop::option::of(number()), 0..90), of_i32 in any::<bool>(), negated in any::<bool>(),
        ) {
            // All near the first one, wherever that is.
            let near = |at: usize, value: i64| if around { list[0].wrapping_add(at as i64 * 7) } else { value };
            let list: Vec<i64> = list.iter().enumerate().map(|(at, value)| near(at, *value)).collect();
            let fits = |value: &i64| !of_i32 || i32::try_from(*value).is_ok();
            let list: Vec<_> = list.into_iter().filter(fits).collect();
            let mut rows: Vec<Option<i64>> = rows.into_iter().map(|row| row.filter(fits)).collect();
            rows.extend(list.iter().map(|value| Some(*value)));
            let column: ArrayRef = match of_i32 {
                true => Arc::new(rows.iter().map(|row| row.map(|row| i32::try_from(row).unwrap())).collect::<Int32Array>()),
                false => Arc::new(Int64Array::from(rows)),
            };
            let schema = Arc::new(Schema::new(vec![Field::new("n", column.data_type().clone(), true)]));
            let item = |value: i64| match of_i32 {
                true => lit(i32::try_from(value).unwrap()),
                false => lit(value),
            };
            let list = list.into_iter().map(item).collect();
            let Ok(plain) = in_list(col("n", &schema).unwrap(), list, &negated, &schema) else { return Ok(()) };
            let bits = in_bits(Arc::clone(&plain)).unwrap();
            let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
            let rows = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
            prop_assert_eq!(&rows(&plain), &rows(&bits));
        }
    }

    #[test]
    fn lists_that_are_long_and_near_become_bits() {
        let schema = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        let column = || col("n", &schema).unwrap();
        let is_bits = |items: Vec<Arc<dyn PhysicalExpr>>, negated| {
            let list = in_list(column(), items, &negated, &schema).unwrap();
            in_bits(list).unwrap().is::<InBits>()
        };
        let near = || (0..20).map(|at| lit(at * 1_000)).collect::<Vec<_>>();
        assert!(is_bits(near(), false));
        assert!(!is_bits(near(), true));
        assert!(!is_bits(near()[..5].to_vec(), false));
        assert!(!is_bits((0..20).map(|at| lit(at * 10_000_000)).collect(), false));
        assert!(!is_bits([near(), vec![lit(ScalarValue::Int32(None))]].concat(), false));
        // Of a cast the result is looked at.
        let wide = cast(column(), &schema, DataType::Int64).unwrap();
        let list = in_list(wide, (0..20_i64).map(lit).collect(), &false, &schema).unwrap();
        assert!(in_bits(list).unwrap().is::<InBits>());
    }
}
