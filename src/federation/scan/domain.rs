//! What a filter lets each column hold: a physical filter enters, sets and ranges of values leave. Pure.
//!
//! It only widens: every row that the filter keeps, the domains keep. What it cannot read (a lookup in a
//! hash table, a function, the routing of partitions) says nothing. Columns are looked at one by one, as SQL
//! with keys would: pairs of a two-column key become two lists.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, lit};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNullExpr, Literal,
};
use datafusion::physical_plan::PhysicalExpr;

/// More keys of one column are sent as a range: databases plan long lists slowly, some refuse more than a
/// thousand, and a longer list saves less.
const KEYS_MAX: usize = 1_000;

/// The domains of columns, by position. A column that is not there may hold anything.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Domains {
    /// No row is kept.
    Nothing,
    Columns(BTreeMap<usize, Domain>),
}

/// What one column may hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Domain {
    pub values: Values,
    pub nulls: bool,
}

/// The values of a column that are not null.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Any,
    /// Sorted, without duplicates, at most [`KEYS_MAX`].
    OneOf(Vec<ScalarValue>),
    /// Both ends belong to it.
    Range {
        low: Option<ScalarValue>,
        high: Option<ScalarValue>,
    },
}

impl Domains {
    /// The domains of the rows that `filter`, over columns of `schema`, keeps.
    pub fn of(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Self {
        if let Some(literal) = filter.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Boolean(Some(false)) => Self::Nothing,
                // Neither true nor false keeps no row.
                value if value.is_null() => Self::Nothing,
                _ => Self::everything(),
            };
        }
        if let Some(binary) = filter.downcast_ref::<BinaryExpr>() {
            return match binary.op() {
                Operator::And => Self::of(binary.left(), schema).and(Self::of(binary.right(), schema)),
                Operator::Or => Self::of(binary.left(), schema).or(Self::of(binary.right(), schema)),
                _ => compared(binary, schema),
            };
        }
        if let Some(list) = filter.downcast_ref::<InListExpr>() {
            return listed(list, schema);
        }
        if let Some(is_null) = filter.downcast_ref::<IsNullExpr>() {
            return match is_null.arg().downcast_ref::<Column>() {
                Some(column) => Self::one(column.index(), Values::OneOf(Vec::new()), true),
                None => Self::everything(),
            };
        }
        match filter.downcast_ref::<CaseExpr>() {
            Some(case) => routed(case, schema),
            None => Self::everything(),
        }
    }

    pub fn everything() -> Self {
        Self::Columns(BTreeMap::new())
    }

    fn one(column: usize, values: Values, nulls: bool) -> Self {
        Self::Columns(BTreeMap::from([(column, Domain { values, nulls })]))
    }

    /// What both keep.
    pub fn and(self, other: Self) -> Self {
        let (Self::Columns(mut columns), Self::Columns(others)) = (self, other) else { return Self::Nothing };
        for (column, domain) in others {
            let both = match columns.remove(&column) {
                Some(known) => known.and(domain),
                None => domain,
            };
            if both.is_empty() {
                return Self::Nothing;
            }
            columns.insert(column, both);
        }
        match columns.values().any(Domain::is_empty) {
            true => Self::Nothing,
            false => Self::Columns(columns),
        }
    }

    /// What either keeps, column by column.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (Self::Columns(columns), Self::Columns(mut others)) => {
                let both = columns.into_iter().filter_map(|(column, domain)| {
                    others.remove(&column).map(|other| (column, domain.or(other)))
                });
                Self::Columns(both.collect())
            }
        }
    }
}

impl Domain {
    fn is_empty(&self) -> bool {
        let no_value = match &self.values {
            Values::Any => false,
            Values::OneOf(values) => values.is_empty(),
            Values::Range { low: Some(low), high: Some(high) } => low > high,
            Values::Range { .. } => false,
        };
        no_value && !self.nulls
    }

    fn and(self, other: Self) -> Self {
        Self { values: self.values.and(other.values), nulls: self.nulls && other.nulls }
    }

    fn or(self, other: Self) -> Self {
        Self { values: self.values.or(other.values), nulls: self.nulls || other.nulls }
    }

    /// The same without single values: at most two comparisons.
    pub fn as_range(&self) -> Self {
        Self { values: self.values.clone().hull(), nulls: self.nulls }
    }

