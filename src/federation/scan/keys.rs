//! Keys on their way to an upstream: filters that other parts of a running plan fill enter (the keys of a
//! join's small side, the threshold of a top-k), one more condition of the SELECT leaves.
//!
//! Such a filter is advice: it may be taken in part or not at all, never too far. It is read once, when the
//! SELECT is sent, and never waited for: some are complete only when the answer is.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion::physical_plan::PhysicalExpr;

use super::super::filter::{Prover, quoted};
use super::domain::{Domain, Domains, Values};

/// A list whose SQL is longer than this, in bytes, is sent as a range: a request has a size limit upstream,
/// and the text goes there twice, as a command and in the ticket.
const LIST_LEN_MAX: usize = 64 << 10;
/// How many keys of a list people are shown.
const KEYS_SHOWN_MAX: usize = 10;
/// The name of a SELECT inside another.
const INNER: &str = "scanned";

/// How a SELECT takes keys.
#[derive(Clone)]
pub(in crate::federation) struct Keys {
    /// What the SELECT calls its columns, by position.
    names: Vec<String>,
    /// Knows the columns by these names.
    prover: Arc<Prover>,
    place: Place,
}

/// Where the condition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::federation) enum Place {
    /// The text ends with its FROM.
    Where,
    /// The text ends with its WHERE.
    And,
    /// Around the text, whatever it is: it may group, order or stop early.
    Around,
}

/// What the filters say when the SELECT is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::federation) enum Condition {
    /// Nothing that could be said upstream.
    None,
    /// No row can match: there is nothing to ask.
    Never,
    /// SQL for the upstream, and the same for people.
    Sql { sent: String, shown: String },
}

impl Keys {
    pub fn new(names: Vec<String>, prover: Arc<Prover>, place: Place) -> Self {
        Self { names, prover, place }
    }

    /// Keys around a SELECT of any form, whose columns are called and typed as in `schema` upstream.
    /// `planner` proves what is sent; without one only what every database reads alike is sent.
    ///
    /// # Errors
    /// Two columns of one name.
    pub fn try_around(schema: &SchemaRef, planner: Option<Arc<SessionState>>) -> Result<Self> {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self::new(names, Arc::new(Prover::try_new(schema, planner)?), Place::Around))
    }

    /// What `filters`, over the scan's columns, say now.
    ///
    /// # Errors
    /// A filter that cannot be read.
    pub fn condition(&self, filters: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<Condition> {
        let mut domains = Domains::everything();
        for filter in filters {
            let now = snapshot_physical_expr(Arc::clone(filter))?;
            domains = domains.and(Domains::of(&now, schema));
        }
        let Domains::Columns(columns) = domains else { return Ok(Condition::Never) };
        let said = columns.iter().filter_map(|(at, domain)| {
            let (name, field) = (self.names.get(*at)?, schema.fields().get(*at)?);
            let column = Expr::Column(Column::new_unqualified(name));
            let push = |domain: &Domain| {
                let sql = self.exact(&domain.condition(&column, field.data_type())?)?;
                (sql.len() <= LIST_LEN_MAX).then(|| (sql.clone(), shown(name, domain, sql)))
            };
            push(domain).or_else(|| push(&domain.as_range()))
        });
        let (sent, shown): (Vec<String>, Vec<String>) = said.unzip();
        Ok(match sent.is_empty() {
            true => Condition::None,
            false => Condition::Sql { sent: sent.join(" AND "), shown: shown.join(" AND ") },
        })
    }

    /// The SQL of a condition where the upstream surely reads it as we do.
    fn exact(&self, condition: &Expr) -> Option<String> {
        let pushed = self.prover.push(condition)?;
        pushed.exact.then_some(pushed.sql)
    }

    /// `sql` with one more condition.
    pub fn placed(&self, sql: &str, condition: &str) -> String {
        match self.place {
            Place::Where => format!("{sql} WHERE {condition}"),
            Place::And => format!("{sql} AND {condition}"),
            Place::Around => format!("SELECT * FROM ({sql}) AS {} WHERE {condition}", quoted(INNER)),
        }
    }
}

