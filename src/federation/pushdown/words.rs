//! Expressions of a plan in SQL.
//!
//! An expression enters with the SQL text of every column that it may name; SQL text leaves that, planned
//! again, should give the expression back. Types that plain SQL would lose are spelled with `arrow_cast`.
//! Whether the expression does come back is for others to prove: words may be tried.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions::core::expr_fn::{arrow_cast, arrow_try_cast};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{Expr, GroupingSet, LogicalPlan, lit};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::{CustomDialect, CustomDialectBuilder};

use super::super::filter::{needs_spelling, text_of, type_name};
use super::{Unsent, unsent};

/// The SQL text of a column of the plan below.
pub(super) type Columns<'a> = dyn Fn(&Column) -> Option<String> + 'a;
/// Writes a subquery, without parentheses.
pub(super) type Subqueries<'a> = dyn FnMut(&LogicalPlan) -> Result<String, Unsent> + 'a;

/// How much is said of the types of literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Whole numbers and strings stand as they are: beside a column they take its type.
    Short,
    /// Every type that the plain text of a literal would not have by itself.
    Full,
}

/// Turns expressions into SQL.
pub(super) struct Words {
    spelling: Spelling,
    /// Without quotes: the names that the unparser meets are SQL texts already.
    dialect: CustomDialect,
}

impl Words {
    pub fn new(spelling: Spelling) -> Self {
        Self { spelling, dialect: CustomDialectBuilder::new().build() }
    }

    pub fn spelling(&self) -> Spelling {
        self.spelling
    }

    /// # Errors
    /// What cannot be said in SQL, or names a column that `columns` does not have.
    pub fn expr(
        &self,
        expr: &Expr,
        columns: &Columns<'_>,
        subqueries: &mut Subqueries<'_>,
    ) -> Result<String, Unsent> {
        Ok(self.ast(expr, columns, subqueries)?.to_string())
    }