    /// As a condition on `column`, whose type is `kind`; none where it says nothing.
    pub fn condition(&self, column: &Expr, kind: &DataType) -> Option<Expr> {
        let literal = |value: &ScalarValue| value.cast_to(kind).ok().map(lit);
        let values = match &self.values {
            Values::Any => return None,
            Values::OneOf(values) => {
                let mut literals = values.iter().map(literal).collect::<Option<Vec<_>>>()?;
                match literals.len() {
                    0 => None,
                    1 => literals.pop().map(|only| column.clone().eq(only)),
                    _ => Some(column.clone().in_list(literals, false)),
                }
            }
            Values::Range { low, high } => {
                let low = low.as_ref().and_then(literal).map(|low| column.clone().gt_eq(low));
                let high = high.as_ref().and_then(literal).map(|high| column.clone().lt_eq(high));
                let both = [low, high].into_iter().flatten().reduce(Expr::and);
                both.is_some().then_some(both)?
            }
        };
        match (values, self.nulls) {
            (Some(values), true) => Some(values.or(column.clone().is_null())),
            (None, true) => Some(column.clone().is_null()),
            (values, false) => values,
        }
    }
}

impl Values {
    /// Distinct values in order; a range where they are too many.
    fn one_of(mut values: Vec<ScalarValue>) -> Self {
        values.sort_by(order);
        values.dedup();
        let is_list = values.len() <= KEYS_MAX;
        let values = Self::OneOf(values);
        if is_list { values } else { values.hull() }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => one,
            (Self::OneOf(mut values), other) | (other, Self::OneOf(mut values)) => {
                values.retain(|value| other.holds(value));
                Self::OneOf(values)
            }
            (Self::Range { low, high }, Self::Range { low: other_low, high: other_high }) => {
                let low = match (low, other_low) {
                    (Some(a), Some(b)) => Some(if a < b { b } else { a }),
                    (one, None) | (None, one) => one,
                };
                let high = match (high, other_high) {
                    (Some(a), Some(b)) => Some(if a > b { b } else { a }),
                    (one, None) | (None, one) => one,
                };
                Self::Range { low, high }
            }
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::OneOf(mut values), Self::OneOf(others)) => {
                values.extend(others);
                Self::one_of(values)
            }
            // Of an empty list there is no range, and it adds nothing.
            (Self::OneOf(none), one) | (one, Self::OneOf(none)) if none.is_empty() => one,
            (one, other) => match (one.hull(), other.hull()) {
                (Self::Range { low, high }, Self::Range { low: other_low, high: other_high }) => {
                    let low = low.zip(other_low).map(|(a, b)| if a < b { a } else { b });
                    let high = high.zip(other_high).map(|(a, b)| if a > b { a } else { b });
                    Self::Range { low, high }
                }
                _ => Self::Any,
            },
        }
    }

    fn holds(&self, value: &ScalarValue) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(values) => values.binary_search_by(|known| order(known, value)).is_ok(),
            Self::Range { low, high } => {
                low.as_ref().is_none_or(|low| low <= value) && high.as_ref().is_none_or(|high| value <= high)
            }
        }
    }

    /// The range around all values; anything where the type has no range.
    fn hull(self) -> Self {
        match self {
            Self::OneOf(values) => match (values.first(), values.last()) {
                (Some(low), Some(high)) if has_range(&low.data_type()) => {
                    Self::Range { low: Some(low.clone()), high: Some(high.clone()) }
                }
                _ => Self::Any,
            },
            other => other,
        }
    }
}

/// The values of one domain are of one type, and those have an order.
fn order(a: &ScalarValue, b: &ScalarValue) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

