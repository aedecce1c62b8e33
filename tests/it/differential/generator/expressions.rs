//! Values and predicates over the columns in scope.

use serde_json::json;

use super::parameters::marked;
use super::{Column, Generator, Kind};

/// Kinds that a value may be asked of; `Other` only ever comes as a column.
pub(super) const KINDS: [Kind; 7] =
    [Kind::Int, Kind::Int, Kind::Decimal, Kind::Text, Kind::Bool, Kind::Date, Kind::Time];

impl Generator {
    /// Columns of `kind` in `scope`.
    pub(super) fn column_of(&mut self, kind: Kind, scope: &[Column]) -> Option<String> {
        let fitting: Vec<&Column> = scope.iter().filter(|column| column.kind == kind).collect();
        (!fitting.is_empty()).then(|| self.dice.of(&fitting).sql.clone())
    }

    /// A kind that some column of `scope` has.
    pub(super) fn kind_in(&mut self, scope: &[Column]) -> Kind {
        let kinds: Vec<Kind> = scope.iter().map(|column| column.kind).filter(|k| *k != Kind::Other).collect();
        if kinds.is_empty() { Kind::Int } else { *self.dice.of(&kinds) }
    }

    /// A column of `kind`, or a literal where there is none.
    pub(super) fn leaf(&mut self, kind: Kind, scope: &[Column]) -> String {
        match self.column_of(kind, scope) {
            Some(column) if !self.dice.once_in(8) => column,
            _ => self.literal(kind),
        }
    }

    pub(super) fn literal(&mut self, kind: Kind) -> String {
        if self.has_parameters && self.dice.once_in(2) {
            return self.parameter(kind);
        }
        let texts: &[&str] = match kind {
            Kind::Int => {
                &["0", "1", "2", "3", "(-1)", "7", "50", "arrow_cast(2, 'Int32')", "CAST(1 AS SMALLINT)"]
            }
            Kind::Decimal => {
                &["1.05", "0", "(-2.50)", "CAST(9.99 AS DECIMAL(10, 2))", "CAST(1 AS DECIMAL(5, 1))"]
            }
            Kind::Text => {
                &["'red'", "'a''b'", "''", "'z'", "'50%'", "'a_b\\'", "arrow_cast('x', 'Utf8View')"]
            }
            Kind::Bool => &["TRUE", "FALSE"],
            Kind::Float | Kind::Other => {
                &["0.1", "CAST('NaN' AS DOUBLE)", "-0.0", "1e300", "CAST(1.5 AS DOUBLE)"]
            }
            Kind::Date => {
                &["date '2020-02-29'", "date '1970-01-01'", "date '1969-12-31'", "CAST('1970-01-10' AS DATE)"]
            }
            Kind::Time => &[
                "timestamp '1970-01-01T00:00:00'",
                "timestamp '2020-02-28T23:59:59.123456'",
                "timestamp '1969-12-31 23:59:59.999999'",
                "arrow_cast('1970-01-02', 'Timestamp(Second, None)')",
            ],
        };
        self.dice.pick(texts).to_owned()
    }

    fn parameter(&mut self, kind: Kind) -> String {
        let value = match kind {
            Kind::Int => json!(self.dice.below(6) as i64 - 1),
            Kind::Decimal => json!(1.05),
            Kind::Text => json!(self.dice.pick(&["red", "a'b", "", "a_b\\", "50%", "-- x", "\u{e4}"])),
            Kind::Bool => json!(self.dice.once_in(2)),
            Kind::Float | Kind::Other => json!(0.1),
            Kind::Date => return format!("CAST({} AS DATE)", marked(&json!("2020-02-29"))),
            Kind::Time => return format!("CAST({} AS TIMESTAMP)", marked(&json!("1970-01-01T00:00:00"))),
        };
        marked(&value)
    }

    /// An expression of `kind`.
    pub(super) fn value(&mut self, kind: Kind, scope: &[Column], depth: usize) -> String {
        if depth == 0 || self.dice.once_in(3) {
            return self.leaf(kind, scope);
        }
        if self.dice.once_in(6) {
            return self.choice(kind, scope, depth);
        }
        match kind {
            Kind::Int => self.int(scope, depth - 1),
            Kind::Decimal => self.decimal(scope, depth - 1),
            Kind::Text => self.text(scope, depth - 1),
            Kind::Bool => format!("({})", self.predicate(scope, depth - 1)),
            Kind::Float | Kind::Other => self.float(scope, depth - 1),
            Kind::Date => self.date(scope, depth - 1),
            Kind::Time => self.time(scope, depth - 1),
        }
    }

