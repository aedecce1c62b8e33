//! Which chunks, and which rows, a filter can be true for, decided without reading them.
//!
//! Every answer may name too much and never too little: the filter itself is applied to what is read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use super::keys::short;
use super::{Generation, Key, hash};

/// For each chunk whether `predicate` may be true for one of its rows.
pub(super) fn kept(generation: &Generation, predicate: &Arc<dyn PhysicalExpr>) -> Vec<bool> {
    let all = || vec![true; generation.chunks().len()];
    let schema = Arc::clone(generation.layout().schema());
    let pruning = PruningPredicateBuilder::new().with_file_schema(schema).build(Arc::clone(predicate));
    match pruning.map(|pruning| pruning.prune(&Known(generation))) {
        None => all(),
        Some(Ok(kept)) => kept,
        Some(Err(error)) => {
            tracing::debug!(%error, %predicate, "a filter skips no chunk");
            all()
        }
    }
}

/// Where a filter fixes every column of a key: the rows that may have it, by the position of their chunk. None where
/// no key is fixed.
pub(super) fn found(generation: &Generation, filters: &[Expr]) -> Option<BTreeMap<usize, Vec<u32>>> {
    let fixed: HashMap<usize, &ScalarValue> =
        filters.iter().flat_map(split_conjunction).filter_map(|filter| fixed(generation, filter)).collect();
    let keys = generation.layout().keys().iter().zip(generation.indexes());
    // A unique key names one row at most.
    let covered = keys.filter(|(key, _)| key.columns.iter().all(|column| fixed.contains_key(column)));
    let (key, index) = covered.max_by_key(|(key, _)| key.is_unique())?;
    let hash = hash_of(key, &fixed)?;
    let mut rows: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for place in index.candidates(short(hash), generation.positions()) {
        rows.entry(place.chunk).or_default().push(place.row);
    }
    rows.values_mut().for_each(|rows| rows.sort_unstable());
    Some(rows)
}

fn hash_of(key: &Key, fixed: &HashMap<usize, &ScalarValue>) -> Option<u64> {
    let value = |column: &usize| fixed.get(column)?.to_array().ok();
    let columns: Vec<ArrayRef> = key.columns.iter().map(value).collect::<Option<_>>()?;
    hash::of_rows(&columns, 1).ok()?.pop()
}

/// `column = literal` of the column's own type, either way round: a literal that would be cast could equal values
/// that hash otherwise.
fn fixed<'a>(generation: &Generation, filter: &'a Expr) -> Option<(usize, &'a ScalarValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
            (column, value)
        }
        _ => return None,
    };
    let schema = generation.layout().schema();
    let at = schema.index_of(&column.name).ok()?;
    let kind = match schema.field(at).data_type() {
        DataType::Dictionary(_, values) => values,
        kind => kind,
    };
    (!value.is_null() && value.data_type() == *kind).then_some((at, value))
}

/// The summaries of a generation's chunks.
struct Known<'a>(&'a Generation);

impl Known<'_> {
    fn values(
        &self,
        column: &Column,
        pick: fn(&(ScalarValue, ScalarValue)) -> &ScalarValue,
    ) -> Option<ArrayRef> {
        let schema = self.0.layout().schema();
        let at = schema.index_of(&column.name).ok()?;
        let unknown = ScalarValue::try_from(schema.field(at).data_type()).ok()?;
        if self.0.chunks().is_empty() {
            return Some(new_null_array(schema.field(at).data_type(), 0));
        }
        let bounds = self.0.chunks().iter().map(|chunk| chunk.columns()[at].bounds.as_ref());
        ScalarValue::iter_to_array(
            bounds.map(|bounds| bounds.map_or_else(|| unknown.clone(), |b| pick(b).clone())),
        )
        .ok()
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |(least, _)| least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |(_, greatest)| greatest)
    }

    fn num_containers(&self) -> usize {
        self.0.chunks().len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let at = self.0.layout().schema().index_of(&column.name).ok()?;
        let nulls = self.0.chunks().iter().map(|chunk| chunk.columns()[at].nulls as u64);
        Some(Arc::new(UInt64Array::from_iter_values(nulls)))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.chunks().iter().map(|chunk| chunk.rows() as u64))))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