/// A condition for people: a long list is cut and counted.
fn shown(name: &str, domain: &Domain, sql: String) -> String {
    let Values::OneOf(values) = &domain.values else { return sql };
    if values.len() <= KEYS_SHOWN_MAX {
        return sql;
    }
    let first: Vec<String> = values.iter().take(KEYS_SHOWN_MAX).map(ScalarValue::to_string).collect();
    let nulls = if domain.nulls { " or null" } else { "" };
    format!("{} IN ({}, … {} keys{nulls})", quoted(name), first.join(", "), values.len())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::execution::SessionStateBuilder;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{
        BinaryExpr, Column, DynamicFilterPhysicalExpr, in_list, lit,
    };

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ]))
    }

    /// Keys over columns that the upstream calls `key 1` and `key 2`.
    fn keys(place: Place, is_family: bool) -> Keys {
        let fields = schema()
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| field.as_ref().clone().with_name(format!("key {}", at + 1)))
            .collect::<Vec<_>>();
        let upstream = Arc::new(Schema::new(fields));
        let planner = Arc::new(SessionStateBuilder::new().with_default_features().build());
        let prover = Prover::try_new(&upstream, is_family.then_some(planner)).unwrap();
        Keys::new(
            upstream.fields().iter().map(|field| field.name().clone()).collect(),
            Arc::new(prover),
            place,
        )
    }

    fn among(column: &str, values: Vec<ScalarValue>) -> Arc<dyn PhysicalExpr> {
        let column = Arc::new(Column::new_with_schema(column, &schema()).unwrap());
        in_list(column, values.into_iter().map(lit).collect(), &false, &schema()).unwrap()
    }

    /// A filter of a join, as it is before the join's small side is built.
    fn awaited() -> Arc<DynamicFilterPhysicalExpr> {
        let column = |at, name| Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>;
        Arc::new(DynamicFilterPhysicalExpr::new(vec![column(0, "id"), column(1, "text")], lit(true)))
    }

    fn said(keys: &Keys, filter: &Arc<DynamicFilterPhysicalExpr>) -> Condition {
        keys.condition(&[Arc::clone(filter) as Arc<dyn PhysicalExpr>], &schema()).unwrap()
    }

    #[test]
    fn a_filter_is_read_as_it_stands_and_in_the_upstreams_names() {
        let filter = awaited();
        for (is_family, expected) in
            [(true, r#""key 1" IN (1, 2, 3, 4) AND ("key 2" = 'x')"#), (false, r#""key 1" IN (1, 2, 3, 4)"#)]
        {
            let keys = keys(Place::Around, is_family);
            filter.update(lit(true)).unwrap();
            assert_eq!(said(&keys, &filter), Condition::None, "nothing is known yet");
            let ids = among("id", vec![4i64.into(), 2i64.into(), 1i64.into(), 3i64.into(), 3i64.into()]);
            let both = BinaryExpr::new(ids, Operator::And, among("text", vec!["x".into()]));
            filter.update(Arc::new(both)).unwrap();
            let Condition::Sql { sent, .. } = said(&keys, &filter) else {
                panic!("{:?}", said(&keys, &filter))
            };
            assert_eq!(sent, expected);
            filter.update(lit(false)).unwrap();
            assert_eq!(said(&keys, &filter), Condition::Never);
        }
    }

    #[test]
    fn conditions_stand_where_the_select_allows() {
        let placed = |place, sql| keys(place, true).placed(sql, "c = 1");
        insta::assert_snapshot!(placed(Place::Where, "SELECT a FROM t"), @"SELECT a FROM t WHERE c = 1");
        insta::assert_snapshot!(placed(Place::And, "SELECT a FROM t WHERE b"),
            @"SELECT a FROM t WHERE b AND c = 1");
        insta::assert_snapshot!(placed(Place::Around, "SELECT a FROM t LIMIT 3"),
            @r#"SELECT * FROM (SELECT a FROM t LIMIT 3) AS "scanned" WHERE c = 1"#);
    }

    #[test]
    fn lists_have_a_length_and_people_see_their_beginning() {
        let filter = awaited();
        let keys = keys(Place::Where, true);
        filter.update(among("id", (0..500i64).map(ScalarValue::from).collect())).unwrap();
        let Condition::Sql { sent, shown } = said(&keys, &filter) else { panic!("no condition") };
        assert!(sent.contains("499)"), "{sent}");
        insta::assert_snapshot!(shown, @r#""key 1" IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 500 keys)"#);
        // Strings have no range to fall back to.
        let long = (0..100).map(|n| ScalarValue::from(format!("{n:01000}"))).collect();
        filter.update(among("text", long)).unwrap();
        assert_eq!(said(&keys, &filter), Condition::None);
    }
}
