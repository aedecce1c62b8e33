//! Statements with their parameters written into the text: what is known of a text then holds for prepared statements too.
//!
//! Where the parameters stand is found by reading the text once, and believed only after the parser has found the same:
//! the text that was written must parse to the very statement that has the parameters bound.

use std::borrow::Cow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value};

use super::lexis::{comment, is_word, quoted, run};
use super::statement::parse_one;
use super::{Parameters, Request};

/// Texts are remembered up to this many bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Texts in which the parser has found the parameters where [`written`] does. Cheap to clone.
#[derive(Clone)]
pub(super) struct Texts(moka::sync::Cache<String, bool>);

impl Texts {
    pub fn new() -> Self {
        let weigh = |text: &String, _: &bool| u32::try_from(text.len() + 64).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build())
    }

    /// The text of a statement that has no parameters (any more). None where that is not known to be the same statement.
    pub fn of<'r>(&self, request: &'r Request) -> Option<Cow<'r, str>> {
        match request.parameters {
            Parameters::None => Some(Cow::Borrowed(&request.sql)),
            _ if self.0.get(&request.sql)? => written(&request.sql, &request.parameters).map(Cow::Owned),
            _ => None,
        }
    }

    /// Learns whether the parameters of `request`, which are bound in `statement`, can be written into its text.
    pub fn learn(&self, request: &Request, statement: &Statement) {
        if matches!(request.parameters, Parameters::None) || self.0.contains_key(&request.sql) {
            return;
        }
        let text = written(&request.sql, &request.parameters);
        let is_same = text.and_then(|text| parse_one(&text).ok()).is_some_and(|read| read == *statement);
        self.0.insert(request.sql.clone(), is_same);
    }
}

/// The text with literals in place of its parameters. None where it could be read in more than one way, where a parameter
/// is missing, or where one is not used.
fn written(sql: &str, parameters: &Parameters) -> Option<String> {
    if sql.contains(['\\', '`']) || sql.contains("/*") {
        return None;
    }
    let (bytes, mut text) = (sql.as_bytes(), String::with_capacity(2 * sql.len()));
    let mut used = vec![false; parameters.len()];
    let (mut at, mut begun, mut marks) = (0, 0, 0);
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'\'' | b'"' => at + quoted(&bytes[at..])?,
            b'-' if bytes.get(at + 1) == Some(&b'-') => at + comment(&bytes[at..]),
            b'?' => at + 1,
            b'$' => at + 1 + run(&bytes[at + 1..], is_word),
            _ if is_word(*byte) => at + run(&bytes[at..], |byte| is_word(byte) || byte == b'$'),
            _ => at + 1,
        };
        if matches!(byte, b'?' | b'$') {
            let placeholder = &sql[at..end];
            marks += usize::from(*byte == b'?');
            let name = if *byte == b'?' { format!("${marks}") } else { placeholder.to_owned() };
            // `$tag$` begins a text.
            if bytes.get(end) == Some(&b'$') {
                return None;
            }
            let found = parameters.find(&name)?;
            used[found] = true;
            text.push_str(&sql[begun..at]);
            text.push_str(&shown(&parameters.literal(placeholder, found).ok()?)?);
            begun = end;
        }
        at = end;
    }
    text.push_str(&sql[begun..]);
    used.into_iter().all(|used| used).then_some(text)
}

/// A literal as text. The printer takes two quotes in a row for one that is doubled already: texts are quoted here, and what
/// has such ones inside is not written.
fn shown(literal: &Expr) -> Option<String> {
    if let Expr::Value(value) = literal
        && let Value::SingleQuotedString(text) = &value.value
    {
        return Some(format!("'{}'", text.replace('\'', "''")));
    }
    let shown = literal.to_string();
    (!shown.contains("''")).then_some(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::statement::parse;
    use super::*;

    fn positional(values: &[serde_json::Value]) -> Parameters {
        Parameters::Positional(values.to_vec())
    }

    #[test]
    fn parameters_are_written_where_they_stand() {
        let values = positional(&[json!(5), json!("it's"), json!(-2.5)]);
        for (sql, wanted) in [
            ("SELECT ?, ? FROM t WHERE a < ?", "SELECT 5, 'it''s' FROM t WHERE a < (-2.5)"),
            ("SELECT $3, $1 FROM t -- $9\nWHERE b = $2", "SELECT (-2.5), 5 FROM t -- $9\nWHERE b = 'it''s'"),
            ("SELECT '?', \"$1\", a$1, $1, ?, ?, ?", "SELECT '?', \"$1\", a$1, 5, 5, 'it''s', (-2.5)"),
        ] {
            assert_eq!(written(sql, &values).as_deref(), Some(wanted), "{sql}");
        }
        for sql in
            ["SELECT $1, $2", "SELECT ?, ?, ?, ?", "SELECT $1, $2, $3, $tag$x$tag$", "SELECT ?, ?, ? /* ? */"]
        {
            assert_eq!(written(sql, &values), None, "{sql}");
        }
        let named = json!({"low": 1, "day": "2022-01-01"}).as_object().unwrap().clone();
        let text =
            written("SELECT * FROM t WHERE a > $low AND d = $day AND b > $low", &Parameters::Named(named));
        assert_eq!(text.as_deref(), Some("SELECT * FROM t WHERE a > 1 AND d = '2022-01-01' AND b > 1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
            Some(_) => 500_000,
            None => 1_500,
        }))]

        /// What is learned of a text is the parser's own word, and holds for other values of its parameters.
        #[test]
        fn what_is_written_is_what_is_bound(
            words in prop::collection::vec(prop_oneof![
                "[a-z]{1,3}", "\\?", "\\$[1-3]", "'[a-z?$1]{0,3}'", "\"[a-z?$1]{1,3}\"", "[,=<+*-]", "-- [?$a-z1]{0,3}\n", "[0-9]{1,2}", "\\$[a-z]",
            ], 0..9),
            one in prop::collection::vec(-9..99_i64, 0..4),
            other in prop::collection::vec("[a-z'?$]{0,3}", 0..4),
        ) {
            let sql = format!("SELECT {}", words.join(" "));
            let one = positional(&one.into_iter().map(|value| json!(value)).collect::<Vec<_>>());
            let other = positional(&other.into_iter().map(|value| json!(value)).collect::<Vec<_>>());
            let texts = Texts::new();
            let request = |parameters: &Parameters| Request { parameters: parameters.clone(), ..Request::new(sql.as_str()) };
            if let Ok(parsed) = parse(&sql, &one) {
                texts.learn(&request(&one), &parsed.statement);
            }
            if let Some(text) = texts.of(&request(&other)) {
                let bound = parse(&sql, &other);
                prop_assert_eq!(&parse_one(&text).unwrap(), &bound.unwrap().statement, "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = written(&text, &positional(&[json!(1)]));
        }
    }
}