    /// One of several values of one kind.
    fn choice(&mut self, kind: Kind, scope: &[Column], depth: usize) -> String {
        let (a, b) = (self.value(kind, scope, depth - 1), self.value(kind, scope, depth - 1));
        match self.dice.below(5) {
            0 => format!("coalesce({a}, {b})"),
            1 => format!("nullif({a}, {b})"),
            2 => format!("CASE WHEN {} THEN {a} ELSE {b} END", self.predicate(scope, depth - 1)),
            3 => format!("CASE WHEN {} THEN {a} END", self.predicate(scope, depth - 1)),
            _ => {
                let on = self.leaf(Kind::Int, scope);
                format!("CASE {on} WHEN 1 THEN {a} WHEN 2 THEN {b} ELSE NULL END")
            }
        }
    }

    fn int(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.value(Kind::Int, scope, depth);
        match self.dice.below(14) {
            0 => format!("({a} + {})", self.value(Kind::Int, scope, depth)),
            1 => format!("({a} - {})", self.value(Kind::Int, scope, depth)),
            2 => format!("{a} * {}", self.dice.pick(&["2", "-1", "3"])),
            3 => format!("{a} % 3"),
            4 => format!("{a} / 2"),
            5 => format!("abs({a})"),
            6 => format!("-({a})"),
            7 => format!("length({})", self.value(Kind::Text, scope, depth)),
            8 => format!("strpos({}, 'a')", self.value(Kind::Text, scope, depth)),
            9 => format!("TRY_CAST({} AS BIGINT)", self.value(Kind::Text, scope, depth)),
            10 => format!("CAST({} AS BIGINT)", self.leaf(Kind::Decimal, scope)),
            11 => {
                let field = self.dice.pick(&["year", "month", "day", "dow"]);
                format!("extract({field} FROM {})", self.leaf(Kind::Date, scope))
            }
            12 => format!("date_part('hour', {})", self.leaf(Kind::Time, scope)),
            _ => format!("({a} & 3)"),
        }
    }

    fn decimal(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.value(Kind::Decimal, scope, depth);
        match self.dice.below(6) {
            0 => format!("{} * 2", self.leaf(Kind::Decimal, scope)),
            1 => format!("({} - {})", self.leaf(Kind::Decimal, scope), self.leaf(Kind::Decimal, scope)),
            2 => format!("CAST({} AS DECIMAL(12, 3))", self.leaf(Kind::Int, scope)),
            3 => format!("-({a})"),
            4 => format!("CAST({a} AS DECIMAL(20, 1))"),
            _ => format!("({} + CAST(0.5 AS DECIMAL(3, 1)))", self.leaf(Kind::Decimal, scope)),
        }
    }

    fn text(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.value(Kind::Text, scope, depth);
        match self.dice.below(12) {
            0 => format!("upper({a})"),
            1 => format!("lower({a})"),
            2 => format!("({a} || {})", self.value(Kind::Text, scope, depth)),
            3 => format!("concat({a}, '-', {})", self.leaf(Kind::Int, scope)),
            4 => format!("substr({a}, 2)"),
            5 => format!("SUBSTRING({a} FROM 1 FOR 2)"),
            6 => format!("TRIM(BOTH 'a' FROM {a})"),
            7 => format!("replace({a}, '''', '\"')"),
            8 => format!("CAST({} AS VARCHAR)", self.leaf(Kind::Int, scope)),
            9 => format!("left({a}, 1)"),
            10 => format!("CAST({} AS VARCHAR)", self.leaf(Kind::Date, scope)),
            _ => format!("reverse({a})"),
        }
    }

    fn float(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.leaf(Kind::Float, scope);
        match self.dice.below(4) {
            0 => format!("CAST({} AS DOUBLE)", self.value(Kind::Int, scope, depth)),
            1 => format!("{a} / 2"),
            2 => format!("-({a})"),
            _ => format!("abs({a})"),
        }
    }

    fn date(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.value(Kind::Date, scope, depth);
        match self.dice.below(4) {
            0 => format!("{a} + interval '{}'", self.dice.pick(&["1 month", "1 day", "-1 year"])),
            1 => format!("CAST({} AS DATE)", self.leaf(Kind::Time, scope)),
            2 => format!("CAST(date_trunc('month', {a}) AS DATE)"),
            _ => format!("{a} - interval '1 month'"),
        }
    }

    fn time(&mut self, scope: &[Column], depth: usize) -> String {
        let a = self.value(Kind::Time, scope, depth);
        match self.dice.below(4) {
            0 => format!("date_trunc('{}', {a})", self.dice.pick(&["hour", "day", "month"])),
            1 => format!("{a} + interval '1 day 2 hours'"),
            2 => format!("CAST({} AS TIMESTAMP)", self.leaf(Kind::Date, scope)),
            _ => format!("{a} - interval '1 hour'"),
        }
    }

