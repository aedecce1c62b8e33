//! Logical plans with places for the literals that filters compare with.
//!
//! A plan is optimised with its places open, so that what the optimiser makes of it holds for every value; values are
//! put in afterwards, and the expressions that they stand in are computed as far as they can be.
//!
//! The optimiser is not made for that everywhere: it takes two places for two values when it intersects lists
//! (`a IN (x, y) AND a IN (z)`, also where they come from OR, `<>` or a join's other side), and finds nothing in both.
//! Therefore only plans of one table have places, without lists, OR and the like, each for one comparison.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Cast, Placeholder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

/// The plan with a place for each of the `marks` that a filter compares something with; none where one of them stands
/// elsewhere too, or where the plan is one that has no places.
///
/// # Errors
/// What rewriting a plan meets.
pub(super) fn opened(plan: LogicalPlan, marks: &[ScalarValue]) -> Result<Option<LogicalPlan>> {
    if !is_simple(&plan)? {
        return Ok(None);
    }
    let mut places = Places { marks, found: vec![0; marks.len()], equal: Vec::new() };
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::Filter(_) => node.map_expressions(|expr| expr.transform_down(|part| places.open(part))),
        other => Ok(Transformed::no(other)),
    });
    let plan = plan.data()?;
    let once = places.found.iter().all(|found| *found == 1);
    let twice = places.equal.iter().enumerate().any(|(at, side)| places.equal[..at].contains(side));
    let strays = exists(&plan, |part| matches!(part, Expr::Literal(value, _) if marks.contains(value)))?;
    Ok((once && !twice && !strays).then_some(plan))
}

/// One table, and nothing that the optimiser makes lists of.
fn is_simple(plan: &LogicalPlan) -> Result<bool> {
    let mut tables = 0;
    let mut is_known = true;
    // A subquery brings another table, or a step that is none of these.
    plan.apply_with_subqueries(|node| {
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        is_known &= matches!(
            node,
            LogicalPlan::TableScan(_)
                | LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::SubqueryAlias(_)
        );
        Ok(TreeNodeRecursion::Continue)
    })?;
    let has_more = exists(plan, |part| match part {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Operator::Or | Operator::NotEq),
        Expr::Not(_) | Expr::InList(_) | Expr::Case(_) => true,
        Expr::Between(Between { negated, .. }) => *negated,
        _ => false,
    })?;
    Ok(tables == 1 && is_known && !has_more)
}

fn exists(plan: &LogicalPlan, is_one: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(is_one(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The plan with these values in its places.
///
/// # Errors
/// A value that cannot be computed with, as one that is no date where a date is wanted.
pub(super) fn filled(plan: &LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    let filled = plan.clone().transform_down(|node| {
        let schema = schema(&node)?;
        node.map_expressions(|expr| {
            let filled = expr.transform_down(|part| Ok(put(part, values)))?;
            if !filled.transformed || !has_cast(&filled.data)? {
                return Ok(filled);
            }
            let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).build();
            ExprSimplifier::new(context).simplify(filled.data).map(Transformed::yes)
        })
    });
    filled.data()
}

/// What the expressions of a step are over.
fn schema(node: &LogicalPlan) -> Result<DFSchemaRef> {
    Ok(match (node, node.inputs().as_slice()) {
        (LogicalPlan::TableScan(scan), _) => {
            let table = scan.source.schema();
            Arc::new(DFSchema::try_from_qualified_schema(scan.table_name.clone(), &table)?)
        }
        (_, [input]) => Arc::clone(input.schema()),
        (_, inputs) => {
            let mut all = DFSchema::empty();
            inputs.iter().for_each(|input| all.merge(input.schema()));
            Arc::new(all)
        }
    })
}

fn has_cast(expr: &Expr) -> Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::Cast(_) | Expr::TryCast(_))))
}

fn put(part: Expr, values: &[ScalarValue]) -> Transformed<Expr> {
    let at = match &part {
        Expr::Placeholder(place) => place.id.strip_prefix('$').and_then(|at| at.parse::<usize>().ok()),
        _ => None,
    };
    match at.and_then(|at| values.get(at)) {
        Some(value) => Transformed::yes(Expr::Literal(value.clone(), None)),
        None => Transformed::no(part),
    }
}

struct Places<'a> {
    marks: &'a [ScalarValue],
    found: Vec<usize>,
    /// What is compared for equality.
    equal: Vec<Expr>,
}

