//! SQL text and its parameters to one statement that only reads.
//!
//! Parameters become literals of the statement, so that they are planned, forwarded and compared like
//! any other part of it.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Statement as SqlStatement, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::dialect::Patient;
use super::{Parameters, QueryError};

/// How deep parentheses, subqueries and the like may nest.
const NESTING_MAX: usize = 100;
/// How deep the arguments of a function that reads types may nest: no statement can be deeper by itself.
const TYPE_NESTING_MAX: usize = 160;

/// One statement, its parameters bound.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub statement: Statement,
    /// Set for `EXPLAIN` of a query: `statement` is then the query itself.
    pub explain: Option<Explain>,
}

/// An `EXPLAIN` around a query.
#[derive(Debug, Clone)]
pub(super) struct Explain {
    pub analyze: bool,
    /// The whole statement, for DataFusion's own EXPLAIN.
    pub whole: Statement,
}

/// Parses `sql` and binds `parameters`.
///
/// # Errors
/// Not one statement, not SQL, not reading, or parameters that do not fit.
pub(super) fn parse(sql: &str, parameters: &Parameters) -> Result<Parsed, QueryError> {
    if let Some(message) = super::limits::excess(sql) {
        return Err(invalid(message));
    }
    let mut statement = parse_one(sql)?;
    bind(&mut statement, parameters)?;
    match statement {
        Statement::Explain(explain) => {
            refuse_writes(&explain.statement)?;
            let inner = (*explain.statement).clone();
            let analyze = explain.options.analyze;
            let explain = Explain { analyze, whole: Statement::Explain(explain) };
            Ok(Parsed { statement: inner, explain: Some(explain) })
        }
        statement => {
            refuse_writes(&statement)?;
            Ok(Parsed { statement, explain: None })
        }
    }
}

pub(super) fn invalid(message: String) -> QueryError {
    QueryError::Invalid { message }
}

pub(super) fn parse_one(sql: &str) -> Result<Statement, QueryError> {
    let dialect = Patient::new(sql);
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| match dialect.is_exhausted() {
        true => invalid(
            "the statement nests too deeply to be read: close its parentheses, or nest less".to_owned(),
        ),
        false => super::error::from_datafusion(error),
    })?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(invalid("the statement is empty: send one SQL statement".to_owned())),
        (Some(_), more) => Err(invalid(format!("{} statements were sent: send one at a time", more + 1))),
    }
}

/// Lets through what can only read; the plan is checked again later.
pub(super) fn refuse_writes(statement: &Statement) -> Result<(), QueryError> {
    let refused = match statement {
        Statement::Statement(inner) => match inner.as_ref() {
            SqlStatement::Query(_)
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::Explain { .. } => return Ok(()),
            other => first_words(&other.to_string()),
        },
        Statement::Explain(_) => "EXPLAIN of EXPLAIN".to_owned(),
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".to_owned(),
        Statement::CopyTo(_) => "COPY".to_owned(),
        Statement::Reset(_) => "RESET".to_owned(),
    };
    Err(QueryError::ReadOnly { statement: refused })
}

/// `CREATE TABLE` of `CREATE TABLE t (…)`: the leading capital words, at most three.
fn first_words(sql: &str) -> String {
    let words: Vec<&str> = sql
        .split_whitespace()
        .take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        .take(3)
        .collect();
    match words.is_empty() {
        true => "this statement".to_owned(),
        false => words.join(" "),
    }
}

/// Replaces `$1`, `$name` and `?` by literals.
fn bind(statement: &mut Statement, parameters: &Parameters) -> Result<(), QueryError> {
    let sql = match statement {
        Statement::Statement(inner) => inner,
        Statement::Explain(explain) => return bind(&mut explain.statement, parameters),
        _ => return Ok(()),
    };
    let mut marks = Marks::default();
    // It never breaks.
    let _ = Visit::visit(sql, &mut marks);
    marks.0.sort_unstable();
    let mut binder = Binder { parameters, used: vec![false; parameters.len()], marks: marks.0 };
    if let ControlFlow::Break(error) = sql.visit(&mut binder) {
        return Err(error);
    }
    if Visit::visit(sql, &mut DeepTypes).is_break() {
        return Err(invalid(format!(
            "a type that is named to arrow_cast nests more than {TYPE_NESTING_MAX} levels"
        )));
    }
    match binder.used.iter().position(|used| !used) {
        Some(at) => Err(invalid(format!("parameter {} is not used in the statement", parameters.name(at)))),
        None => Ok(()),
    }
}

struct Binder<'a> {
    parameters: &'a Parameters,
    used: Vec<bool>,
    /// Where each `?` stands in the text.
    marks: Vec<Location>,
}

