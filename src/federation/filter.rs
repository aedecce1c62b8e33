//! Which filters an upstream may apply, and in which words.
//!
//! A filter of the local plan enters; SQL that surely means the same leaves, or nothing. For upstreams
//! of the DataFusion family sameness is proved: the SQL is planned again against the table's schema and
//! must give the filter back. For other upstreams only comparisons that every SQL database reads alike
//! are sent.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::functions::core::expr_fn::arrow_cast;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::{CustomDialect, CustomDialectBuilder};

/// A filter in the upstream's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    pub sql: String,
    /// The upstream drops exactly the rows that the filter drops. Otherwise it keeps all that the filter
    /// keeps, and perhaps more: the filter is applied again here.
    pub exact: bool,
}

/// Decides for the filters of one table.
pub(super) struct Prover {
    schema: DFSchemaRef,
    /// Plans the SQL again; `None` for upstreams outside the DataFusion family.
    planner: Option<Arc<SessionState>>,
    dialect: CustomDialect,
}

impl Prover {
    /// # Errors
    /// A schema with two columns of one name.
    pub fn try_new(schema: &SchemaRef, planner: Option<Arc<SessionState>>) -> Result<Self> {
        let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
        Ok(Self { schema: Arc::new(DFSchema::try_from(Arc::clone(schema))?), planner, dialect })
    }

    /// The SQL of `filter`, whose columns may be qualified, or `None` where sameness is not sure.
    pub fn push(&self, filter: &Expr) -> Option<Pushed> {
        let filter = unqualified(filter.clone()).ok()?;
        match &self.planner {
            Some(planner) => self.proved(&filter, planner).ok().flatten(),
            None => plain(&filter, &self.schema),
        }
    }

    fn proved(&self, filter: &Expr, planner: &SessionState) -> Result<Option<Pushed>> {
        if filter.is_volatile() || has_foreign_parts(filter)? {
            return Ok(None);
        }
        let spelled = spell_literals(filter.clone())?;
        let sql = Unparser::new(&self.dialect).expr_to_sql(&spelled)?.to_string();
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_config_options(Arc::clone(planner.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let back = planner.create_logical_expr(&sql, &self.schema)?;
        let back = simplifier.simplify(simplifier.coerce(back, &self.schema)?)?;
        let same = back == simplifier.simplify(filter.clone())?;
        Ok(same.then_some(Pushed { sql, exact: true }))
    }
}

/// The same without the table's name before its columns.
pub(super) fn unqualified(filter: Expr) -> Result<Expr> {
    let changed = filter.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(changed.data)
}

/// Subqueries, parameters, and columns of outer queries mean nothing upstream.
fn has_foreign_parts(filter: &Expr) -> Result<bool> {
    let mut found = false;
    filter.apply(|expr| {
        found |= matches!(
            expr,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::Placeholder(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarVariable(..)
        );
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Writes literals whose type their plain SQL text would lose (`TIMESTAMP` without unit, `0.05` as a
/// float) as `arrow_cast('text', 'type')`, which names it.
fn spell_literals(filter: Expr) -> Result<Expr> {
    let changed = filter.transform_up(|expr| {
        Ok(match &expr {
            Expr::Literal(value, _) if needs_spelling(value) => match text_of(value)? {
                Some(text) => Transformed::yes(arrow_cast(lit(text), lit(type_name(&value.data_type())))),
                None => Transformed::no(expr),
            },
            _ => Transformed::no(expr),
        })
    })?;
    Ok(changed.data)
}

pub(super) fn needs_spelling(value: &ScalarValue) -> bool {
    !value.is_null()
        && matches!(
            value.data_type(),
            DataType::Timestamp(..)
                | DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
                | DataType::Float32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
        )
}

/// A type as every version of `arrow_cast` reads it: units in words, the zone always said.
pub(super) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Timestamp(unit, Some(zone)) => format!("Timestamp({unit:?}, Some(\"{zone}\"))"),
        DataType::Timestamp(unit, None) => format!("Timestamp({unit:?}, None)"),
        DataType::Time32(unit) => format!("Time32({unit:?})"),
        DataType::Time64(unit) => format!("Time64({unit:?})"),
        other => other.to_string(),
    }
}

pub(super) fn text_of(value: &ScalarValue) -> Result<Option<String>> {
    Ok(match value.cast_to(&DataType::Utf8)? {
        ScalarValue::Utf8(text) => text,
        _ => None,
    })
}

/// Comparisons of whole numbers and strings with literals, joined by AND and OR.
fn plain(filter: &Expr, schema: &DFSchema) -> Option<Pushed> {
    if let Some(sql) = exact(filter, schema) {
        return Some(Pushed { sql, exact: true });
    }
    match filter {
        // `a = 'x'` under a case-insensitive collation keeps more rows, never fewer.
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let sql = format!("{} = {}", string_column(left, schema)?, string_literal(right)?);
            Some(Pushed { sql, exact: false })
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let list: Vec<String> = list.iter().map(string_literal).collect::<Option<_>>()?;
            let sql = format!("{} IN ({})", string_column(expr, schema)?, list.join(", "));
            Some(Pushed { sql, exact: false })
        }
        _ => None,
    }
}

fn exact(filter: &Expr, schema: &DFSchema) -> Option<String> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Some(format!("({} {op} {})", exact(left, schema)?, exact(right, schema)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = match op {
                Operator::Eq => "=",
                Operator::NotEq => "<>",
                Operator::Lt => "<",
                Operator::LtEq => "<=",
                Operator::Gt => ">",
                Operator::GtEq => ">=",
                _ => return None,
            };
            Some(format!("{} {op} {}", number_column(left, schema)?, number_literal(right)?))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list: Vec<String> = list.iter().map(number_literal).collect::<Option<_>>()?;
            let not = if *negated { "NOT " } else { "" };
            Some(format!("{} {not}IN ({})", number_column(expr, schema)?, list.join(", ")))
        }
        Expr::IsNull(expr) => Some(format!("{} IS NULL", any_column(expr)?)),
        Expr::IsNotNull(expr) => Some(format!("{} IS NOT NULL", any_column(expr)?)),
        _ => None,
    }
}

fn any_column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(column) => Some(quoted(&column.name)),
        _ => None,
    }
}

fn column_where(expr: &Expr, schema: &DFSchema, is: fn(&DataType) -> bool) -> Option<String> {
    let Expr::Column(column) = expr else { return None };
    let field = schema.field_with_unqualified_name(&column.name).ok()?;
    is(field.data_type()).then(|| quoted(&column.name))
}

fn number_column(expr: &Expr, schema: &DFSchema) -> Option<String> {
    column_where(expr, schema, DataType::is_integer)
}

fn string_column(expr: &Expr, schema: &DFSchema) -> Option<String> {
    column_where(expr, schema, DataType::is_string)
}

/// Whole numbers only: many databases read `0.05` as a float, and larger numbers as something else.
fn number_literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() && value.data_type().is_integer() => {
            text_of(value).ok().flatten().filter(|text| text.parse::<i64>().is_ok())
        }
        _ => None,
    }
}

