//! Arithmetic of decimals in machine words, where their values are small enough.
//!
//! Arrow multiplies, adds and subtracts decimals of 128 bits with a look for overflow at each step, some 10 ns a row; sums
//! of money that a report multiplies were half of its time. Nearly all values fit into 64 bits, and then nothing can
//! overflow: a product of two such has 126 bits at most. Each batch is looked at while it is computed, and computed by
//! Arrow where a value does not fit. Types and values are the same either way.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::ExprProperties;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;

/// The rule: for what is projected and what is aggregated.
#[derive(Debug)]
pub(super) struct DecimalsInWords;

impl PhysicalOptimizerRule for DecimalsInWords {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        plan.transform_up(|plan| {
            let rewritten = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
                projected(projection)?
            } else if let Some(groups) = plan.downcast_ref::<AggregateExec>() {
                aggregated(groups)?
            } else {
                None
            };
            Ok(rewritten.map_or_else(|| Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "DecimalsInWords"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn projected(projection: &ProjectionExec) -> Result<Option<Plan>> {
    let schema = projection.input().schema();
    let mut is_other = false;
    let mut expressions = Vec::with_capacity(projection.expr().len());
    for ProjectionExpr { expr, alias } in projection.expr() {
        let expr = in_words(expr, &schema)?;
        is_other |= expr.transformed;
        expressions.push(ProjectionExpr { expr: expr.data, alias: alias.clone() });
    }
    if !is_other {
        return Ok(None);
    }
    Ok(Some(Arc::new(ProjectionExec::try_new(expressions, Arc::clone(projection.input()))?)))
}

fn aggregated(groups: &AggregateExec) -> Result<Option<Plan>> {
    // Others read states.
    if groups.mode().input_mode() != AggregateInputMode::Raw {
        return Ok(None);
    }
    let schema = groups.input().schema();
    let mut is_other = false;
    let mut functions = Vec::with_capacity(groups.aggr_expr().len());
    for function in groups.aggr_expr() {
        let rewritten = with_arguments_in_words(function, &schema)?;
        is_other |= rewritten.is_some();
        functions.push(rewritten.map_or_else(|| Arc::clone(function), Arc::new));
    }
    Ok(is_other.then(|| Arc::new(groups.with_new_aggr_exprs(functions)) as Plan))
}

fn with_arguments_in_words(
    function: &AggregateFunctionExpr,
    schema: &Schema,
) -> Result<Option<AggregateFunctionExpr>> {
    let read = function.all_expressions();
    let mut is_other = false;
    let mut arguments = Vec::with_capacity(read.args.len());
    for argument in &read.args {
        let argument = in_words(argument, schema)?;
        is_other |= argument.transformed;
        arguments.push(argument.data);
    }
    Ok(if is_other { function.with_new_expressions(arguments, read.order_by_exprs) } else { None })
}

fn in_words(expr: &Expr, schema: &Schema) -> Result<Transformed<Expr>> {
    Arc::clone(expr).transform_up(|expr| match expr.downcast_ref::<BinaryExpr>() {
        Some(plain) => Ok(match InWords::of(plain, schema)? {
            Some(narrow) => Transformed::yes(Arc::new(narrow) as Expr),
            None => Transformed::no(expr),
        }),
        None => Ok(Transformed::no(expr)),
    })
}

/// A sum, difference or product of two decimals of 128 bits.
#[derive(Debug, Clone)]
struct InWords {
    plain: BinaryExpr,
    precision: u8,
    scale: i8,
}

/// What stands on one side.
enum Side<'a> {
    Rows(&'a Decimal128Array),
    One(i128),
}

impl InWords {
    /// None for any other operation, and for other types.
    fn of(plain: &BinaryExpr, schema: &Schema) -> Result<Option<Self>> {
        if !matches!(plain.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(None);
        }
        let types =
            (plain.left().data_type(schema)?, plain.right().data_type(schema)?, plain.data_type(schema)?);
        Ok(match types {
            (DataType::Decimal128(..), DataType::Decimal128(..), DataType::Decimal128(precision, scale)) => {
                Some(Self { plain: plain.clone(), precision, scale })
            }
            _ => None,
        })
    }

    /// None where a value has more than 64 bits, or where there are no rows to compute.
    fn computed(&self, left: &ColumnarValue, right: &ColumnarValue) -> Result<Option<Decimal128Array>> {
        let (Some((left, left_scale)), Some((right, right_scale))) = (side(left), side(right)) else {
            return Ok(None);
        };
        // Either side is brought to the scale of the result; a product has the sum of both.
        let (by_left, by_right) = match self.plain.op() {
            Operator::Multiply => (Some(1), Some(1)),
            _ => (factor(left_scale, self.scale), factor(right_scale, self.scale)),
        };
        let (Some(by_left), Some(by_right)) = (by_left, by_right) else { return Ok(None) };
        let scaled = |left: i64, right: i64| {
            (i128::from(left) * i128::from(by_left), i128::from(right) * i128::from(by_right))
        };
        let values = match self.plain.op() {
            Operator::Multiply => each(&left, &right, |left, right| i128::from(left) * i128::from(right)),
            Operator::Plus => each(&left, &right, |left, right| {
                let (left, right) = scaled(left, right);
                left + right
            }),
            _ => each(&left, &right, |left, right| {
                let (left, right) = scaled(left, right);
                left - right
            }),
        };
        let Some(values) = values else { return Ok(None) };
        let nulls = NullBuffer::union(left.nulls(), right.nulls());
        let computed = Decimal128Array::try_new(values.into(), nulls)?;
        Ok(Some(computed.with_precision_and_scale(self.precision, self.scale)?))
    }
}

/// With its scale.
fn side(value: &ColumnarValue) -> Option<(Side<'_>, i8)> {
    match value {
        ColumnarValue::Array(rows) => match rows.data_type() {
            DataType::Decimal128(_, scale) => {
                Some((Side::Rows(rows.as_primitive_opt::<Decimal128Type>()?), *scale))
            }
            _ => None,
        },
        ColumnarValue::Scalar(ScalarValue::Decimal128(Some(one), _, scale)) => {
            Some((Side::One(*one), *scale))
        }
        ColumnarValue::Scalar(_) => None,
    }
}

/// What a value of scale `from` is multiplied by at scale `to`; none where that has more than 63 bits.
fn factor(from: i8, to: i8) -> Option<i64> {
    let digits = u32::try_from(i32::from(to) - i32::from(from)).ok()?;
    10_i64.checked_pow(digits)
}

impl Side<'_> {
    fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Self::Rows(rows) => rows.nulls(),
            Self::One(_) => None,
        }
    }
}

/// `compute` of each row, those that are NULL included. None where a value does not fit, and where both sides are one.
fn each(left: &Side<'_>, right: &Side<'_>, compute: impl Fn(i64, i64) -> i128) -> Option<Vec<i128>> {
    // Looked at once, after all rows: a branch for each would cost as much as what it saves.
    let mut lost = 0;
    let mut row = |left: i128, right: i128| {
        lost |= more_than_a_word(left) | more_than_a_word(right);
        compute(left as i64, right as i64)
    };
    let values: Vec<i128> = match (left, right) {
        (Side::Rows(left), Side::Rows(right)) if left.len() == right.len() => {
            left.values().iter().zip(right.values()).map(|(left, right)| row(*left, *right)).collect()
        }
        (Side::Rows(left), Side::One(right)) => left.values().iter().map(|left| row(*left, *right)).collect(),
        (Side::One(left), Side::Rows(right)) => {
            right.values().iter().map(|right| row(*left, *right)).collect()
        }
        _ => return None,
    };
    (lost == 0).then_some(values)
}

/// Zero where `value` is what its lower 64 bits say.
#[inline]
fn more_than_a_word(value: i128) -> i64 {
    (value >> 64) as i64 ^ ((value as i64) >> 63)
}

impl PhysicalExpr for InWords {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(DataType::Decimal128(self.precision, self.scale))
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.plain.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.plain.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let left = self.plain.left().evaluate(batch)?;
        let right = self.plain.right().evaluate(batch)?;
        match self.computed(&left, &right)? {
            Some(computed) => Ok(ColumnarValue::Array(Arc::new(computed))),
            None => self.plain.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.plain.children()
    }