/// Finds types that are named in a text and nest too deeply: Arrow reads them on the stack, one level a frame.
struct DeepTypes;

impl Visitor for DeepTypes {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string();
        match name.to_ascii_lowercase().contains("arrow_")
            && depth(&function.args.to_string()) > TYPE_NESTING_MAX
        {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// How many parentheses are open at once.
fn depth(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' => open += 1,
            b')' => open = open.saturating_sub(1),
            _ => continue,
        }
        most = most.max(open);
    }
    most
}

/// Finds every `?`. They count in the order of the text, which is not always that of the tree:
/// `TRIM(? FROM ?)`, `OFFSET ? LIMIT ?`.
#[derive(Default)]
struct Marks(Vec<Location>);

impl Visitor for Marks {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && matches!(&value.value, Value::Placeholder(name) if name == "?")
        {
            self.0.push(value.span.start);
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Binder<'_> {
    type Break = QueryError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        let Expr::Value(value) = &expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
        match self.find(name, value.span.start).and_then(|at| self.parameters.literal(name, at)) {
            Ok(bound) => {
                *expr = bound;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Binder<'_> {
    fn find(&mut self, placeholder: &str, place: Location) -> Result<usize, QueryError> {
        let found = match placeholder {
            "?" => {
                let mark = self.marks.binary_search(&place).ok();
                mark.and_then(|at| self.parameters.numbered(at + 1))
            }
            name => self.parameters.find(name),
        };
        match found {
            Some(at) => {
                self.used[at] = true;
                Ok(at)
            }
            None => {
                Err(invalid(format!("the statement asks for parameter {placeholder}, which was not sent")))
            }
        }
    }
}

impl Parameters {
    /// Where the parameter is that a statement calls `$1` or `$name`.
    pub(super) fn find(&self, placeholder: &str) -> Option<usize> {
        let name = placeholder.trim_start_matches(['$', ':', '@']);
        match name.parse::<usize>() {
            Ok(number) => self.numbered(number).or_else(|| self.position(name)),
            Err(_) => self.position(name),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Positional(values) => values.len(),
            Self::Named(values) => values.len(),
            Self::Typed(values) => values.len(),
        }
    }

    /// How messages call the parameter at `at`.
    fn name(&self, at: usize) -> String {
        let named = match self {
            Self::Named(values) => values.keys().nth(at).map(String::as_str),
            Self::Typed(values) => values.name(at),
            Self::None | Self::Positional(_) => None,
        };
        named.map_or_else(|| format!("${}", at + 1), |name| format!("`{name}`"))
    }

    /// The literal of the parameter at `at`, which the statement calls `name`.
    pub(super) fn literal(&self, name: &str, at: usize) -> Result<Expr, QueryError> {
        const NULL: &serde_json::Value = &serde_json::Value::Null;
        match self {
            Self::None => literal(name, NULL),
            Self::Positional(values) => literal(name, values.get(at).unwrap_or(NULL)),
            Self::Named(values) => literal(name, values.values().nth(at).unwrap_or(NULL)),
            Self::Typed(values) => values.literal(at).map_or_else(|| literal(name, NULL), Ok),
        }
    }

    /// Where the parameter of this number is, from 1.
    fn numbered(&self, number: usize) -> Option<usize> {
        match self {
            Self::None | Self::Named(_) => None,
            Self::Positional(values) => number.checked_sub(1).filter(|at| *at < values.len()),
            Self::Typed(values) => values.numbered(number),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        match self {
            Self::None | Self::Positional(_) => None,
            Self::Named(values) => values.keys().position(|key| key.trim_start_matches('$') == name),
            Self::Typed(values) => values.position(name),
        }
    }
}

/// A JSON scalar as a SQL literal; numbers keep their digits.
fn literal(name: &str, value: &serde_json::Value) -> Result<Expr, QueryError> {
    use serde_json::Value as Json;
    let literal = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(*value),
        Json::String(text) => Value::SingleQuotedString(text.clone()),
        Json::Number(number) => return Ok(number_literal(&number.to_string())),
        Json::Array(_) | Json::Object(_) => {
            let message = format!(
                "parameter {name} is a list or an object: only null, booleans, numbers and strings can be bound"
            );
            return Err(invalid(message));
        }
    };
    Ok(Expr::value(literal))
}

/// In parentheses where it has a sign: `x - -1` must not become a comment.
fn number_literal(text: &str) -> Expr {
    let number = |digits: &str| Expr::value(Value::Number(digits.to_owned(), false));
    match text.strip_prefix('-') {
        Some(digits) => {
            Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number(digits)) }))
        }
        None => number(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bound(sql: &str, parameters: serde_json::Value) -> String {
        let parameters = match parameters {
            serde_json::Value::Array(values) => Parameters::Positional(values),
            serde_json::Value::Object(values) => Parameters::Named(values),
            _ => Parameters::None,
        };
        parse(sql, &parameters)
            .map_or_else(|error| format!("error: {error}"), |done| done.statement.to_string())
    }

    #[test]
    fn parameters_become_literals() {
        assert_eq!(
            bound("SELECT $1, $2 FROM t WHERE a = $1", json!(["it's", null])),
            "SELECT 'it''s', NULL FROM t WHERE a = 'it''s'"
        );
        assert_eq!(bound("SELECT 1 - $1 LIMIT $2", json!([-5, 10])), "SELECT 1 - (-5) LIMIT 10");
        assert_eq!(
            bound("SELECT $big", json!({"big": 12345678901234567890u64})),
            "SELECT 12345678901234567890"
        );
        assert_eq!(bound("SELECT $a, $b", json!({"$a": true, "b": 1.5})), "SELECT true, 1.5");
        assert_eq!(bound("SELECT ? + ?", json!([1, 2])), "SELECT 1 + 2");
    }

    #[test]
    fn question_marks_count_in_the_order_of_the_text() {
        assert_eq!(
            bound("SELECT TRIM(BOTH ? FROM ?)\nFROM t OFFSET ? LIMIT ?", json!(["x", "xax", 1, 2])),
            "SELECT TRIM(BOTH 'x' FROM 'xax') FROM t LIMIT 2 OFFSET 1"
        );
    }

    #[test]
    fn parameters_that_do_not_fit_are_named() {
        let cases = [
            bound("SELECT $1", json!(null)),
            bound("SELECT $2", json!([1])),
            bound("SELECT $1", json!([1, 2])),
            bound("SELECT $a", json!({"b": 1})),
            bound("SELECT $1", json!([[1]])),
            bound("SELECT ?", json!([])),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    #[test]
    fn types_that_nest_too_deeply_are_refused_wherever_they_come_from() {
        let deep = |levels: usize| format!("{}Int8{}", "List(".repeat(levels), ")".repeat(levels));
        assert!(
            bound(&format!("SELECT arrow_cast(NULL, '{}')", deep(20)), json!(null)).starts_with("SELECT")
        );
        for refused in [
            bound(&format!("SELECT Arrow_Try_Cast(NULL, '{}')", deep(5_000)), json!(null)),
            bound("EXPLAIN SELECT 1 + arrow_cast(NULL, $1)", json!([deep(5_000)])),
        ] {
            assert!(refused.contains("nests more than"), "{refused:.200}");
        }
    }

    #[test]
    fn only_reading_is_let_through() {
        let writes = [
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "CREATE TABLE t (a INT)",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY (SELECT 1) TO '/tmp/x.csv'",
            "COPY t FROM '/etc/passwd'",
            "SET datafusion.execution.batch_size = 1",
            "RESET datafusion.execution.batch_size",
            "DROP TABLE t",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "PREPARE p AS SELECT 1",
            "BEGIN",
            "TRUNCATE t",
            "SELECT 1; SELECT 2",
            "",
            "-- nothing",
            "SELEC 1",
        ];
        let shown: Vec<String> =
            writes.iter().map(|sql| format!("{sql}\n  -> {}", bound(sql, json!(null)))).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    fn replace_literal(statement: &mut Statement, text: &str) {
        struct Replace<'a>(&'a str);
        impl VisitorMut for Replace<'_> {
            type Break = ();
            fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                *expr = Expr::value(Value::SingleQuotedString(self.0.to_owned()));
                ControlFlow::Continue(())
            }
        }
        let Statement::Statement(sql) = statement else { panic!("not a plain statement") };
        assert_eq!(sql.visit(&mut Replace(text)), ControlFlow::Continue(()));
    }

    proptest! {
        /// The printed text is another matter (the printer takes `''` and `\'` for escapes): what does
        /// not read back as it was bound is never forwarded, see `federation::route`.
        #[test]
        fn a_string_parameter_stays_one_literal(text in "[a'\\\\ -]{0,12}") {
            let parameters = Parameters::Positional(vec![json!(text.clone())]);
            let bound = parse("SELECT $1", &parameters).unwrap().statement;
            let mut plain = parse("SELECT 'x'", &Parameters::None).unwrap().statement;
            replace_literal(&mut plain, &text);
            prop_assert_eq!(bound, plain);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = parse(&text, &Parameters::None);
        }
    }
}
