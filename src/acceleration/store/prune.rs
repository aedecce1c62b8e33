//! Which chunks, and which rows, a filter can be true for, decided without reading them.
//!
//! Every answer may name too much and never too little: the filter itself is applied to what is read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use super::keys::short;
use super::{Generation, Key, hash};

/// More values than this are not looked up one by one.
const LOOKUPS_MAX: usize = 1_000;

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

/// Where filters leave few values for every column of a key: the rows that may have them, by the position of their
/// chunk. None where they do for no key.
pub(super) fn found(generation: &Generation, filters: &[Expr]) -> Option<BTreeMap<usize, Vec<u32>>> {
    let mut fixed: HashMap<usize, Vec<&ScalarValue>> = HashMap::new();
    for (column, values) in filters.iter().flat_map(split_conjunction).filter_map(|f| fixed_by(generation, f))
    {
        // Of two filters on a column either one alone names every row.
        fixed.entry(column).or_insert(values);
    }
    let keys = generation.layout().keys().iter().zip(generation.indexes());
    // A unique key names one row at most.
    let covered = keys.filter(|(key, _)| key.columns.iter().all(|column| fixed.contains_key(column)));
    let (key, index) = covered.max_by_key(|(key, _)| key.is_unique())?;
    let mut rows: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for hash in hashes_of(key, &fixed)? {
        for place in index.candidates(short(hash), generation.positions()) {
            rows.entry(place.chunk).or_default().push(place.row);
        }
    }
    for rows in rows.values_mut() {
        rows.sort_unstable();
        rows.dedup();
    }
    Some(rows)
}

/// The hash of every combination of values; none where they are too many to look up.
fn hashes_of(key: &Key, fixed: &HashMap<usize, Vec<&ScalarValue>>) -> Option<Vec<u64>> {
    let values: Vec<&Vec<&ScalarValue>> =
        key.columns.iter().map(|column| fixed.get(column)).collect::<Option<_>>()?;
    let combinations = values.iter().try_fold(1_usize, |all, values| all.checked_mul(values.len()))?;
    if combinations > LOOKUPS_MAX {
        return None;
    }
    let mut period = 1;
    let columns = values.iter().map(|values| {
        // Each value stands as long as the columns before take to go round.
        let stands = period;
        period *= values.len();
        let all = (0..combinations).map(|at| values[at / stands % values.len()].clone());
        ScalarValue::iter_to_array(all).ok()
    });
    let columns: Vec<ArrayRef> = match combinations {
        0 => return Some(Vec::new()),
        _ => columns.collect::<Option<_>>()?,
    };
    hash::of_rows(&columns, combinations).ok()
}

/// The values that a filter leaves to one column: `column = literal`, `column IN (literals)`, or these joined by OR.
fn fixed_by<'a>(generation: &Generation, filter: &'a Expr) -> Option<(usize, Vec<&'a ScalarValue>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut values) = fixed_by(generation, left)?;
            let (other, more) = fixed_by(generation, right)?;
            values.extend(more);
            (column == other && values.len() <= LOOKUPS_MAX).then_some((column, values))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _))
                | (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
                _ => return None,
            };
            Some((position(generation, column, value)?, vec![value]))
        }
        Expr::InList(InList { expr, list, negated: false }) if list.len() <= LOOKUPS_MAX => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let value = |item: &'a Expr| match item {
                Expr::Literal(value, _) => Some((position(generation, column, value)?, value)),
                _ => None,
            };
            let found: Vec<(usize, &ScalarValue)> = list.iter().map(value).collect::<Option<_>>()?;
            let at = found.first()?.0;
            Some((at, found.into_iter().map(|(_, value)| value).collect()))
        }
        _ => None,
    }
}

/// Where `column` stands, for a literal of its own type: one that would be cast could equal values that hash
/// otherwise. NULL equals nothing, and is left to the filter.
fn position(generation: &Generation, column: &Column, value: &ScalarValue) -> Option<usize> {
    let schema = generation.layout().schema();
    let at = schema.index_of(&column.name).ok()?;
    let kind = match schema.field(at).data_type() {
        DataType::Dictionary(_, values) => values,
        kind => kind,
    };
    (!value.is_null() && value.data_type() == *kind).then_some(at)
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