    /// Plain ones: their types may be others.
    fn with_new_children(self: Arc<Self>, children: Vec<Expr>) -> Result<Expr> {
        Arc::new(self.plain.clone()).with_new_children(children)
    }

    fn get_properties(&self, children: &[ExprProperties]) -> Result<ExprProperties> {
        self.plain.get_properties(children)
    }

    fn fmt_sql(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plain.fmt_sql(out)
    }
}

impl fmt::Display for InWords {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plain.fmt(out)
    }
}

impl PartialEq for InWords {
    fn eq(&self, other: &Self) -> bool {
        self.plain == other.plain
    }
}

impl Eq for InWords {}

impl Hash for InWords {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{col, lit};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed, TestRunner};

    use super::*;

    /// Small ones, those around a word's ends, and those of all bits.
    fn value() -> impl Strategy<Value = Option<i128>> {
        let ends = prop::sample::select(vec![
            i128::from(i64::MAX),
            i128::from(i64::MIN),
            i128::from(i64::MAX) + 1,
            i128::from(i64::MIN) - 1,
            i128::MAX,
            i128::MIN,
            10_i128.pow(37),
        ]);
        prop_oneof![
            20 => (-1_000_000_i128..1_000_000).prop_map(Some),
            5 => any::<i64>().prop_map(|value| Some(value.into())),
            1 => ends.prop_map(Some),
            1 => any::<i128>().prop_map(Some),
            2 => Just(None),
        ]
    }

    fn kind() -> impl Strategy<Value = (u8, i8)> {
        (1_u8..=38).prop_flat_map(|precision| (Just(precision), -3_i8..=precision as i8))
    }

    fn column(values: &[Option<i128>], (precision, scale): (u8, i8)) -> Arc<Decimal128Array> {
        let column: Decimal128Array = values.iter().copied().collect();
        Arc::new(column.with_precision_and_scale(precision, scale).unwrap())
    }

    /// Rows of two columns, the types of these, an operation, and which side is the first row's alone.
    type Case = (Vec<(Option<i128>, Option<i128>)>, (u8, i8), (u8, i8), Operator, [bool; 2]);

    fn case() -> impl Strategy<Value = Case> {
        let op = prop::sample::select(vec![Operator::Plus, Operator::Minus, Operator::Multiply]);
        (prop::collection::vec((value(), value()), 1..12), kind(), kind(), op, any::<[bool; 2]>())
    }

    #[test]
    fn words_and_arrow_agree() {
        let cases = if std::env::var_os("SIDEWING_LONG").is_some() { 1_000_000 } else { 5_000 };
        let config =
            Config { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() };
        let narrow = std::cell::Cell::new(0);
        let result = TestRunner::new(config).run(&case(), |(values, left, right, op, is_one)| {
            let (of_left, of_right): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            let columns = [column(&of_left, left), column(&of_right, right)];
            let fields = columns.iter().zip(["l", "r"]);
            let fields = fields.map(|(column, name)| Field::new(name, column.data_type().clone(), true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let sides = [(0, "l", of_left[0], left), (1, "r", of_right[0], right)];
            let [left, right] = sides.map(|(at, name, first, (precision, scale))| match is_one[at] {
                true => lit(ScalarValue::Decimal128(first, precision, scale)),
                false => col(name, &schema).unwrap(),
            });
            let plain: Expr = Arc::new(BinaryExpr::new(left, op, right));
            let Ok(rewritten) = in_words(&plain, &schema) else { return Ok(()) };
            let columns = columns.map(|column| column as _).to_vec();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            let rows =
                |expr: &Expr| expr.evaluate(&batch).and_then(|value| value.into_array(batch.num_rows()));
            match (rows(&plain), rows(&rewritten.data)) {
                (Ok(plain), Ok(words)) => prop_assert_eq!(&plain, &words),
                (Err(plain), Err(words)) => prop_assert_eq!(plain.to_string(), words.to_string()),
                (plain, words) => prop_assert!(false, "{plain:?} and {words:?}"),
            }
            if let Some(words) = rewritten.data.downcast_ref::<InWords>() {
                let sides =
                    [words.plain.left(), words.plain.right()].map(|side| side.evaluate(&batch).unwrap());
                let is_narrow = words.computed(&sides[0], &sides[1]).unwrap().is_some();
                narrow.set(narrow.get() + u32::from(is_narrow));
            }
            Ok(())
        });
        result.unwrap();
        let narrow = narrow.get();
        assert!(narrow > cases / 20, "{narrow} of {cases} were computed in words");
    }

    #[tokio::test]
    async fn what_is_projected_and_aggregated_is_rewritten_and_answers_the_same() {
        let values: Vec<Option<i128>> = (0..5_000).map(|row| (row % 7 != 0).then_some(row * 977)).collect();
        let columns = [column(&values, (15, 2)), column(&values, (12, 4))];
        let fields = [("a", columns[0].data_type()), ("b", columns[1].data_type())];
        let fields = fields.map(|(name, kind)| Field::new(name, kind.clone(), true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), columns.map(|column| column as _).to_vec()).unwrap();
        let sql = "SELECT a % 3 AS k, sum(a * (1 - b)), sum(a * (1 - b) * (2 + b)), max(a - b), avg(a + b) \
                   FROM t GROUP BY a % 3 ORDER BY k";
        let mut answers = Vec::new();
        for is_ours in [true, false] {
            let config = SessionConfig::new().with_target_partitions(2);
            let state =
                datafusion::execution::SessionStateBuilder::new().with_config(config).with_default_features();
            let state = match is_ours {
                true => state.with_physical_optimizer_rule(Arc::new(DecimalsInWords)),
                false => state,
            };
            let context = SessionContext::new_with_state(state.build());
            context.register_batch("t", batch.clone()).unwrap();
            let frame = context.sql(sql).await.unwrap();
            let plan = frame.clone().create_physical_plan().await.unwrap();
            assert_eq!(in_words_of(&plan) > 3, is_ours);
            let rows = frame.collect().await.unwrap();
            answers.push(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string());
        }
        assert_eq!(answers[0], answers[1]);
    }

    fn in_words_of(plan: &Plan) -> usize {
        let count = |expr: &Expr| {
            let mut found = 0;
            let _ = expr.apply(|expr| {
                found += usize::from(expr.is::<InWords>());
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            });
            found
        };
        let own = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            projection.expr().iter().map(|expr| count(&expr.expr)).sum()
        } else if let Some(groups) = plan.downcast_ref::<AggregateExec>() {
            groups
                .aggr_expr()
                .iter()
                .flat_map(|function| function.expressions())
                .map(|expr| count(&expr))
                .sum()
        } else {
            0
        };
        own + plan.children().into_iter().map(in_words_of).sum::<usize>()
    }
}
