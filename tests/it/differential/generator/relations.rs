//! What stands in FROM, and subqueries in predicates.

use super::{Column, Generator, Kind, quoted};

/// A table and its columns.
type Table = (&'static str, &'static [(&'static str, Kind)]);

const KEYS: Table =
    ("keys", &[("k", Kind::Int), ("label", Kind::Text), ("w", Kind::Int), ("place", Kind::Other)]);
const BIG: Table = (
    "big",
    &[
        ("id", Kind::Int),
        ("k", Kind::Int),
        ("g", Kind::Text),
        ("note", Kind::Text),
        ("amount", Kind::Decimal),
        ("f", Kind::Float),
        ("at", Kind::Time),
    ],
);
/// Tables and views of few rows.
const SMALL: [Table; 7] = [
    (
        "t",
        &[
            ("id", Kind::Int),
            ("k", Kind::Int),
            ("price", Kind::Decimal),
            ("Name", Kind::Text),
            ("note", Kind::Text),
            ("colour", Kind::Text),
            ("ok", Kind::Bool),
            ("f", Kind::Float),
            ("d", Kind::Date),
            ("at", Kind::Time),
        ],
    ),
    ("u", &[("id", Kind::Int), ("Name", Kind::Text), ("v", Kind::Int)]),
    ("sales.orders", &[("id", Kind::Int), ("k", Kind::Int), ("v", Kind::Int)]),
    ("crm.orders", &[("id", Kind::Int), ("Name", Kind::Text), ("v", Kind::Int)]),
    KEYS,
    ("rich", &[("id", Kind::Int), ("k", Kind::Int), ("price", Kind::Decimal)]),
    ("richer", &[("k", Kind::Int), ("total", Kind::Decimal)]),
];

/// Aliases that are other things' names too.
const MISLEADING: [&str; 6] = ["orders", "u", "t", "big", "sales", "\"T\""];

/// One item of FROM.
#[derive(Clone)]
pub(super) struct Relation {
    /// As it stands in FROM.
    pub sql: String,
    /// What it is called there.
    pub name: String,
    pub columns: Vec<Column>,
    pub is_big: bool,
}

/// A whole FROM clause.
pub(super) struct From {
    pub sql: String,
    /// Columns that can be read.
    pub columns: Vec<Column>,
    pub is_big: bool,
    /// What is called how in it.
    names: Vec<String>,
}

impl Generator {
    /// A relation whose name is not among `taken`. At `depth` 0 it is a table.
    pub(super) fn relation(&mut self, taken: &[String], depth: usize) -> Relation {
        if !self.ctes.is_empty() && self.dice.once_in(2) {
            let (name, columns) = self.dice.of(&self.ctes).clone();
            let called = if self.is_free(&name, taken) { None } else { Some(self.fresh("c")) };
            return named(&quoted(&name), called, &name, &columns, false);
        }
        if depth > 0 && self.dice.once_in(4) {
            return self.derived(depth - 1);
        }
        if self.bigs > 0 && self.dice.once_in(6) {
            self.bigs -= 1;
            return self.table(BIG, taken);
        }
        let table = SMALL[self.dice.below(SMALL.len())];
        self.table(table, taken)
    }

    fn is_free(&self, name: &str, taken: &[String]) -> bool {
        !taken.iter().any(|other| other == name)
    }

    /// A subquery in FROM.
    pub(super) fn derived(&mut self, depth: usize) -> Relation {
        let query = self.query(depth);
        let called = self.fresh("x");
        named(&format!("({})", query.sql), Some(called), "", &query.columns, false)
    }

    /// The bigger table.
    pub(super) fn big(&mut self) -> Relation {
        self.bigs = self.bigs.saturating_sub(1);
        self.table(BIG, &[])
    }

    /// Few keys to join the bigger table with.
    pub(super) fn few_keys(&mut self, taken: &[String]) -> Relation {
        self.table(KEYS, taken)
    }

    fn table(&mut self, (name, columns): Table, taken: &[String]) -> Relation {
        let columns: Vec<_> = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let is_big = name == "big";
        let is_shadowed = self.ctes.iter().any(|(cte, _)| cte == name);
        let spelled = match (self.dice.below(6), name.contains('.')) {
            (0, false) => format!("public.{name}"),
            (1, false) => format!("spice.public.{name}"),
            (2, true) => format!("spice.{name}"),
            (3, false) if !is_shadowed => name.to_uppercase(),
            _ if is_shadowed => format!("public.{name}"),
            _ => name.to_owned(),
        };
        let last = name.rsplit('.').next().unwrap_or(name).to_owned();
        let called = match self.dice.below(4) {
            0 if self.is_free(&last, taken) => None,
            1 => {
                let alias = self.dice.pick(&MISLEADING).to_owned();
                Some(if self.is_free(alias.trim_matches('"'), taken) { alias } else { self.fresh("a") })
            }
            _ => Some(self.fresh("a")),
        };
        let called = called.or_else(|| (!self.is_free(&last, taken)).then(|| self.fresh("b")));
        named(&spelled, called, &last, &columns, is_big)
    }

    /// `VALUES` as a relation of a number and a text.
    pub(super) fn values(&mut self) -> Relation {
        let called = self.fresh("v");
        let rows: Vec<String> = (0..self.dice.between(1, 5))
            .map(|_| {
                let number = self.dice.pick(&["1", "2", "3", "NULL", "1", "50"]);
                let text = self.dice.pick(&["'red'", "'a''b'", "NULL", "''", "'it''s'", "'z'"]);
                format!("({number}, {text})")
            })
            .collect();
        // A first row without NULLs gives the columns their types.
        let sql = format!("(VALUES (4, 'x'), {}) AS {called}(n, \"S\")", rows.join(", "));
        let column = |name: &str, kind| Column {
            sql: format!("{called}.{}", quoted(name)),
            name: name.to_owned(),
            kind,
        };
        let columns = vec![column("n", Kind::Int), column("S", Kind::Text)];
        Relation { sql, name: called.clone(), columns, is_big: false }
    }

    /// A tree of joins of `relations`.
    pub(super) fn join(&mut self, relations: Vec<Relation>) -> From {
        let mut relations = relations.into_iter();
        let first = relations.next().expect("at least one relation");
        let mut from =
            From { sql: first.sql, columns: first.columns, is_big: first.is_big, names: vec![first.name] };
        for relation in relations {
            from = self.join_one(from, relation);
        }
        from
    }

    /// A FROM clause of `count` relations; beside a big one there are at most two.
    pub(super) fn from(&mut self, count: usize, depth: usize) -> From {
        let mut relations: Vec<Relation> = Vec::new();
        let mut taken = Vec::new();
        while relations.len() < count {
            let relation = self.relation(&taken, depth);
            taken.push(relation.name.clone());
            let is_big = relation.is_big || relations.iter().any(|other| other.is_big);
            relations.push(relation);
            if is_big && relations.len() >= 3 {
                break;
            }
        }
        self.join(relations)
    }

    fn join_one(&mut self, left: From, right: Relation) -> From {
        let is_big = left.is_big || right.is_big;
        let kind = self.dice.pick(&[
            "JOIN",
            "INNER JOIN",
            "LEFT JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "FULL JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
            "RIGHT SEMI JOIN",
            "RIGHT ANTI JOIN",
        ]);
        let on = self.on(&left.columns, &right.columns, is_big);
        let sql = match (on, is_big) {
            (Some(on), _) => format!("{} {kind} {} ON {on}", left.sql, right.sql),
            (None, false) => format!("{} CROSS JOIN {}", left.sql, right.sql),
            // Nothing to join by: a product with the bigger table would be too much.
            (None, true) => return left,
        };
        let columns = match (sql.contains(" ON "), kind) {
            (true, "LEFT SEMI JOIN" | "LEFT ANTI JOIN") => left.columns,
            (true, "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN") => right.columns,
            _ => [left.columns, right.columns].concat(),
        };
        From { sql, columns, is_big, names: [left.names, vec![right.name]].concat() }
    }

    /// A join condition; beside a big table always an equality.
    fn on(&mut self, left: &[Column], right: &[Column], is_big: bool) -> Option<String> {
        let (l, r) = self.pair(left, right)?;
        let both = || [left, right].concat();
        Some(match self.dice.below(if is_big { 6 } else { 9 }) {
            0 => format!("{l} = {r} AND {}", self.plain_predicate(&both())),
            1 => format!("{r} = {l}"),
            6 => format!("{l} IS NOT DISTINCT FROM {r}"),
            7 => format!("{l} {} {r}", self.dice.pick(&["<", ">=", "<>"])),
            8 => format!("({l} = {r} OR {})", self.plain_predicate(&both())),
            _ => format!("{l} = {r}"),
        })
    }

    /// A predicate without subqueries.
    fn plain_predicate(&mut self, scope: &[Column]) -> String {
        let subqueries = std::mem::take(&mut self.subqueries);
        let predicate = self.predicate(scope, 1);
        self.subqueries = subqueries;
        predicate
    }

    /// Two columns of one kind; numbers before texts before all others.
    pub(super) fn pair(&mut self, left: &[Column], right: &[Column]) -> Option<(String, String)> {
        let kinds = [Kind::Int, Kind::Text, Kind::Decimal, Kind::Date, Kind::Time];
        let start = if self.dice.once_in(4) { 1 } else { 0 };
        let order = kinds[start..].iter().chain(&kinds[..start]);
        for kind in order {
            if let (Some(l), Some(r)) = (self.column_of(*kind, left), self.column_of(*kind, right)) {
                return Some((l, r));
            }
        }
        None
    }

    /// EXISTS, IN, and comparisons with what a subquery answers; correlated where it goes.
    pub(super) fn subquery_predicate(&mut self, scope: &[Column]) -> String {
        match self.dice.below(4) {
            0 => self.exists(scope),
            1 => self.in_subquery(scope),
            2 => {
                let (value, kind) = self.scalar_subquery(scope);
                format!("{} {} {value}", self.leaf(kind, scope), self.dice.pick(&["=", "<", ">=", "<>"]))
            }
            _ => self.in_subquery(scope),
        }
    }

    fn inner(&mut self, depth: usize) -> Relation {
        let bigs = std::mem::take(&mut self.bigs);
        let relation = match self.dice.below(6) {
            0 if bigs > 0 => self.table(BIG, &[]),
            _ => self.relation(&[], depth),
        };
        self.bigs = bigs;
        relation
    }

    pub(super) fn exists(&mut self, scope: &[Column]) -> String {
        let inner = self.inner(0);
        let not = self.dice.pick(&["", "NOT "]);
        let mut wheres = Vec::new();
        if let Some((outer, own)) = self.pair(scope, &inner.columns) {
            wheres.push(format!("{own} = {outer}"));
        }
        if wheres.is_empty() || self.dice.once_in(2) {
            wheres.push(self.plain_predicate(&inner.columns));
        }
        format!(
            "{not}EXISTS (SELECT {} FROM {} WHERE {})",
            self.dice.pick(&["1", "*"]),
            inner.sql,
            wheres.join(" AND ")
        )
    }

    pub(super) fn in_subquery(&mut self, scope: &[Column]) -> String {
        let inner = self.inner(1);
        let verb = self.dice.pick(&["IN", "NOT IN"]);
        let (outer, own) = match self.pair(scope, &inner.columns) {
            Some(pair) => pair,
            None => (self.literal(Kind::Int), self.leaf(Kind::Int, &inner.columns)),
        };
        let condition = match self.dice.below(4) {
            0 => format!(" WHERE {own} IS NOT NULL"),
            1 => format!(" WHERE {}", self.plain_predicate(&inner.columns)),
            2 => match self.pair(scope, &inner.columns) {
                Some((outer, own)) => format!(" WHERE {own} = {outer}"),
                None => String::new(),
            },
            _ => String::new(),
        };
        format!("{outer} {verb} (SELECT {own} FROM {}{condition})", inner.sql)
    }

    /// An aggregate over a table, correlated by an equality or not at all.
    pub(super) fn scalar_subquery(&mut self, scope: &[Column]) -> (String, Kind) {
        let inner = self.inner(0);
        let kind = self.kind_in(&inner.columns);
        let (aggregate, kind) = match (self.dice.below(3), kind) {
            (0, _) | (_, Kind::Bool | Kind::Float) => ("count(*)".to_owned(), Kind::Int),
            (1, kind) => (format!("max({})", self.leaf(kind, &inner.columns)), kind),
            (_, kind) => (format!("min({})", self.leaf(kind, &inner.columns)), kind),
        };
        let condition = match self.pair(scope, &inner.columns) {
            Some((outer, own)) if !self.dice.once_in(4) => format!(" WHERE {own} = {outer}"),
            _ => String::new(),
        };
        (format!("(SELECT {aggregate} FROM {}{condition})", inner.sql), kind)
    }
}

/// `sql AS called` with its columns; without alias it is called `last`.
fn named(
    sql: &str,
    called: Option<String>,
    last: &str,
    columns: &[(String, Kind)],
    is_big: bool,
) -> Relation {
    let unquoted = |name: &str| name.trim_matches('"').to_owned();
    let (sql, qualifier, name) = match called {
        Some(called) => (format!("{sql} AS {called}"), called.clone(), unquoted(&called)),
        None => (sql.to_owned(), sql.to_owned(), last.to_owned()),
    };
    let columns = columns
        .iter()
        .map(|(name, kind)| Column {
            sql: format!("{qualifier}.{}", quoted(name)),
            name: name.clone(),
            kind: *kind,
        })
        .collect();
    Relation { sql, name, columns, is_big }
}
