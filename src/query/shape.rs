//! Statements that differ in nothing but their literals: a text enters, its shape and its literals leave.
//!
//! A number or a quoted text can be replaced by another one of its kind without changing how the rest is read. What could
//! be read in more than one way (`E'…'`, `1e5`, `0x1F`, `$1`) has no shape, and is planned like everything else.

use datafusion::common::ScalarValue;

use super::lexis::{comment, is_letter, is_word, quoted, run};

/// Longer texts have no shape, in bytes: planning them is not what takes the time.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Texts with more literals have none.
const LITERALS_MAX: usize = 256;
/// Integers with more digits may be of another type.
const DIGITS_MAX: usize = 18;

/// A text between its literals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// One more than there are literals.
    pieces: Vec<String>,
    kinds: Vec<Kind>,
}

/// What a literal may be replaced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Integer,
    Decimal,
    Text,
}

/// A text taken apart.
#[derive(Debug, Clone)]
pub(super) struct Shaped<'a> {
    pub shape: Shape,
    /// As they stand in the text, with their quotes.
    pub literals: Vec<&'a str>,
}

/// A text with places for literals.
#[derive(Debug)]
pub(super) struct Template {
    /// What stands before each literal, and which one follows; the last one has none.
    pieces: Vec<(String, Option<usize>)>,
}

impl<'a> Shaped<'a> {
    /// None where the text has no shape.
    pub fn of(text: &'a str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut reader = Reader { text, at: 0, begun: 0, found: Vec::new(), pieces: Vec::new() };
        reader.read()?;
        let Reader { found, pieces, .. } = reader;
        let (kinds, literals) = found.into_iter().unzip();
        Some(Self { shape: Shape { pieces, kinds }, literals })
    }
}

impl Shape {
    /// The text with literals of its own in place of those that it had, each of which stands nowhere else, and those
    /// literals.
    pub fn marked(&self) -> (String, Vec<String>) {
        let mark = |(at, kind): (usize, &Kind)| {
            let number = 7_316_204_915_830_000 + at as u64;
            match kind {
                Kind::Integer => number.to_string(),
                Kind::Decimal => format!("{number}.25"),
                Kind::Text => format!("'sidewing-{number}'"),
            }
        };
        let marks: Vec<String> = self.kinds.iter().enumerate().map(mark).collect();
        (self.with(marks.iter().map(String::as_str)), marks)
    }

    /// The text with these literals.
    pub fn with<'l>(&self, literals: impl Iterator<Item = &'l str>) -> String {
        let mut text = String::new();
        for (piece, literal) in self.pieces.iter().zip(literals.chain([""])) {
            text.push_str(piece);
            text.push_str(literal);
        }
        text
    }

    /// What the literal at a place is in a plan; none where it cannot be told.
    pub fn value(&self, at: usize, literal: &str) -> Option<ScalarValue> {
        Some(match self.kinds.get(at)? {
            Kind::Integer => ScalarValue::Int64(Some(literal.parse().ok()?)),
            Kind::Decimal => ScalarValue::Float64(Some(literal.parse().ok()?)),
            Kind::Text => {
                let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
                ScalarValue::Utf8(Some(inner.replace("''", "'")))
            }
        })
    }

    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len() + size_of::<String>() + 1).sum()
    }
}

impl Template {
    /// The text, with a place wherever one of the marks stands. None where one of them stands in none or several.
    pub fn of(text: &str, marks: &[String]) -> Option<Self> {
        let mut places = Vec::with_capacity(marks.len());
        for (which, mark) in marks.iter().enumerate() {
            let mut found = text.match_indices(mark.as_str());
            let (Some((at, _)), None) = (found.next(), found.next()) else { return None };
            places.push((at, which));
        }
        places.sort_unstable();
        let (mut pieces, mut end) = (Vec::with_capacity(places.len() + 1), 0);
        for (at, which) in places {
            pieces.push((text.get(end..at)?.to_owned(), Some(which)));
            end = at + marks[which].len();
        }
        pieces.push((text.get(end..)?.to_owned(), None));
        Some(Self { pieces })
    }

    /// The text with these literals.
    pub fn filled(&self, literals: &[&str]) -> String {
        let mut text =
            String::with_capacity(self.bytes() + literals.iter().map(|one| one.len()).sum::<usize>());
        for (piece, which) in &self.pieces {
            text.push_str(piece);
            text.push_str(which.and_then(|which| literals.get(which)).unwrap_or(&""));
        }
        text
    }

    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|(piece, _)| piece.len() + size_of::<(String, Option<usize>)>()).sum()
    }
}

