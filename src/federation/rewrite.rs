//! Rewrites a user's query for an upstream: table names change, nothing else does.
//!
//! A parsed query and a lookup enter; a query that names the upstream's tables leaves, or the reason why
//! this query cannot be forwarded. Views are inlined as derived tables. Names keep their scope: a CTE
//! that shadows a dataset stays a CTE, and a remote name that a CTE would capture is not sent.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, VisitMut, VisitorMut, With,
};

use crate::name::DatasetName;
use crate::upstream::RemoteTableName;

/// Views on views deeper than this are not inlined.
const VIEW_DEPTH_MAX: usize = 16;

/// What a table name of the query means.
pub(super) enum Meaning<'a> {
    /// A dataset, and what it is called upstream.
    Dataset { name: &'a DatasetName, remote: &'a RemoteTableName },
    /// A view and its own query.
    View { name: &'a DatasetName, query: &'a Query },
    /// Something that only this process has, such as `information_schema`.
    Local,
}

/// Finds what a table name means; its parts are already normalised.
pub(super) type Lookup<'a> = dyn Fn(&[String]) -> Option<Meaning<'a>> + 'a;

/// A query in the upstream's names.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub query: Query,
    /// A schema was dropped somewhere (`FROM schema.table`, `schema.table.column`), so that the upstream
    /// may name an unaliased output column differently.
    pub requalified: bool,
}

/// Why a query cannot be forwarded; it is then answered by scans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unforwardable(pub String);

/// Rewrites `query` with `lookup`.
pub(super) fn rewrite(query: &Query, lookup: &Lookup<'_>) -> Result<Rewritten, Unforwardable> {
    rewrite_within(query, lookup, Vec::new(), 0)
}

fn rewrite_within(
    query: &Query,
    lookup: &Lookup<'_>,
    captors: Vec<String>,
    depth: usize,
) -> Result<Rewritten, Unforwardable> {
    let mut query = query.clone();
    let mut rewriter = Rewriter {
        lookup,
        captors,
        depth,
        scopes: Vec::new(),
        withs: Vec::new(),
        called: Called::default(),
        requalified: false,
    };
    if let ControlFlow::Break(reason) = query.visit(&mut rewriter) {
        return Err(Unforwardable(reason));
    }
    match rewriter.called.clash() {
        Some(name) => {
            Err(Unforwardable(format!("two tables would both be called `{name}` without their schemas")))
        }
        None if rewriter.called.merges && rewriter.requalified => {
            Err(Unforwardable("a NATURAL join or USING chooses its columns by the schemas too".to_owned()))
        }
        None => Ok(Rewritten { query, requalified: rewriter.requalified }),
    }
}

struct Rewriter<'l, 'a> {
    lookup: &'l Lookup<'a>,
    /// CTE names of the queries around this view body: they do not resolve here, but they would
    /// capture a remote name.
    captors: Vec<String>,
    depth: usize,
    /// CTE names by query, innermost last.
    scopes: Vec<Vec<String>>,
    /// WITH clauses taken out of queries that are being visited: their bodies are visited with the
    /// names that are in scope there, which the plain order of the visitor does not know.
    withs: Vec<Option<With>>,
    called: Called,
    requalified: bool,
}

/// What the tables of a query are called, wherever in it they stand.
#[derive(Default)]
struct Called {
    /// Tables that stand with their schema and without alias, by the name that they have upstream.
    qualified: HashMap<String, HashSet<Vec<String>>>,
    /// All other names: aliases, CTEs, tables without schema.
    plain: HashSet<String>,
    /// Somewhere a join makes one column of two. Which of the two stays goes by the names of the tables.
    merges: bool,
}

impl Called {
    fn add(&mut self, factor: &TableFactor) {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            self.merges |= table_with_joins.joins.iter().any(merges);
        }
        if let Some(alias) = alias_of(factor) {
            self.plain.insert(normalise(&alias.name));
            return;
        }
        let TableFactor::Table { name, .. } = factor else { return };
        let Some(mut parts) = normalised(name) else { return };
        match (parts.len(), parts.last().cloned()) {
            (1, _) => self.plain.extend(parts.pop()),
            (_, Some(last)) => {
                self.qualified.entry(last).or_default().insert(parts);
            }
            (_, None) => {}
        }
    }

    /// A name that would mean one table here and perhaps another one upstream: in a correlated subquery
    /// `a.t.id` and `b.t.id` would both become `t.id`.
    fn clash(&self) -> Option<&str> {
        let clashes =
            |(name, tables): &(&String, &HashSet<_>)| tables.len() > 1 || self.plain.contains(*name);
        self.qualified.iter().find(clashes).map(|(name, _)| name.as_str())
    }
}

/// Whether a join is NATURAL or has USING; of a join that is not known it is assumed.
fn merges(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::Right(on)
        | JoinOperator::RightOuter(on)
        | JoinOperator::FullOuter(on)
        | JoinOperator::CrossJoin(on) => !matches!(on, JoinConstraint::On(_) | JoinConstraint::None),
        _ => true,
    }
}