impl Places<'_> {
    /// A comparison with places for the marks in it.
    fn open(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        use Operator::{Eq, Gt, GtEq, Lt, LtEq};
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if matches!(op, Eq | Lt | LtEq | Gt | GtEq) => {
                if op == Eq {
                    let sides = [left.as_ref(), right.as_ref()].into_iter();
                    self.equal.extend(sides.filter(|side| !matches!(side, Expr::Literal(..))).cloned());
                }
                let (left, right) = (self.place(left), self.place(right));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let (low, high) = (self.place(low), self.place(high));
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            other => Transformed::no(other),
        })
    }

    /// A place for a mark, also where the mark is given another type.
    fn place(&mut self, expr: Box<Expr>) -> Box<Expr> {
        let value = match *expr {
            Expr::Literal(ref value, _) => value,
            Expr::Cast(Cast { expr, field }) => {
                return Box::new(Expr::Cast(Cast { expr: self.place(expr), field }));
            }
            _ => return expr,
        };
        let Some(at) = self.marks.iter().position(|mark| mark == value) else { return expr };
        self.found[at] += 1;
        let field = Field::new("", value.data_type(), false);
        Box::new(Expr::Placeholder(Placeholder::new_with_field(format!("${at}"), Some(Arc::new(field)))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
        RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray,
    };
    use arrow::compute::concat_batches;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::super::shape::Shaped;
    use super::*;

    fn context() -> SessionContext {
        const ROWS: i32 = 60;
        let all = || 0..ROWS;
        let dates = all().map(|row| 19_000 + row);
        let moments = all().map(|row| 1_640_995_200_000 + i64::from(row) * 43_200_000);
        let cents = Decimal128Array::from_iter_values(all().map(|row| i128::from(row) * 25));
        let columns: [(&str, ArrayRef); 9] = [
            ("i", Arc::new(Int32Array::from_iter(all().map(|row| (row % 7 != 0).then_some(row - 20))))),
            ("l", Arc::new(Int64Array::from_iter_values(all().map(i64::from)))),
            ("f", Arc::new(Float64Array::from_iter_values(all().map(|row| f64::from(row) / 4.0)))),
            ("d", Arc::new(cents.with_precision_and_scale(10, 2).unwrap())),
            ("day", Arc::new(Date32Array::from_iter_values(dates))),
            ("at", Arc::new(TimestampMillisecondArray::from_iter_values(moments))),
            ("s", Arc::new(StringArray::from_iter_values(all().map(|row| row.to_string())))),
            ("v", Arc::new(StringViewArray::from_iter_values(all().map(|row| (row % 9).to_string())))),
            ("y", Arc::new(BooleanArray::from_iter(all().map(|row| Some(row % 2 == 0))))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let context = SessionContext::new();
        for name in ["t", "u"] {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        context
    }

    async fn answer(context: &SessionContext, plan: &LogicalPlan) -> String {
        let state = context.state();
        let rows = async {
            let plan = state.query_planner().create_physical_plan(plan, &state).await?;
            let schema = plan.schema();
            let rows = datafusion::physical_plan::collect(plan, context.task_ctx()).await?;
            Ok::<_, datafusion::error::DataFusionError>(concat_batches(&schema, &rows)?)
        };
        match rows.await {
            Ok(rows) => pretty_format_batches(&[rows]).unwrap().to_string(),
            Err(error) => format!("fails: {}", error.strip_backtrace().lines().next().unwrap_or_default()),
        }
    }

    /// The optimised plan of `sql`, by way of the one of `known`, a text of the same shape; none where that has no
    /// places for all of its literals.
    async fn by_way_of(context: &SessionContext, known: &str, sql: &str) -> Option<Result<LogicalPlan>> {
        let (known, sql) = (Shaped::of(known).unwrap(), Shaped::of(sql).unwrap());
        assert_eq!(known.shape, sql.shape);
        let (marked, marks) = known.shape.marked();
        let value = |(at, text): (usize, &str)| known.shape.value(at, text).unwrap();
        let marks: Vec<ScalarValue> = marks.iter().map(String::as_str).enumerate().map(value).collect();
        let state = context.state();
        let plan = state.create_logical_plan(&marked).await.ok()?;
        let plan = state.optimize(&opened(plan, &marks).unwrap()?).ok()?;
        let values: Vec<ScalarValue> = sql.literals.iter().copied().enumerate().map(value).collect();
        Some(filled(&plan, &values))
    }

    /// A statement of literals `{}` of one kind each, and two sets of literals for it.
    fn statement() -> impl Strategy<Value = (String, Vec<String>, Vec<String>)> {
        let number =
            || prop_oneof![(0..70_i64), Just(3_000_000_000)].prop_map(|value| value.to_string()).boxed();
        let decimal =
            || (0..1_500_u32).prop_map(|cents| format!("{}.{:02}", cents / 100, cents % 100)).boxed();
        let day =
            || (1..29_u32, 1..4_u32).prop_map(|(day, month)| format!("'2022-{month:02}-{day:02}'")).boxed();
        let word =
            || prop::sample::select(vec!["'5'", "'12'", "'it''s'", "''"]).prop_map(str::to_owned).boxed();
        let op = || prop::sample::select(vec!["=", "=", "<>", "<", "<=", ">", ">="]);
        let leaf = |column: &'static [&'static str], literal: fn() -> BoxedStrategy<String>| {
            (prop::sample::select(column), op(), literal(), literal(), literal(), literal(), 0..5).prop_map(
                |(column, op, a, b, c, d, form)| match form {
                    0 => (format!("{column} BETWEEN {{}} AND {{}}"), vec![a, b], vec![c, d]),
                    1 => (format!("{column} IN ({{}}, {{}})"), vec![a, b], vec![c, d]),
                    2 => (format!("{{}} {op} {column}"), vec![a], vec![b]),
                    _ => (format!("{column} {op} {{}}"), vec![a], vec![b]),
                },
            )
        };
        let part = prop_oneof![
            leaf(&["i", "l", "f", "d"], number),
            leaf(&["f", "d", "l"], decimal),
            leaf(&["day", "at"], day),
            leaf(&["s", "v"], word),
            leaf(&["s", "i", "y", "day"], word),
        ];
        let frame = prop::sample::select(vec![
            "SELECT * FROM t WHERE {}",
            "SELECT l + 1 AS x, v FROM t WHERE {} ORDER BY x DESC",
            "SELECT v, count(*) AS n FROM t WHERE {} GROUP BY v ORDER BY v",
            "SELECT a.l, b.v FROM t a JOIN u b ON a.l = b.l WHERE a.l IN (SELECT l FROM t WHERE {}) ORDER BY a.l",
            "SELECT x.l FROM (SELECT * FROM t WHERE {}) x LEFT JOIN u ON x.l = u.i ORDER BY x.l",
        ]);
        (frame, prop::collection::vec((part, any::<bool>()), 1..3)).prop_map(|(frame, parts)| {
            let (mut text, mut one, mut other) = (String::new(), Vec::new(), Vec::new());
            for (at, ((part, first, second), or)) in parts.into_iter().enumerate() {
                let link = if at == 0 {
                    ""
                } else if or {
                    " OR "
                } else {
                    " AND "
                };
                text = format!("{text}{link}{part}");
                one.extend(first);
                other.extend(second);
            }
            (frame.replacen("{}", &format!("({text})"), 1), one, other)
        })
    }

    fn with(text: &str, literals: &[String]) -> String {
        literals.iter().fold(text.to_owned(), |text, literal| text.replacen("{}", literal, 1))
    }

    #[test]
    fn a_filled_plan_answers_as_a_plan_of_its_own() {
        let cases = if std::env::var_os("SIDEWING_LONG").is_some() { 40_000 } else { 400 };
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let context = context();
        let mut same = 0;
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let counted = std::cell::RefCell::new(&mut same);
        runner
            .run(&statement(), |(text, one, other)| {
                let (one, other) = (with(&text, &one), with(&text, &other));
                runtime.block_on(async {
                    let state = context.state();
                    let planned = match state.create_logical_plan(&other).await {
                        Ok(plan) => state.optimize(&plan),
                        Err(error) => Err(error),
                    };
                    match (by_way_of(&context, &one, &other).await, planned) {
                        (None, _) => {}
                        (Some(Err(_)), Err(_)) => {}
                        (Some(Ok(filled)), Ok(planned)) => {
                            prop_assert_eq!(
                                answer(&context, &filled).await,
                                answer(&context, &planned).await,
                                "{}",
                                other
                            );
                            **counted.borrow_mut() += usize::from(filled == planned);
                        }
                        // What cannot be filled is planned, and a plan that fails later says the same.
                        (Some(Err(_)), Ok(_)) => {}
                        (Some(Ok(filled)), Err(error)) => {
                            let answer = answer(&context, &filled).await;
                            prop_assert!(
                                answer.starts_with("fails: "),
                                "{}: {}, but {}",
                                other,
                                error,
                                answer
                            );
                        }
                    }
                    Ok(())
                })
            })
            .unwrap();
        // Statements are learned only where it is the very plan.
        assert!(same * 12 > cases as usize, "{same} of {cases}");
    }

    #[tokio::test]
    async fn only_what_filters_compare_with_has_places() {
        let context = context();
        for (sql, has_places) in [
            ("SELECT l FROM t WHERE l = 5", true),
            ("SELECT i FROM t WHERE l = 5 AND v = 'x' AND f BETWEEN 1.5 AND 7.5 ORDER BY i", true),
            ("SELECT l FROM t WHERE l IN (5, 7)", false),
            ("SELECT l FROM t WHERE l = 5 OR l = 7", false),
            ("SELECT l FROM t WHERE l = 5 AND l = 7", false),
            ("SELECT l FROM t WHERE l <> 5", false),
            ("SELECT l FROM t WHERE l = 5 AND i IN (SELECT i FROM u)", false),
            ("SELECT a.l FROM t a JOIN u b ON a.l = b.l WHERE b.i = 3", false),
            ("SELECT v, count(*) FROM t GROUP BY v HAVING count(*) > 3", true),
            ("SELECT l, 5 FROM t", false),
            ("SELECT l = 5 FROM t", false),
            ("SELECT l FROM t LIMIT 5", false),
            ("SELECT l FROM t ORDER BY 1", false),
            ("SELECT l FROM t WHERE l + 1 = l", false),
            ("SELECT l FROM t WHERE v LIKE 'a'", false),
            ("SELECT round(f, 1) FROM t WHERE round(f, 1) = f", false),
            ("SELECT a.l FROM t a JOIN u b ON a.l = b.l AND b.i = 3", false),
        ] {
            assert_eq!(by_way_of(&context, sql, sql).await.is_some(), has_places, "{sql}");
        }
    }
}
