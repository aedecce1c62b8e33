//! Queries that group, aggregate and number their rows.

use super::queries::{Item, Naming};
use super::relations::From;
use super::{Column, Generator, Kind, Query};

impl Generator {
    /// `GROUP BY` of columns and expressions.
    pub(super) fn grouped(&mut self, depth: usize, naming: Naming) -> Query {
        let count = self.dice.between(1, 3);
        let from = self.from(count, depth);
        let keys: Vec<Item> = (0..self.dice.below(3)).map(|_| self.key(&from.columns)).collect();
        self.group(&from, dedup(keys), &Sets::Plain, naming)
    }

    /// `GROUP BY CASE …`.
    pub(super) fn grouped_by_case(&mut self, depth: usize) -> Query {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let kind = *self.dice.of(&[Kind::Text, Kind::Int, Kind::Decimal]);
        let scope = &from.columns;
        let subqueries = std::mem::take(&mut self.subqueries);
        let branches: Vec<String> = (0..self.dice.between(1, 2))
            .map(|_| format!("WHEN {} THEN {}", self.predicate(scope, 1), self.leaf(kind, scope)))
            .collect();
        self.subqueries = subqueries;
        let otherwise =
            if self.dice.once_in(2) { format!(" ELSE {}", self.literal(kind)) } else { String::new() };
        let case = Item { sql: format!("CASE {}{otherwise} END", branches.join(" ")), kind, name: None };
        self.group(&from, vec![case], &Sets::Plain, Naming::Some)
    }

    /// `ROLLUP`, `CUBE`, `GROUPING SETS`.
    pub(super) fn grouped_by_sets(&mut self, depth: usize) -> Query {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let keys = dedup((0..self.dice.between(1, 2)).map(|_| self.column_key(&from.columns)).collect());
        let sets = match self.dice.below(3) {
            0 => Sets::Rollup,
            1 => Sets::Cube,
            _ => Sets::Listed,
        };
        self.group(&from, keys, &sets, Naming::Some)
    }

    /// Aggregates whose answer goes by an order.
    pub(super) fn ordered_aggregates(&mut self, depth: usize) -> Query {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let keys: Vec<Item> = (0..self.dice.below(2)).map(|_| self.column_key(&from.columns)).collect();
        let mut items: Vec<Item> = (0..2).map(|_| self.ordered_aggregate(&from.columns)).collect();
        items.push(self.aggregate(&from.columns));
        self.assemble(&from, dedup(keys), &Sets::Plain, dedup(items), Naming::Some)
    }

    fn key(&mut self, scope: &[Column]) -> Item {
        if !self.dice.once_in(3) {
            return self.column_key(scope);
        }
        let kind = *self.dice.of(&[Kind::Int, Kind::Text, Kind::Date]);
        let sql = self.value(kind, scope, 1);
        if sql.contains('.') { Item { sql, kind, name: None } } else { self.column_key(scope) }
    }

    fn column_key(&mut self, scope: &[Column]) -> Item {
        let fitting: Vec<&Column> =
            scope.iter().filter(|column| !matches!(column.kind, Kind::Float | Kind::Other)).collect();
        match fitting.is_empty() {
            true => Item { sql: "1 + 1".to_owned(), kind: Kind::Int, name: None },
            false => {
                let column = *self.dice.of(&fitting);
                Item { sql: column.sql.clone(), kind: column.kind, name: Some(column.name.clone()) }
            }
        }
    }

    fn group(&mut self, from: &From, keys: Vec<Item>, sets: &Sets, naming: Naming) -> Query {
        let mut items: Vec<Item> =
            (0..self.dice.between(1, 3)).map(|_| self.aggregate(&from.columns)).collect();
        if !matches!(sets, Sets::Plain) {
            let sql = format!("grouping({})", keys[0].sql);
            items.push(Item { sql, kind: Kind::Int, name: None });
        }
        self.assemble(from, keys, sets, dedup(items), naming)
    }