fn alias_of(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
        _ => None,
    }
}

impl VisitorMut for Rewriter<'_, '_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        if matches!(query.body.as_ref(), SetExpr::Table(_)) {
            return ControlFlow::Break("TABLE commands are not forwarded".to_owned());
        }
        self.scopes.push(Vec::new());
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            self.visit_ctes(with)?;
        }
        self.withs.push(with);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        query.with = self.withs.pop().flatten();
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        self.called.merges |= select.from.iter().flat_map(|table| &table.joins).any(merges);
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
            {
                self.unqualify(&mut name.0);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<String> {
        self.called.add(factor);
        let is_plain = is_plain_table(factor);
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(parts) = normalised(name) else {
            return ControlFlow::Break(format!("`{name}` is not a plain table name"));
        };
        if parts.len() == 1 && self.is_cte(&parts[0]) {
            return ControlFlow::Continue(());
        }
        match (self.lookup)(&parts) {
            _ if !is_plain => ControlFlow::Break(format!("`{name}` is read with more than an alias")),
            Some(Meaning::Dataset { name: local, remote }) => {
                self.refuse_capture(remote)?;
                self.requalified |= parts.len() > 1 && alias.is_none();
                rename(name, alias, local, remote);
                ControlFlow::Continue(())
            }
            Some(Meaning::View { name: local, query }) => {
                self.requalified |= parts.len() > 1 && alias.is_none();
                let derived = self.inline(local, query, alias.take())?;
                *factor = derived;
                ControlFlow::Continue(())
            }
            Some(Meaning::Local) => ControlFlow::Break(format!("`{name}` is known only here")),
            None => ControlFlow::Break(format!("`{name}` is not a dataset")),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        if let Expr::CompoundIdentifier(parts) = expr
            && parts.len() > 2
        {
            let mut names: Vec<_> = parts.drain(..).map(ObjectNamePart::Identifier).collect();
            let column = names.pop();
            self.unqualify(&mut names);
            parts.extend(names.into_iter().chain(column).filter_map(into_ident));
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_, '_> {
    /// Visits the bodies of a WITH clause in order; each sees only the names before it.
    fn visit_ctes(&mut self, with: &mut With) -> ControlFlow<String> {
        for cte in &mut with.cte_tables {
            let name = normalise(&cte.alias.name);
            if name.contains('.') {
                return ControlFlow::Break(format!("the CTE `{name}` reads like a table with its schema"));
            }
            if with.recursive && (self.lookup)(std::slice::from_ref(&name)).is_some() {
                return ControlFlow::Break(format!("the recursive CTE `{name}` has the name of a dataset"));
            }
            if with.recursive {
                self.declare(name.clone());
            }
            cte.query.visit(self)?;
            self.declare(name);
        }
        ControlFlow::Continue(())
    }

    fn declare(&mut self, name: String) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(name);
        }
    }

    fn is_cte(&self, name: &str) -> bool {
        self.scopes.iter().flatten().any(|cte| cte == name)
    }

    /// A one-part remote name that equals a CTE in scope would read the CTE instead of the table.
    fn refuse_capture(&self, remote: &RemoteTableName) -> ControlFlow<String> {
        match remote.parts.as_slice() {
            [table] if self.is_cte(table) || self.captors.contains(table) => {
                ControlFlow::Break(format!("the CTE `{table}` has the name of an upstream table"))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn inline(
        &mut self,
        name: &DatasetName,
        query: &Query,
        alias: Option<TableAlias>,
    ) -> ControlFlow<String, TableFactor> {
        if self.depth >= VIEW_DEPTH_MAX {
            return ControlFlow::Break(format!("view `{name}` is nested too deeply"));
        }
        let captors = self.scopes.iter().flatten().chain(&self.captors).cloned().collect();
        match rewrite_within(query, self.lookup, captors, self.depth + 1) {
            Err(Unforwardable(reason)) => ControlFlow::Break(reason),
            Ok(inner) => {
                self.requalified |= inner.requalified;
                ControlFlow::Continue(TableFactor::Derived {
                    lateral: false,
                    subquery: Box::new(inner.query),
                    alias: Some(alias.unwrap_or_else(|| table_alias(name.table()))),
                    sample: None,
                })
            }
        }
    }

    /// Drops the schema in front of a dataset's table name: upstream the table goes by its alias.
    fn unqualify(&mut self, parts: &mut Vec<ObjectNamePart>) {
        let Some(names) = parts.iter().map(part_name).collect::<Option<Vec<_>>>() else {
            return;
        };
        if names.len() > 1 && (self.lookup)(&names).is_some() {
            parts.drain(..names.len() - 1);
            self.requalified = true;
        }
    }
}

/// Puts the remote name in, and the local one as alias where the two differ.
fn rename(
    name: &mut ObjectName,
    alias: &mut Option<TableAlias>,
    local: &DatasetName,
    remote: &RemoteTableName,
) {
    let same = matches!(remote.parts.as_slice(), [table] if table == local.table());
    if !same && alias.is_none() {
        *alias = Some(table_alias(local.table()));
    }
    *name = ObjectName(
        remote.parts.iter().map(|part| ObjectNamePart::Identifier(Ident::with_quote('"', part))).collect(),
    );
}

/// Whether a table stands without sampling, hints, time travel and the like.
fn is_plain_table(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table {
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } => {
            with_hints.is_empty()
                && version.is_none()
                && !with_ordinality
                && partitions.is_empty()
                && json_path.is_none()
                && sample.is_none()
                && index_hints.is_empty()
        }
        _ => true,
    }
}

fn table_alias(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

fn into_ident(part: ObjectNamePart) -> Option<Ident> {
    match part {
        ObjectNamePart::Identifier(ident) => Some(ident),
        ObjectNamePart::Function(_) => None,
    }
}

/// The parts of a name as the planner sees them: unquoted ones in lower case.
pub(super) fn normalised(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(part_name).collect()
}

fn part_name(part: &ObjectNamePart) -> Option<String> {
    part.as_ident().map(normalise)
}

fn normalise(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn parse(sql: &str) -> Query {
        match Parser::parse_sql(&GenericDialect {}, sql).unwrap().remove(0) {
            Statement::Query(query) => *query,
            other => panic!("not a query: {other}"),
        }
    }

    /// `orders` is upstream `sales.o`, `items` is `items`, `s.items` is `x.items`, `tmp` is `base`,
    /// `big` a view over orders.
    fn rewritten(sql: &str) -> Result<String, String> {
        let names: Vec<DatasetName> =
            ["orders", "items", "s.items", "tmp", "big"].iter().map(|name| name.parse().unwrap()).collect();
        let remotes: Vec<RemoteTableName> = ["sales.o", "items", "x.items", "base"]
            .iter()
            .map(|name| RemoteTableName { parts: name.split('.').map(str::to_owned).collect() })
            .collect();
        let view = parse("SELECT id, total FROM orders WHERE orders.total > 10");
        let lookup = |parts: &[String]| {
            if parts[0] == "information_schema" {
                return Some(Meaning::Local);
            }
            let parts = if parts[0] == "public" { &parts[1..] } else { parts };
            let at = names.iter().position(|name| name.to_string() == parts.join("."))?;
            Some(match remotes.get(at) {
                Some(remote) => Meaning::Dataset { name: &names[at], remote },
                None => Meaning::View { name: &names[at], query: &view },
            })
        };
        rewrite(&parse(sql), &lookup).map(|done| done.query.to_string()).map_err(|reason| reason.0)
    }

    #[test]
    fn names_change_and_nothing_else() {
        let cases = [
            "SELECT orders.id FROM orders",
            "SELECT o.id FROM orders AS o JOIN items i ON o.id = i.id",
            "SELECT * FROM \"orders\", ITEMS WHERE Orders.id = items.id",
            "SELECT s.items.id, count(*) FROM s.items GROUP BY s.items.id",
            "SELECT s.items.* FROM s.items",
            "SELECT * FROM public.orders WHERE public.orders.id IN (SELECT id FROM items)",
            "SELECT * FROM big b",
            "SELECT big.id FROM big WHERE EXISTS (SELECT 1 FROM orders WHERE orders.id = big.id)",
            "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders",
            "WITH a AS (SELECT * FROM orders), orders AS (SELECT * FROM a) SELECT * FROM orders, items",
            "SELECT * FROM (WITH items AS (SELECT 1 AS id) SELECT * FROM items) x, items",
            "SELECT * FROM generate_series(1, 3) UNION ALL SELECT id FROM items ORDER BY 1 LIMIT 2",
        ];
        let shown: Vec<String> =
            cases.iter().map(|sql| format!("{sql}\n  -> {}", rewritten(sql).unwrap())).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn what_would_change_its_meaning_is_not_forwarded() {
        let cases = [
            "WITH base AS (SELECT 1 AS id) SELECT * FROM tmp, base",
            "WITH items AS (SELECT 1 AS id) SELECT * FROM public.items",
            "WITH RECURSIVE items AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM items) SELECT * FROM items",
            "SELECT * FROM items, s.items",
            "SELECT * FROM information_schema.tables, items",
            "SELECT * FROM unknown",
            "SELECT id FROM s.items WHERE EXISTS (SELECT 1 FROM items WHERE items.id = s.items.id)",
            "SELECT id FROM s.items WHERE EXISTS (SELECT 1 FROM orders AS items WHERE items.id = s.items.id)",
            "WITH \"s.items\" AS (SELECT 1 AS id) SELECT * FROM s.items",
        ];
        let shown: Vec<String> =
            cases.iter().map(|sql| format!("{sql}\n  -> {}", rewritten(sql).unwrap_err())).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