/// Reads a text once. `None` of any method means that it has no shape.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where the current piece began.
    begun: usize,
    found: Vec<(Kind, &'a str)>,
    pieces: Vec<String>,
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> Option<()> {
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\'' => self.quoted()?,
                b'"' | b'`' => self.at += quoted(self.rest())?,
                b'-' if self.byte(1) == Some(b'-') => self.at += comment(self.rest()),
                b'/' if self.byte(1) == Some(b'*') => return None,
                b'$' | b'?' | b'\\' | b'@' | b'{' => return None,
                b'.' if self.byte(1).is_some_and(|next| next.is_ascii_digit()) => return None,
                b'0'..=b'9' => self.number()?,
                _ if is_letter(byte) => self.word()?,
                _ => self.at += 1,
            }
        }
        self.pieces.push(self.text[self.begun..].to_owned());
        Some(())
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn quoted(&mut self) -> Option<()> {
        let begin = self.at;
        self.at += quoted(self.rest())?;
        // `'a' 'b'` is one text in some dialects, and `\` is one in others.
        let literal = &self.text[begin..self.at];
        let is_plain = !literal.contains('\\') && self.next_but_space() != Some(b'\'');
        is_plain.then(|| self.literal(Kind::Text, begin))?
    }

    fn next_but_space(&self) -> Option<u8> {
        self.rest().iter().copied().find(|byte| !byte.is_ascii_whitespace())
    }

    fn number(&mut self) -> Option<()> {
        let begin = self.at;
        let whole = self.digits();
        let (kind, digits) = match (self.byte(0), self.byte(1)) {
            (Some(b'.'), Some(b'0'..=b'9')) => {
                self.at += 1;
                (Kind::Decimal, whole + self.digits())
            }
            _ => (Kind::Integer, whole),
        };
        let ends = !self.byte(0).is_some_and(|next| is_letter(next) || next == b'.' || next == b'\'');
        (ends && digits <= DIGITS_MAX).then(|| self.literal(kind, begin))?
    }

    fn digits(&mut self) -> usize {
        let digits = run(self.rest(), |byte| byte.is_ascii_digit());
        self.at += digits;
        digits
    }

    /// Past a word; one that is tied to quotes says how they are to be read.
    fn word(&mut self) -> Option<()> {
        self.at += run(self.rest(), |byte| is_word(byte) || byte == b'$');
        match self.byte(0) {
            Some(b'\'' | b'&') => None,
            _ => Some(()),
        }
    }

    fn literal(&mut self, kind: Kind, begin: usize) -> Option<()> {
        self.pieces.push(self.text[self.begun..begin].to_owned());
        self.found.push((kind, &self.text[begin..self.at]));
        self.begun = self.at;
        (self.found.len() <= LITERALS_MAX).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
    use proptest::prelude::*;

    use super::*;

    fn literals(text: &str) -> Option<Vec<&str>> {
        Shaped::of(text).map(|shaped| shaped.literals)
    }

    #[test]
    fn literals_are_found_and_nothing_else() {
        let text = "SELECT t1.a, \"it''s 5\", 'x''y' FROM t1 -- 7\nWHERE a>=10 AND b < -2.50 LIMIT 3";
        assert_eq!(literals(text).unwrap(), ["'x''y'", "10", "2.50", "3"]);
        for none in [
            "SELECT E'a'",
            "SELECT 1e5",
            "SELECT 0x1F",
            "SELECT $1",
            "SELECT ?",
            "SELECT /* 5 */ 1",
            "SELECT .5",
            "SELECT 5.",
            "SELECT 'open",
            "SELECT 'a' 'b'",
            "SELECT 'a\\'",
            "SELECT 1234567890123456789",
            "SELECT x'1F'",
            "SELECT 1_000",
            "SELECT U&'a'",
        ] {
            assert!(literals(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_template_is_filled_in_the_order_of_its_text() {
        let shaped = Shaped::of("SELECT 'a' FROM t LIMIT 1 OFFSET 2").unwrap();
        let (marked, marks) = shaped.shape.marked();
        let swapped = format!("SELECT {} FROM core.t OFFSET {} LIMIT {} AND 9", marks[0], marks[2], marks[1]);
        assert!(marked.contains(&marks[1]));
        let template = Template::of(&swapped, &marks).unwrap();
        assert_eq!(template.filled(&["'b'", "5", "6"]), "SELECT 'b' FROM core.t OFFSET 6 LIMIT 5 AND 9");
        assert!(Template::of("SELECT 1", &marks).is_none());
        assert!(Template::of(&[swapped.as_str(), &marks[0]].concat(), &marks).is_none());
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,4}[0-9]{0,2}",
            "[0-9]{1,5}",
            "[0-9]{1,3}\\.[0-9]{1,3}",
            "'[a-z0-9 é]{0,5}'",
            "'[a-z]{0,2}''[0-9]{0,2}'",
            "\"[a-z0-9 ]{1,4}\"",
            "[ ,()=<>+*-]{1,2}",
            "-- [a-z0-9']{0,4}\n",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
            Some(_) => 1_000_000,
            None => 2_000,
        }))]

        /// The literals are those that the parser's own tokenizer finds, and any of their kind may stand in their place.
        #[test]
        fn the_tokenizer_agrees(words in prop::collection::vec(word(), 0..14), spaced: bool) {
            let text = words.join(if spaced { " " } else { "" });
            let Some(shaped) = Shaped::of(&text) else { return Ok(()) };
            let tokens = |text: &str| Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize();
            let Ok(read) = tokens(&text) else { return Ok(()) };
            let of = |tokens: &[Token]| -> Vec<String> {
                let is_literal = |token: &&Token| matches!(token, Token::Number(..) | Token::SingleQuotedString(_));
                tokens.iter().filter(is_literal).map(ToString::to_string).collect()
            };
            prop_assert_eq!(of(&read), shaped.literals.clone(), "{}", &text);
            let (marked, marks) = shaped.shape.marked();
            prop_assert_eq!(of(&tokens(&marked).unwrap()), marks, "{}", &marked);
            prop_assert_eq!(&Shaped::of(&marked).unwrap().shape, &shaped.shape);
            let template = Template::of(&marked, &shaped.shape.marked().1).unwrap();
            prop_assert_eq!(template.filled(&shaped.literals), text);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Shaped::of(&text);
        }
    }
}