    fn assemble(
        &mut self,
        from: &From,
        keys: Vec<Item>,
        sets: &Sets,
        aggregates: Vec<Item>,
        naming: Naming,
    ) -> Query {
        let names: Vec<String> = keys.iter().map(|key| key.sql.clone()).collect();
        let subqueries = std::mem::take(&mut self.subqueries);
        let having = match self.dice.below(4) {
            0 => format!(" HAVING count(*) > {}", self.dice.below(3)),
            1 => format!(" HAVING {} IS NOT NULL", self.aggregate(&from.columns).sql),
            _ => String::new(),
        };
        self.subqueries = subqueries;
        let condition = match self.dice.once_in(2) {
            true => String::new(),
            false => format!(" WHERE {}", self.predicate(&from.columns, 2)),
        };
        let items = keys.into_iter().chain(aggregates).collect();
        let (list, columns) = self.list(items, naming);
        let group = if names.is_empty() { String::new() } else { format!(" GROUP BY {}", sets.of(&names)) };
        let sql = format!("SELECT {list} FROM {}{condition}{group}{having}", from.sql);
        Query { sql, columns, is_ordered: false }
    }

    /// An aggregate that does not go by the order of rows.
    pub(super) fn aggregate(&mut self, scope: &[Column]) -> Item {
        let subqueries = std::mem::take(&mut self.subqueries);
        let mut item = self.bare_aggregate(scope);
        if self.dice.once_in(5) {
            item.sql = format!("{} FILTER (WHERE {})", item.sql, self.predicate(scope, 1));
        }
        self.subqueries = subqueries;
        item
    }

    fn bare_aggregate(&mut self, scope: &[Column]) -> Item {
        let item = |sql, kind| Item { sql, kind, name: None };
        let some_kind = *self.dice.of(&[Kind::Int, Kind::Text, Kind::Decimal, Kind::Date, Kind::Time]);
        let int = self.value(Kind::Int, scope, 1);
        match self.dice.below(13) {
            0 | 1 => item("count(*)".to_owned(), Kind::Int),
            2 => item(format!("count({})", self.any(scope)), Kind::Int),
            3 => item(format!("count(DISTINCT {})", self.leaf(some_kind, scope)), Kind::Int),
            4 | 5 => item(format!("sum({int})"), Kind::Int),
            6 => item(format!("sum({})", self.leaf(Kind::Decimal, scope)), Kind::Decimal),
            7 => item(format!("max({})", self.value(some_kind, scope, 1)), some_kind),
            8 => item(format!("min({})", self.value(some_kind, scope, 1)), some_kind),
            9 => item(format!("avg({})", self.leaf(Kind::Decimal, scope)), Kind::Decimal),
            10 => item(format!("avg({})", self.leaf(Kind::Int, scope)), Kind::Float),
            11 => item(format!("sum(DISTINCT {})", self.leaf(Kind::Int, scope)), Kind::Int),
            _ => item(format!("bool_or({})", self.predicate(scope, 0)), Kind::Bool),
        }
    }

    /// Ordered by what it answers, last of all: ties are the same.
    fn ordered_aggregate(&mut self, scope: &[Column]) -> Item {
        let kind = *self.dice.of(&[Kind::Int, Kind::Text, Kind::Decimal, Kind::Date]);
        let value = self.leaf(kind, scope);
        let other = self.column_key(scope).sql;
        let nulls = self.dice.pick(&["", " NULLS FIRST", " DESC", " DESC NULLS LAST"]);
        // DataFusion's two-phase aggregates lose a column that stands twice in ORDER BY, and fail.
        let order = match other == value {
            true => format!("{value}{nulls}"),
            false => format!("{other}{nulls}, {value}"),
        };
        let (sql, kind) = match self.dice.below(5) {
            0 => (format!("array_agg({value} ORDER BY {value}{nulls})"), Kind::Other),
            1 => {
                let text = self.leaf(Kind::Text, scope);
                (format!("string_agg({text}, ',' ORDER BY {text}{nulls})"), Kind::Text)
            }
            2 => (format!("last_value({value} ORDER BY {order})"), kind),
            3 => (format!("nth_value({value}, 2 ORDER BY {order})"), kind),
            _ => (format!("first_value({value} ORDER BY {order})"), kind),
        };
        Item { sql, kind, name: None }
    }