/// `column op literal`, either way round.
fn compared(binary: &BinaryExpr, schema: &Schema) -> Domains {
    let (left, right) = (binary.left(), binary.right());
    let sides = match (left.downcast_ref::<Literal>(), right.downcast_ref::<Literal>()) {
        (None, Some(literal)) => Some((left, *binary.op(), literal)),
        (Some(literal), None) => binary.op().swap().map(|op| (right, op, literal)),
        _ => None,
    };
    let everything = Domains::everything();
    let Some((side, op, literal)) = sides else { return everything };
    let Some((column, kind)) = column_of(side, schema) else { return everything };
    let Fitted::Value(value) = fitted(literal.value(), &kind) else { return everything };
    let values = match op {
        Operator::Eq => Values::OneOf(vec![value]),
        Operator::Lt | Operator::LtEq if has_range(&kind) => Values::Range { low: None, high: Some(value) },
        Operator::Gt | Operator::GtEq if has_range(&kind) => Values::Range { low: Some(value), high: None },
        _ => return everything,
    };
    Domains::one(column, values, false)
}

/// `column IN (...)`, or `struct(column, column) IN (...)`, which is how several keys come.
fn listed(list: &InListExpr, schema: &Schema) -> Domains {
    if list.negated() {
        return Domains::everything();
    }
    let literals: Option<Vec<&ScalarValue>> =
        list.list().iter().map(|item| item.downcast_ref::<Literal>().map(Literal::value)).collect();
    let Some(literals) = literals else { return Domains::everything() };
    match list.expr().downcast_ref::<ScalarFunctionExpr>() {
        None => members(list.expr(), &literals, schema),
        Some(call) if call.name() == "struct" => {
            let columns = call.args().iter().enumerate().map(|(at, arg)| match part(&literals, at) {
                Some(parts) => members(arg, &parts.iter().collect::<Vec<_>>(), schema),
                None => Domains::everything(),
            });
            columns.fold(Domains::everything(), Domains::and)
        }
        Some(_) => Domains::everything(),
    }
}

/// The field at a position of every struct.
fn part(structs: &[&ScalarValue], at: usize) -> Option<Vec<ScalarValue>> {
    let field = |value: &&ScalarValue| match value {
        ScalarValue::Struct(array) => ScalarValue::try_from_array(array.columns().get(at)?, 0).ok(),
        _ => None,
    };
    structs.iter().map(field).collect()
}

fn members(expr: &Arc<dyn PhysicalExpr>, literals: &[&ScalarValue], schema: &Schema) -> Domains {
    let Some((column, kind)) = column_of(expr, schema) else { return Domains::everything() };
    let mut values = Vec::with_capacity(literals.len());
    for literal in literals {
        match fitted(literal, &kind) {
            Fitted::Value(value) => values.push(value),
            Fitted::Never => {}
            Fitted::Unknown => return Domains::everything(),
        }
    }
    match values.is_empty() {
        true => Domains::Nothing,
        false => Domains::one(column, Values::one_of(values), false),
    }
}

/// A join over hash partitions routes each row to the filter of its partition. Which one is not known
/// upstream: any of them may keep the row.
fn routed(case: &CaseExpr, schema: &Schema) -> Domains {
    let branches = case.when_then_expr().iter().map(|(_, then)| then).chain(case.else_expr());
    branches.map(|branch| Domains::of(branch, schema)).fold(Domains::Nothing, Domains::or)
}

/// The column behind casts that keep every value, and the plain type of its values.
fn column_of(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<(usize, DataType)> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        let kind = plain(schema.fields().get(column.index())?.data_type());
        return is_key(&kind).then_some((column.index(), kind));
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let (column, kind) = column_of(cast.expr(), schema)?;
    let to = plain(cast.cast_type());
    (kind == to || widens(&kind, &to)).then_some((column, kind))
}

/// Whether every integer of type `from` is one of type `to`: then equal and less mean the same in both.
fn widens(from: &DataType, to: &DataType) -> bool {
    let bits = |kind: &DataType| kind.primitive_width().unwrap_or(0) * 8;
    match (from.is_signed_integer(), to.is_signed_integer()) {
        _ if !(from.is_integer() && to.is_integer()) => false,
        (true, true) | (false, false) => bits(from) <= bits(to),
        (false, true) => bits(from) < bits(to),
        (true, false) => false,
    }
}

/// A type without its layout.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain(values),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        other => other.clone(),
    }
}

/// Types whose equality is the same everywhere. Floats are not: NaN, and zero that has a sign.
fn is_key(kind: &DataType) -> bool {
    has_range(kind) || matches!(kind, DataType::Utf8 | DataType::Boolean)
}

