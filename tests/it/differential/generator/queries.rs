//! Whole queries: plain, distinct, grouped, windowed, limited, combined, with CTEs.

use super::expressions::KINDS;
use super::relations::From;
use super::{Column, Generator, Kind, Query, quoted};

/// Output names that mislead: of other columns, of expressions, with quotes and dots.
const NAMES: [&str; 14] = [
    "x",
    "id",
    "k",
    "Name",
    "v",
    "a.b",
    "count(*)",
    "we\"ird",
    "t.id",
    "order",
    "\u{e4}\u{f6}",
    "Int64(1)",
    "price",
    "u",
];
/// Rows of the bigger table that are few enough to be shown.
const THINNED: usize = 61;

/// One column of a SELECT list.
pub(super) struct Item {
    pub sql: String,
    pub kind: Kind,
    /// The name that it has without an alias, where that is known.
    pub name: Option<String>,
}

/// How much of a query is given names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Other queries read its columns: each has a name of its own.
    All,
    /// Unnamed expressions stay as they are.
    Some,
}

impl Generator {
    /// Any query, for others to read from.
    pub(super) fn query(&mut self, depth: usize) -> Query {
        match self.dice.below(9) {
            0 => self.distinct(depth, Naming::All),
            1 => self.grouped(depth, Naming::All),
            2 => self.limited(depth, Naming::All),
            3 => self.set_operation(depth),
            4 => self.windowed(depth, Naming::All),
            5 if depth > 0 => self.with_ctes(depth - 1, Naming::All),
            _ => self.plain(2, depth, Naming::All),
        }
    }

    /// `SELECT … FROM … WHERE …` over at most `relations`.
    pub(super) fn plain(&mut self, relations: usize, depth: usize, naming: Naming) -> Query {
        let count = self.dice.between(1, relations);
        let from = self.from(count, depth);
        self.select(&from, naming)
    }

    /// A projection of `from` with a filter.
    pub(super) fn select(&mut self, from: &From, naming: Naming) -> Query {
        let items = self.items(&from.columns);
        let (list, columns) = self.list(items, naming);
        let condition = self.condition(from, 2);
        Query { sql: format!("SELECT {list} FROM {}{condition}", from.sql), columns, is_ordered: false }
    }

    /// ` WHERE …`, or nothing, or what keeps few rows of a big table.
    pub(super) fn condition(&mut self, from: &From, without: usize) -> String {
        let mut wheres = Vec::new();
        if !self.dice.once_in(without) {
            wheres.push(self.predicate(&from.columns, 2));
        }
        if from.is_big {
            wheres.extend(self.thinned(&from.columns));
        }
        if wheres.is_empty() { String::new() } else { format!(" WHERE {}", wheres.join(" AND ")) }
    }

    pub(super) fn thinned(&mut self, columns: &[Column]) -> Option<String> {
        let id =
            columns.iter().find(|column| column.sql.to_lowercase().contains("big") && column.name == "id");
        let id = id.or_else(|| columns.iter().find(|column| column.name == "id"))?;
        let rest = self.dice.below(THINNED);
        Some(format!("({0} % {THINNED} = {rest} OR {0} < {1} OR {0} IS NULL)", id.sql, self.dice.below(9)))
    }