    /// One window function, which orders by all that is selected beside it, or treats ties alike. A second
    /// one could tell apart what are ties to the first.
    pub(super) fn windowed(&mut self, depth: usize, naming: Naming) -> Query {
        let count = self.dice.between(1, 2);
        let from = self.from(count, depth);
        let mut items = self.orderable_items(&from.columns);
        let seen: Vec<(String, Kind)> = items.iter().map(|item| (item.sql.clone(), item.kind)).collect();
        items.push(self.window(&from.columns, &seen));
        let condition = self.condition(&from, 2);
        let (list, columns) = self.list(dedup(items), naming);
        Query { sql: format!("SELECT {list} FROM {}{condition}", from.sql), columns, is_ordered: false }
    }

    fn window(&mut self, scope: &[Column], seen: &[(String, Kind)]) -> Item {
        let partition = match self.dice.once_in(3) {
            true => String::new(),
            false => format!("PARTITION BY {} ", self.column_key(scope).sql),
        };
        let by = self.column_key(scope).sql;
        let direction = self.dice.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let all: Vec<&str> = seen.iter().map(|(sql, _)| sql.as_str()).collect();
        let total = format!("{partition}ORDER BY {by}{direction}, {}", all.join(", "));
        let ties = format!("{partition}ORDER BY {by}{direction}");
        let (value, kind) = self.dice.of(seen).clone();
        let rows = self.dice.pick(&[
            "",
            " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
        ]);
        let (sql, kind) = match self.dice.below(11) {
            0 => (format!("row_number() OVER ({total})"), Kind::Int),
            1 => (format!("rank() OVER ({ties})"), Kind::Int),
            2 => (format!("dense_rank() OVER ({ties})"), Kind::Int),
            3 => (format!("lag({value}) OVER ({total})"), kind),
            4 => (format!("lead({value}, 2) OVER ({total})"), kind),
            5 => (format!("first_value({value}) OVER ({total}{rows})"), kind),
            6 => (format!("ntile(2) OVER ({total})"), Kind::Int),
            7 => (format!("count(*) OVER ({total}{rows})"), Kind::Int),
            8 => (format!("max({value}) OVER ({total}{rows})"), kind),
            9 => (format!("sum({}) OVER ({ties})", self.leaf(Kind::Int, scope)), Kind::Int),
            _ => (format!("count({value}) OVER ({partition})"), Kind::Int),
        };
        Item { sql, kind, name: None }
    }
}

/// How the keys of a GROUP BY are put.
enum Sets {
    Plain,
    Rollup,
    Cube,
    /// Each alone, all together, none.
    Listed,
}

impl Sets {
    fn of(&self, keys: &[String]) -> String {
        let all = keys.join(", ");
        match self {
            Self::Plain => all,
            Self::Rollup => format!("ROLLUP({all})"),
            Self::Cube => format!("CUBE({all})"),
            Self::Listed => {
                let each: Vec<String> = keys.iter().map(|key| format!("({key})")).collect();
                match each.len() {
                    1 => format!("GROUPING SETS ({}, ())", each[0]),
                    _ => format!("GROUPING SETS ({}, ({all}), ())", each.join(", ")),
                }
            }
        }
    }
}

fn dedup(items: Vec<Item>) -> Vec<Item> {
    let mut kept: Vec<Item> = Vec::new();
    for item in items {
        if kept.iter().all(|other| other.sql != item.sql) {
            kept.push(item);
        }
    }
    kept
}