    /// One element of GROUP BY.
    ///
    /// # Errors
    /// As [`Words::expr`].
    pub fn group(
        &self,
        expr: &Expr,
        columns: &Columns<'_>,
        subqueries: &mut Subqueries<'_>,
    ) -> Result<String, Unsent> {
        let mut list = |exprs: &[Expr]| -> Result<String, Unsent> {
            let texts = exprs.iter().map(|expr| self.expr(expr, columns, subqueries));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join(", "))
        };
        match expr {
            Expr::GroupingSet(GroupingSet::Rollup(exprs)) => Ok(format!("ROLLUP ({})", list(exprs)?)),
            Expr::GroupingSet(GroupingSet::Cube(exprs)) => Ok(format!("CUBE ({})", list(exprs)?)),
            Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
                let sets = sets.iter().map(|set| Ok(format!("({})", list(set)?)));
                Ok(format!("GROUPING SETS ({})", sets.collect::<Result<Vec<_>, Unsent>>()?.join(", ")))
            }
            other => list(std::slice::from_ref(other)),
        }
    }

    /// One element of ORDER BY, its direction and place of nulls said.
    ///
    /// # Errors
    /// As [`Words::expr`].
    pub fn sort(
        &self,
        sort: &SortExpr,
        columns: &Columns<'_>,
        subqueries: &mut Subqueries<'_>,
    ) -> Result<String, Unsent> {
        let direction = if sort.asc { "ASC" } else { "DESC" };
        let nulls = if sort.nulls_first { "FIRST" } else { "LAST" };
        Ok(format!("{} {direction} NULLS {nulls}", self.expr(&sort.expr, columns, subqueries)?))
    }

    fn ast(
        &self,
        expr: &Expr,
        columns: &Columns<'_>,
        subqueries: &mut Subqueries<'_>,
    ) -> Result<ast::Expr, Unsent> {
        let spelled = self.spelled(expr, columns, subqueries)?;
        let mut said =
            Unparser::new(&self.dialect).expr_to_sql(&spelled).map_err(|e| unsent(e.to_string()))?;
        match &spelled {
            Expr::AggregateFunction(function) => self.complete_aggregate(&mut said, function)?,
            Expr::WindowFunction(function) => complete_window(&mut said, function),
            _ => {}
        }
        Ok(said)
    }

    /// Adds what the unparser leaves out: the order of the input and the treatment of nulls.
    fn complete_aggregate(&self, said: &mut ast::Expr, function: &AggregateFunction) -> Result<(), Unsent> {
        let ast::Expr::Function(call) = said else { return Ok(()) };
        call.null_treatment = null_treatment(function.params.null_treatment);
        if function.func.supports_within_group_clause() || function.params.order_by.is_empty() {
            return Ok(());
        }
        let ast::FunctionArguments::List(arguments) = &mut call.args else {
            return Err(unsent("an ordered aggregate without arguments"));
        };
        let unparser = Unparser::new(&self.dialect);
        let order = function.params.order_by.iter().map(|sort| {
            let expr = unparser.expr_to_sql(&sort.expr)?;
            let options = ast::OrderByOptions { asc: Some(sort.asc), nulls_first: Some(sort.nulls_first) };
            Ok(ast::OrderByExpr { expr, options, with_fill: None })
        });
        let order =
            order.collect::<datafusion::error::Result<Vec<_>>>().map_err(|e| unsent(e.to_string()))?;
        arguments.clauses.push(ast::FunctionArgumentClause::OrderBy(order));
        Ok(())
    }

    /// `expr` with SQL texts for columns, without aliases, and with types said.
    fn spelled(
        &self,
        expr: &Expr,
        columns: &Columns<'_>,
        subqueries: &mut Subqueries<'_>,
    ) -> Result<Expr, Unsent> {
        let mut refused = None;
        let changed = expr.clone().transform_up(|expr| {
            Ok(match expr {
                Expr::Column(column) => match columns(&column) {
                    Some(text) => Transformed::yes(verbatim(text)),
                    None => {
                        refused.get_or_insert_with(|| unsent(format!("`{column}` has no words in SQL")));
                        Transformed::no(Expr::Column(column))
                    }
                },
                Expr::ScalarSubquery(subquery) => match subqueries(&subquery.subquery) {
                    Ok(text) => Transformed::yes(verbatim(format!("({text})"))),
                    Err(reason) => {
                        refused.get_or_insert(reason);
                        Transformed::no(Expr::ScalarSubquery(subquery))
                    }
                },
                Expr::Alias(alias) => Transformed::yes(*alias.expr),
                Expr::Literal(value, _) => Transformed::yes(self.literal(value)?),
                Expr::Cast(cast) if !is_plain_type(cast.field.data_type()) => {
                    let kind = lit(type_name(cast.field.data_type()));
                    Transformed::yes(arrow_cast(*cast.expr, kind))
                }
                Expr::TryCast(cast) if !is_plain_type(cast.field.data_type()) => {
                    let kind = lit(type_name(cast.field.data_type()));
                    Transformed::yes(arrow_try_cast(*cast.expr, kind))
                }
                other => Transformed::no(other),
            })
        });
        let changed = changed.map_err(|error| unsent(error.to_string()))?;
        refused.map_or(Ok(changed.data), Err)
    }

    fn literal(&self, value: ScalarValue) -> datafusion::error::Result<Expr> {
        let kind = value.data_type();
        let short = match self.spelling {
            Spelling::Short => !needs_spelling(&value) && (!value.is_null() || kind.is_null()),
            Spelling::Full => is_own_type(&value),
        };
        if short {
            return Ok(Expr::Literal(value, None));
        }
        let text = match value.is_null() {
            true => Expr::Literal(ScalarValue::Null, None),
            false => match text_of(&value)? {
                Some(text) => lit(text),
                None => return Ok(Expr::Literal(value, None)),
            },
        };
        Ok(arrow_cast(text, lit(type_name(&kind))))
    }
}

fn complete_window(said: &mut ast::Expr, function: &WindowFunction) {
    if let ast::Expr::Function(call) = said {
        call.null_treatment = null_treatment(function.params.null_treatment);
    }
}

fn null_treatment(treatment: Option<NullTreatment>) -> Option<ast::NullTreatment> {
    treatment.map(|treatment| match treatment {
        NullTreatment::IgnoreNulls => ast::NullTreatment::IgnoreNulls,
        NullTreatment::RespectNulls => ast::NullTreatment::RespectNulls,
    })
}

/// A name that the unparser writes as it stands.
fn verbatim(text: String) -> Expr {
    Expr::Column(Column::new_unqualified(text))
}

/// Types that `CAST(… AS …)` names without loss in every version.
fn is_plain_type(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float64
            | DataType::Date32
            | DataType::Decimal128(..)
    )
}

/// Whether the plain text of the literal has this type when nothing stands beside it.
fn is_own_type(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Null | ScalarValue::Boolean(Some(_)) | ScalarValue::Int64(Some(_)) => true,
        ScalarValue::Utf8(Some(_)) | ScalarValue::Date32(Some(_)) => true,
        ScalarValue::Float64(Some(number)) => number.is_finite(),
        ScalarValue::IntervalMonthDayNano(Some(_)) => true,
        _ => false,
    }
}