    /// What to select from `scope`.
    pub(super) fn items(&mut self, scope: &[Column]) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for _ in 0..self.dice.between(1, 4) {
            let item = self.item(scope);
            if items.iter().all(|other| other.sql != item.sql) {
                items.push(item);
            }
        }
        items
    }

    fn item(&mut self, scope: &[Column]) -> Item {
        if !scope.is_empty() && self.dice.once_in(2) {
            let column = self.dice.of(scope);
            return Item { sql: column.sql.clone(), kind: column.kind, name: Some(column.name.clone()) };
        }
        let mut kind = *self.dice.of(&KINDS);
        if self.dice.once_in(8) && self.column_of(Kind::Float, scope).is_some() {
            kind = Kind::Float;
        }
        Item { sql: self.value(kind, scope, 2), kind, name: None }
    }

    /// A SELECT list, and the names and kinds of its columns.
    pub(super) fn list(&mut self, items: Vec<Item>, naming: Naming) -> (String, Vec<(String, Kind)>) {
        let mut columns: Vec<(String, Kind)> = Vec::new();
        let mut list = Vec::new();
        for Item { sql, kind, name } in items {
            let is_new = |name: &String| columns.iter().all(|(other, _)| other != name);
            let keeps_name = match naming {
                Naming::All => name.as_ref().is_some_and(is_new) && !self.dice.once_in(3),
                Naming::Some => !self.dice.once_in(4),
            };
            let name = if keeps_name { name.unwrap_or_default() } else { self.new_name(&columns) };
            list.push(if keeps_name { sql } else { format!("{sql} AS {}", quoted(&name)) });
            columns.push((name, kind));
        }
        (list.join(", "), columns)
    }

    fn new_name(&mut self, columns: &[(String, Kind)]) -> String {
        let name = self.dice.pick(&NAMES).to_owned();
        if columns.iter().any(|(other, _)| *other == name) { self.fresh("n") } else { name }
    }

    pub(super) fn distinct(&mut self, depth: usize, naming: Naming) -> Query {
        let mut query = self.plain(2, depth, naming);
        query.sql = query.sql.replacen("SELECT ", "SELECT DISTINCT ", 1);
        query
    }

    /// The first row of each group in an order of everything that is seen.
    pub(super) fn distinct_on(&mut self, depth: usize) -> Query {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let items = self.orderable_items(&from.columns);
        let count = self.dice.between(1, 2.min(items.len()));
        let on: Vec<String> = items[..count].iter().map(|item| item.sql.clone()).collect();
        let order: Vec<String> = items
            .iter()
            .map(|item| format!("{}{}", item.sql, self.dice.pick(&["", " DESC", " NULLS FIRST"])))
            .collect();
        let condition = self.condition(&from, 2);
        let (list, columns) = self.list(items, Naming::Some);
        let sql = format!(
            "SELECT DISTINCT ON ({}) {list} FROM {}{condition} ORDER BY {}",
            on.join(", "),
            from.sql,
            order.join(", ")
        );
        Query { sql, columns, is_ordered: false }
    }

    /// Some columns, none of a kind without order.
    pub(super) fn orderable_items(&mut self, scope: &[Column]) -> Vec<Item> {
        let mut items = self.items(scope);
        items.retain(|item| !matches!(item.kind, Kind::Other | Kind::Float) && is_variable(&item.sql));
        if items.is_empty() {
            let column = scope.iter().find(|column| !matches!(column.kind, Kind::Other | Kind::Float));
            items.extend(column.map(|column| Item {
                sql: column.sql.clone(),
                kind: column.kind,
                name: Some(column.name.clone()),
            }));
        }
        items
    }

    /// `query` cut after some rows, ordered by all of its columns: the rows are determined, and their order.
    pub(super) fn limited(&mut self, depth: usize, naming: Naming) -> Query {
        let count = self.dice.between(1, 3);
        let from = self.from(count, depth);
        let items = self.orderable_items(&from.columns);
        let (list, columns) = self.list(items, naming);
        let condition = self.condition(&from, 3);
        let order = self.order_by_all(columns.len());
        let mut sql = format!("SELECT {list} FROM {}{condition} {order}", from.sql);
        match self.dice.below(4) {
            0 => sql.push_str(&format!(" LIMIT {} OFFSET {}", self.dice.below(6), self.dice.below(3))),
            1 => sql.push_str(&format!(" OFFSET {}", self.dice.below(4))),
            _ => sql.push_str(&format!(" LIMIT {}", self.dice.below(8))),
        }
        Query { sql, columns, is_ordered: true }
    }

    pub(super) fn order_by_all(&mut self, columns: usize) -> String {
        let one = |dice: &mut super::Dice, at| {
            format!("{at}{}{}", dice.pick(&["", " DESC"]), dice.pick(&["", " NULLS FIRST", " NULLS LAST"]))
        };
        let all: Vec<String> = (1..=columns).map(|at| one(&mut self.dice, at)).collect();
        format!("ORDER BY {}", all.join(", "))
    }

    /// Two or three queries of the same kinds, combined.
    pub(super) fn set_operation(&mut self, depth: usize) -> Query {
        let kinds: Vec<Kind> = (0..self.dice.between(1, 2))
            .map(|_| if self.dice.once_in(3) { Kind::Text } else { Kind::Int })
            .collect();
        let names: Vec<String> = ["p", "q"][..kinds.len()].iter().map(|name| (*name).to_owned()).collect();
        let mut sql = self.operand(&kinds, &names, depth);
        for _ in 0..self.dice.between(1, 2) {
            let verb = self.dice.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT", "INTERSECT"]);
            let right = self.operand(&kinds, &names, depth);
            sql = format!("({sql}) {verb} ({right})");
        }
        Query { sql, columns: names.into_iter().zip(kinds).collect(), is_ordered: false }
    }

    fn operand(&mut self, kinds: &[Kind], names: &[String], depth: usize) -> String {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let list: Vec<String> = kinds
            .iter()
            .zip(names)
            .map(|(kind, name)| match self.column_of(*kind, &from.columns) {
                Some(column) => format!("{column} AS {name}"),
                None => format!("{} AS {name}", self.value(*kind, &from.columns, 1)),
            })
            .collect();
        let condition = self.condition(&from, 2);
        format!("SELECT {} FROM {}{condition}", list.join(", "), from.sql)
    }

    /// One to three CTEs, some called like tables, and a query that reads them.
    pub(super) fn with_ctes(&mut self, depth: usize, naming: Naming) -> Query {
        let before = self.ctes.len();
        let mut with = Vec::new();
        for _ in 0..self.dice.between(1, 3) {
            let query = self.query(depth);
            let name = self.cte_name(before);
            match self.dice.once_in(4) {
                true => {
                    let renamed: Vec<_> =
                        query.columns.iter().map(|(_, kind)| (self.fresh("r"), *kind)).collect();
                    let names: Vec<&str> = renamed.iter().map(|(name, _)| name.as_str()).collect();
                    with.push(format!("{}({}) AS ({})", quoted(&name), names.join(", "), query.sql));
                    self.ctes.push((name, renamed));
                }
                false => {
                    with.push(format!("{} AS ({})", quoted(&name), query.sql));
                    self.ctes.push((name, query.columns));
                }
            }
        }
        let mut query = match self.dice.below(4) {
            0 => self.grouped(0, naming),
            1 => self.distinct(0, naming),
            _ => self.plain(3, 0, naming),
        };
        query.sql = format!("WITH {} {}", with.join(", "), query.sql);
        self.ctes.truncate(before);
        query
    }

    /// A table's name, or a new one; never twice in one WITH.
    fn cte_name(&mut self, before: usize) -> String {
        let name = self.dice.pick(&["t", "u", "orders", "big", "keys", "rich", "facts"]).to_owned();
        let is_taken = self.ctes[before..].iter().any(|(other, _)| *other == name);
        if is_taken || self.dice.once_in(4) { self.fresh("cte") } else { name }
    }
}

/// A literal in ORDER BY would be a position.
fn is_variable(sql: &str) -> bool {
    sql.contains('.') && !sql.starts_with(|c: char| c.is_ascii_digit())
}
