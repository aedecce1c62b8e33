//! How large a statement may be before it is parsed: text enters, a refusal may leave.
//!
//! `a AND b AND …` is a tree as deep as the chain is long, and so is a plan over many SELECTs. Trees are
//! walked, copied and dropped on the stack of a thread; one that is too deep would end the process, not
//! the query. The numbers are proved by `tests/it/differential` against the stack that
//! [`STACK_SIZE`] gives to threads.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// A statement may not be longer than this, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// No identifier may be longer than this, in bytes: unknown ones are compared with every known one.
const IDENTIFIER_LEN_MAX: usize = 8 << 10;
/// So many operators may stand in one chain.
const CHAIN_MAX: usize = 2_500;
/// So many joins may stand in one statement: the time to plan them grows with their number's cube, and more, and a
/// plan in the making cannot be stopped.
const JOINS_MAX: usize = 128;
/// So many SELECTs may stand in one statement.
const SELECTS_MAX: usize = 500;

pub use crate::task::STACK_SIZE;

/// Why a statement is too large, or nothing.
pub(super) fn excess(sql: &str) -> Option<String> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Some(format!(
            "the statement has {} bytes, at most {STATEMENT_BYTES_MAX} are read",
            sql.len()
        ));
    }
    // What is no SQL is the parser's to tell.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let is_long = |token: &Token| matches!(token, Token::Word(word) if word.value.len() > IDENTIFIER_LEN_MAX);
    if tokens.iter().any(is_long) {
        return Some(format!("an identifier of the statement has more than {IDENTIFIER_LEN_MAX} bytes"));
    }
    let mut size = Size::default();
    tokens.iter().for_each(|token| size.add(token));
    if size.deepest > CHAIN_MAX {
        return Some(format!(
            "the statement chains more than {CHAIN_MAX} operators or joins: write `IN (…)` for many values"
        ));
    }
    if size.joins > JOINS_MAX {
        return Some(format!("the statement has more than {JOINS_MAX} joins"));
    }
    (size.selects > SELECTS_MAX).then(|| format!("the statement has more than {SELECTS_MAX} SELECTs"))
}

/// Measures of the tokens so far.
#[derive(Default)]
struct Size {
    selects: usize,
    joins: usize,
    deepest: usize,
    level: Level,
    /// The levels around the open parentheses.
    outer: Vec<Level>,
}

/// What stands within one pair of parentheses.
#[derive(Default)]
struct Level {
    /// Tokens that make the tree deeper for as long as the chain goes on: AND, OR, UNION, JOIN.
    joined: usize,
    /// Other operators since the last of those, and the most that there were.
    run: usize,
    run_max: usize,
    /// In a FROM clause a comma is a join.
    in_from: bool,
}

impl Size {
    fn add(&mut self, token: &Token) {
        match token {
            Token::LParen => self.outer.push(std::mem::take(&mut self.level)),
            Token::RParen => self.level = self.outer.pop().unwrap_or_default(),
            Token::Comma if self.level.in_from => {
                self.joins += 1;
                self.level.join();
            }
            Token::Comma => self.level = Level::default(),
            Token::Word(word) => self.word(word.keyword),
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => self.level.operate(),
        }
        self.deepest = self.deepest.max(self.level.depth());
    }

    fn word(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::SELECT => {
                self.selects += 1;
                self.level.in_from = false;
            }
            Keyword::FROM => self.level.in_from = true,
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                self.level.in_from = false;
            }
            Keyword::JOIN => {
                self.joins += 1;
                self.level.join();
            }
            Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT => self.level.join(),
            Keyword::IS
            | Keyword::NOT
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV => self.level.operate(),
            _ => {}
        }
    }
}

impl Level {
    fn join(&mut self) {
        self.joined += 1;
        self.run = 0;
    }

    fn operate(&mut self) {
        self.run += 1;
        self.run_max = self.run_max.max(self.run);
    }

    fn depth(&self) -> usize {
        self.joined + self.run_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(start: &str, link: &str, times: usize) -> bool {
        excess(&format!("{start}{}", link.repeat(times))).is_some()
    }

    #[test]
    fn identifiers_are_bounded_and_texts_are_not() {
        assert!(is_refused("SELECT ", "a", 10_000));
        assert!(!is_refused("SELECT ", "a", 8_000));
        assert!(excess(&format!("SELECT \"{}\"", "ä".repeat(5_000))).is_some());
        assert_eq!(excess(&format!("SELECT '{}'", "a".repeat(1_000_000))), None);
    }

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        for (start, link) in [
            ("SELECT 1 FROM t WHERE a = 1", " AND a = 1"),
            ("SELECT 1 FROM t WHERE a = 1", " OR a + 1 IN (1, 2)"),
            ("SELECT 1", " + f(1, 2)"),
            ("SELECT 'a'", "||'b'"),
            ("SELECT 1", "::int"),
            ("SELECT 1", " = 1"),
            ("SELECT 1", " IS NULL"),
        ] {
            assert!(!is_refused(start, link, 1_000), "{link}");
            assert!(is_refused(start, link, 3_000), "{link}");
        }
        for link in [", t", " JOIN u USING (id, b)", " JOIN (SELECT a, b FROM u) ON true"] {
            assert!(!is_refused("SELECT * FROM t", link, 128), "{link}");
            assert!(is_refused("SELECT * FROM t", link, 129), "{link}");
        }
        assert!(!is_refused("SELECT 1", " UNION ALL SELECT 1", 400));
        assert!(is_refused("SELECT 1", " UNION ALL SELECT 1", 600));
        assert!(!is_refused("SELECT a IN (1", ", -1 + 1", 50_000));
        assert!(!is_refused("VALUES (1)", ", (-1)", 50_000));
    }
}