    /// A predicate: TRUE, FALSE or NULL for each row.
    pub(super) fn predicate(&mut self, scope: &[Column], depth: usize) -> String {
        if depth > 0 && self.dice.once_in(4) {
            let (a, b) = (self.predicate(scope, depth - 1), self.predicate(scope, depth - 1));
            return match self.dice.below(4) {
                0 => format!("({a} OR {b})"),
                1 => format!("NOT ({a})"),
                2 => format!("({a}) IS NOT {}", self.dice.pick(&["TRUE", "FALSE", "UNKNOWN"])),
                _ => format!("{a} AND {b}"),
            };
        }
        if self.subqueries > 0 && depth > 0 && self.dice.once_in(5) {
            self.subqueries -= 1;
            return self.subquery_predicate(scope);
        }
        match self.dice.below(10) {
            0 => format!("{} IS {} NULL", self.any(scope), self.dice.pick(&["", "NOT"])),
            1 => self.like(scope),
            2 => self.in_list(scope),
            3 => {
                let a = self.value(Kind::Int, scope, depth);
                let not = self.dice.pick(&["", "NOT "]);
                format!("{a} {not}BETWEEN {} AND {}", self.leaf(Kind::Int, scope), self.literal(Kind::Int))
            }
            4 => match self.column_of(Kind::Bool, scope) {
                Some(ok) => format!(
                    "{ok} {}",
                    self.dice.pick(&["", "IS TRUE", "IS NOT TRUE", "= FALSE", "IS UNKNOWN"])
                ),
                None => self.comparison(scope, depth),
            },
            5 => self.by_literal_type(scope),
            _ => self.comparison(scope, depth),
        }
    }

    /// Some column, or a number where there is none.
    pub(super) fn any(&mut self, scope: &[Column]) -> String {
        if scope.is_empty() { "1".to_owned() } else { self.dice.of(scope).sql.clone() }
    }

    fn comparison(&mut self, scope: &[Column], depth: usize) -> String {
        let kind = self.kind_in(scope);
        let op = self.dice.pick(&[
            "=",
            "<>",
            "<",
            "<=",
            ">",
            ">=",
            "<>",
            "IS DISTINCT FROM",
            "IS NOT DISTINCT FROM",
        ]);
        let a = self.value(kind, scope, depth.min(1));
        let b = if self.dice.once_in(2) { self.literal(kind) } else { self.value(kind, scope, depth.min(1)) };
        // `a IS DISTINCT FROM b OR c` would compare with `b OR c`.
        format!("({a} {op} {b})")
    }

    /// Comparisons that differ only by the type of a literal.
    fn by_literal_type(&mut self, scope: &[Column]) -> String {
        let number = self.leaf(Kind::Int, scope);
        let literal = self.dice.pick(&[
            "2",
            "2.0",
            "'2'",
            "2.5",
            "2e0",
            "CAST(2 AS TINYINT)",
            "CAST(2 AS DECIMAL(4, 2))",
            "arrow_cast(2, 'UInt64')",
            "arrow_cast(2, 'Float32')",
        ]);
        let op = self.dice.pick(&["=", "<", ">=", "<>"]);
        format!("{number} {op} {literal}")
    }

    fn like(&mut self, scope: &[Column]) -> String {
        let text = self.leaf(Kind::Text, scope);
        let verb = self.dice.pick(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]);
        let pattern = self.dice.pick(&[
            "'a%'", "'%\\%'", "'a_b%'", "'%''%'", "''", "'R%'", "'%e%'", "'50\\%'", "'_'", "'%\\\\'", "NULL",
        ]);
        match self.dice.below(5) {
            0 => format!("{text} {} '^[a-r]'", self.dice.pick(&["~", "~*", "!~"])),
            1 => format!("{text} {verb} '%\\_%' ESCAPE '\\'"),
            2 => format!("starts_with({text}, 'a')"),
            _ => format!("{text} {verb} {pattern}"),
        }
    }

    fn in_list(&mut self, scope: &[Column]) -> String {
        let kind = self.kind_in(scope);
        let column = self.leaf(kind, scope);
        let verb = self.dice.pick(&["IN", "NOT IN"]);
        let mut list: Vec<String> = (0..self.dice.between(1, 4)).map(|_| self.literal(kind)).collect();
        if self.dice.once_in(6) {
            list.push("NULL".to_owned());
        }
        format!("{column} {verb} ({})", list.join(", "))
    }
}