/// Types whose order is the same everywhere. That of strings depends on the collation.
fn has_range(kind: &DataType) -> bool {
    kind.is_integer()
        || kind.is_decimal()
        || matches!(
            kind,
            DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
                | DataType::Time32(_)
                | DataType::Time64(_)
        )
}

/// A literal as a value of a column's plain type.
enum Fitted {
    Value(ScalarValue),
    /// Nothing in the column equals it.
    Never,
    Unknown,
}

fn fitted(literal: &ScalarValue, kind: &DataType) -> Fitted {
    if literal.is_null() {
        return Fitted::Never;
    }
    let from = plain(&literal.data_type());
    if from != *kind && !(from.is_integer() && kind.is_integer()) {
        return Fitted::Unknown;
    }
    match literal.cast_to(kind) {
        Ok(value) if value.is_null() => Fitted::Never,
        Ok(value) => Fitted::Value(value),
        // The column was widened to the literal's type: a number beyond it is in no row.
        Err(_) => Fitted::Never,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::SchemaRef;
    use datafusion::common::{Column as LogicalColumn, DFSchema};
    use datafusion::execution::SessionStateBuilder;
    use datafusion::logical_expr::{Case, case};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn batch() -> RecordBatch {
        let a = [Some(1), Some(2), Some(3), Some(5), None, Some(2), None];
        let b = [Some(10), None, Some(-3), Some(10), Some(7), Some(0), None];
        let c = [Some("x"), Some("y"), None, Some(""), Some("x"), Some("z"), None];
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(a.to_vec())) as Arc<dyn Array>),
            ("b", Arc::new(Int32Array::from(b.to_vec()))),
            ("c", Arc::new(StringArray::from(c.to_vec()))),
        ])
        .unwrap()
    }

    fn physical(expr: &Expr, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
        let state = SessionStateBuilder::new().with_default_features().build();
        state.create_physical_expr(expr.clone(), &DFSchema::try_from(Arc::clone(schema)).unwrap()).unwrap()
    }

    fn keeps(filter: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> BooleanArray {
        let kept = filter.evaluate(batch).unwrap().into_array(batch.num_rows()).unwrap();
        kept.as_boolean().clone()
    }

    fn column(name: &str) -> Expr {
        Expr::Column(LogicalColumn::new_unqualified(name))
    }

    fn leaf() -> impl Strategy<Value = Expr> {
        let number = || prop_oneof![Just("a"), Just("b")];
        let value = -4i64..12;
        prop_oneof![
            (number(), value.clone(), 0usize..7).prop_map(|(name, value, op)| {
                let (column, value) = (column(name), lit(value));
                match op {
                    0 => column.eq(value),
                    1 => column.not_eq(value),
                    2 => column.lt(value),
                    3 => column.lt_eq(value),
                    4 => column.gt(value),
                    5 => value.lt(column),
                    _ => column.gt_eq(value),
                }
            }),
            (number(), prop::collection::vec(prop::option::weighted(0.8, value), 1..8), any::<bool>())
                .prop_map(|(name, values, negated)| column(name).in_list(
                    values.into_iter().map(|value| lit(ScalarValue::Int64(value))).collect(),
                    negated
                )),
            prop::collection::vec(prop_oneof![Just("x"), Just("y"), Just("")], 1..3)
                .prop_map(|texts| column("c").in_list(texts.into_iter().map(lit).collect(), false)),
            "[x-z]".prop_map(|text| column("c").lt_eq(lit(text))),
            prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(|name| column(name).is_null()),
            Just(column("a").is_not_null()),
            any::<bool>().prop_map(lit),
        ]
    }

    fn filter() -> impl Strategy<Value = Expr> {
        leaf().prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
                (inner.clone(), inner.clone(), any::<bool>()).prop_map(|(a, b, last)| {
                    let routed =
                        case(column("a") % lit(3i64)).when(lit(0i64), a).when(lit(1i64), b).end().unwrap();
                    match (routed, last) {
                        (Expr::Case(routed), true) => {
                            Expr::Case(Case { else_expr: Some(Box::new(lit(true))), ..routed })
                        }
                        (routed, _) => routed,
                    }
                }),
                inner.prop_map(|a| !a),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::with_cases(if std::env::var_os("SIDEWING_LONG").is_some() { 100_000 } else { 500 })
        })]

        /// What reaches the upstream keeps at least the rows that the filter keeps.
        #[test]
        fn domains_only_widen(filter in filter()) {
            let batch = batch();
            let schema = batch.schema();
            let physical_filter = physical(&filter, &schema);
            let kept = keeps(&physical_filter, &batch);
            match Domains::of(&physical_filter, &schema) {
                Domains::Nothing => prop_assert_eq!(kept.true_count(), 0),
                Domains::Columns(columns) => for (at, domain) in columns {
                    let field = schema.field(at);
                    let Some(condition) = domain.condition(&column(field.name()), field.data_type()) else { continue };
                    let wider = keeps(&physical(&condition, &schema), &batch);
                    for row in 0..batch.num_rows() {
                        let is_kept = kept.is_valid(row) && kept.value(row);
                        prop_assert!(!is_kept || (wider.is_valid(row) && wider.value(row)), "row {row} of {condition}");
                    }
                }
            }
        }
    }

    /// The conditions of a filter written in SQL.
    fn conditions(sql: &str) -> String {
        let schema = batch().schema();
        let state = SessionStateBuilder::new().with_default_features().build();
        let expr = state.create_logical_expr(sql, &DFSchema::try_from(Arc::clone(&schema)).unwrap()).unwrap();
        match Domains::of(&physical(&expr, &schema), &schema) {
            Domains::Nothing => "no row".to_owned(),
            Domains::Columns(columns) => columns
                .iter()
                .filter_map(|(at, domain)| {
                    let field = schema.field(*at);
                    Some(domain.condition(&column(field.name()), field.data_type())?.to_string())
                })
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    #[test]
    fn filters_as_joins_and_sorts_fill_them() {
        let filters = [
            // A join over one partition, over several, and one that was routed nowhere.
            "a >= 1 AND a <= 5 AND a IN (1, 3, 5)",
            "CASE a % 2 WHEN 0 THEN a >= 2 AND a <= 4 AND a IN (2, 4) WHEN 1 THEN a IN (1) ELSE false END",
            "CASE a % 2 WHEN 0 THEN a >= 2 AND a <= 4 WHEN 1 THEN a >= 1 AND a <= 9 ELSE false END",
            "CASE a % 2 WHEN 0 THEN a IN (2) ELSE true END",
            // Nulls that must come through.
            "a IS NULL OR (a >= 1 AND a <= 5)",
            "a IS NULL OR false",
            "a IN (1, NULL)",
            "a IN (NULL)",
            // Of two sort columns.
            "a < 5 OR (a = 5 AND b < 3)",
            "a IS NULL OR a < 5",
            // A narrow column against wide keys.
            "CAST(b AS BIGINT) IN (1, 5000000000)",
            "CAST(b AS BIGINT) >= -5000000000 AND CAST(b AS BIGINT) <= 7",
            // What says nothing.
            "c >= 'a' AND c <= 'm' AND c IN ('b', 'c')",
            "a + 1 IN (1, 2)",
            "a NOT IN (1)",
            "a = 1 OR b = 1",
            "a = 1 AND a = 2",
            "false",
        ];
        let shown: Vec<String> = filters.iter().map(|sql| format!("{sql}\n  {}", conditions(sql))).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn too_many_keys_become_a_range() {
        let keys = |last: i64| Values::one_of((0..=last).map(ScalarValue::from).collect());
        assert!(matches!(keys(KEYS_MAX as i64 - 1), Values::OneOf(_)));
        let range = Values::Range { low: Some(0i64.into()), high: Some((KEYS_MAX as i64).into()) };
        assert_eq!(keys(KEYS_MAX as i64), range);
        let texts = (0..=KEYS_MAX).map(|n| ScalarValue::from(n.to_string())).collect();
        assert_eq!(Values::one_of(texts), Values::Any);
    }

    #[test]
    fn only_integers_that_surely_fit_are_widened() {
        use DataType::{Int8, Int32, Int64, UInt8, UInt64};
        assert!(widens(&Int32, &Int64) && widens(&UInt8, &Int32) && widens(&UInt8, &UInt64));
        assert!(!widens(&Int64, &Int32) && !widens(&Int8, &UInt64) && !widens(&UInt64, &Int64));
    }
}