fn string_literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => {
            let text = value.try_as_str()??;
            // A backslash is an escape in some databases and a character in others.
            (!text.contains(['\\', '\0'])).then(|| format!("'{}'", text.replace('\'', "''")))
        }
        _ => None,
    }
}

/// `name` as a quoted SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use datafusion::execution::SessionStateBuilder;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("Mixed", DataType::Utf8View, true),
            Field::new("price", DataType::Decimal128(15, 2), true),
            Field::new("day", DataType::Date32, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into())), true),
            Field::new("seen", DataType::Timestamp(TimeUnit::Second, None), true),
            Field::new("ratio", DataType::Float32, true),
            Field::new("ok", DataType::Boolean, true),
        ]))
    }

    /// The filter as the optimizer would hand it over.
    fn filter(sql: &str) -> Expr {
        let state = SessionStateBuilder::new().with_default_features().build();
        let schema = Arc::new(DFSchema::try_from(schema()).unwrap());
        let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).with_current_time().build();
        let simplifier = ExprSimplifier::new(context);
        let expr = state.create_logical_expr(sql, &schema).unwrap();
        simplifier.simplify(simplifier.coerce(expr, &schema).unwrap()).unwrap()
    }

    fn pushed(sql: &str, family: bool) -> String {
        let state = Arc::new(SessionStateBuilder::new().with_default_features().build());
        let prover = Prover::try_new(&schema(), family.then_some(state)).unwrap();
        match prover.push(&filter(sql)) {
            Some(Pushed { sql, exact: true }) => sql,
            Some(Pushed { sql, exact: false }) => format!("{sql} (and again here)"),
            None => "kept here".to_owned(),
        }
    }

    #[test]
    fn filters_in_the_upstreams_words() {
        let filters = [
            "id = 5",
            "id + 1 > 5 OR ok",
            "\"Mixed\" LIKE 'a%' AND \"Mixed\" <> 'it''s'",
            "\"Mixed\" = 'x'",
            "\"Mixed\" IN ('x', 'y\\z')",
            "price BETWEEN 0.05 AND 0.07",
            "price * 2 > 10",
            "day >= date '1995-03-15' AND day < date '1995-03-15' + interval '1 month'",
            "at < timestamp '2024-02-29 12:00:00'",
            "seen = timestamp '2024-02-29 12:00:00'",
            "ratio < 0.1",
            "id IN (1, 2, 3) AND NOT ok",
            "id NOT IN (1, 2, 3)",
            "price IS NULL OR id IS NOT DISTINCT FROM 3",
            "substr(\"Mixed\", 1, 2) = 'ab'",
            "extract(year from day) = 1995",
            "random() < 0.5",
            "CASE WHEN ok THEN id ELSE 0 END = 1",
        ];
        let shown: Vec<String> = filters
            .iter()
            .map(|sql| format!("{sql}\n  proved: {}\n  plain:  {}", pushed(sql, true), pushed(sql, false)))
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
