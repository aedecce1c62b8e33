//! The offending line of a spicepod with a caret below, safe to print: secrets masked, control
//! characters replaced, long lines cut around the place.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use super::diagnostic::{Safe, SourceFile, Span};
use super::fields::SPICEPOD;
use super::params::connector_params;
use super::schema::{Field, Kind};
use super::text::steers;
use super::types::Connector;

/// Characters of a line that are shown.
const WIDTH_MAX: usize = 110;

/// Characters shown before the place in a line that is cut.
const LEAD: usize = 40;

/// What stands for a secret.
const MASK: &str = "****";

/// Names whose values are secrets, `-` read as `_`; a name that ends so counts as well. The value of a
/// key that no table knows is masked too: it may be a secret under a misspelt name.
const SECRET_NAMES: &[&str] = &[
    "api_key",
    "token",
    "password",
    "passwd",
    "secret",
    "keys",
    "client_key",
    "client_certificate",
    "secret_id",
    "access_key",
];

/// A place in a source file, shown.
pub(super) struct Excerpt<'a> {
    pub(super) source: &'a SourceFile,
    pub(super) at: Span,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, len } = self.at;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let path = self.source.path.display().to_string();
        writeln!(f, "{margin}--> {}:{line}:{column}", Safe(&path))?;
        let Some(text) = self.source.text.lines().nth(line.saturating_sub(1)) else {
            return Ok(());
        };
        let masked = match is_inside_secret(&self.source.text, line) {
            true => MASK.to_owned(),
            false => mask(text),
        };
        // Where the line ends in a mask, the place may lie behind it.
        let shown = masked.chars().count();
        let (text, column) = cut(&masked, column.clamp(1, shown.max(1)));
        let carets = len.clamp(1, text.chars().count().saturating_sub(column - 1).max(1));
        writeln!(f, "{margin} |\n{number} | {text}")?;
        writeln!(f, "{margin} | {}{}", " ".repeat(column - 1), "^".repeat(carets))
    }
}

/// At most [`WIDTH_MAX`] printable characters of the line around `column`, and the column in them.
fn cut(line: &str, column: usize) -> (String, usize) {
    let clean = |c: char| match c {
        '\t' => ' ',
        c if steers(c) => '\u{fffd}',
        c => c,
    };
    let total = line.chars().count();
    if total <= WIDTH_MAX {
        return (line.chars().map(clean).collect(), column);
    }
    let start = (column - 1).saturating_sub(LEAD).min(total - WIDTH_MAX);
    let mut text: String = line.chars().skip(start).take(WIDTH_MAX).map(clean).collect();
    if start + WIDTH_MAX < total {
        text.push('…');
    }
    match start {
        0 => (text, column),
        _ => (format!("…{text}"), column - start + 1),
    }
}

/// The line with the values of secret names and the credentials of URLs replaced.
fn mask(line: &str) -> String {
    let line = mask_credentials(line);
    match secret_value(&line) {
        Some(start) => format!("{}{MASK}", &line[..start]),
        None => line,
    }
}

/// `https://user:password@host` without the part before `@`.
fn mask_credentials(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',')).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => {
                shown.push_str(MASK);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    shown + rest
}

/// Where the values begin of the keys that are a secret's, or that nobody knows.
fn secret_values(line: &str) -> impl Iterator<Item = usize> {
    let first = line.len() - line.trim_start_matches([' ', '\t', '-', '"', '\'', '{']).len();
    words(line).filter_map(move |(at, word)| {
        let after = line[at + word.len()..].trim_start_matches(['"', '\'']);
        let is_key = match after.strip_prefix([':', '=']) {
            Some(next) => is_secret_name(word) || next.chars().next().is_none_or(char::is_whitespace),
            // A forgotten colon: `spiceai_api_key hunter2`.
            None => at == first && is_secret_name(word) && after.starts_with(char::is_whitespace),
        };
        let value = after.trim_start_matches([':', '=', ' ', '\t']);
        (is_key && !is_plain_name(word) && !value.is_empty()).then_some(line.len() - value.len())
    })
}

/// Words that could be keys, with their places.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + line[from..].find(part)?;
        let len = line[start..].find(|c: char| !part(c)).unwrap_or(line.len() - start);
        from = start + len;
        Some((start, &line[start..from]))
    })
}

fn is_secret_name(word: &str) -> bool {
    let word = word.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|name| word.ends_with(name)) || matches!(word.as_str(), "key" | "certificate")
}

/// Whether a key is known not to hold a secret.
fn is_plain_name(word: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mut names = HashSet::new();
        names_of(SPICEPOD, &mut names);
        for connector in [Connector::SpiceAi, Connector::FlightSql] {
            for spec in connector_params(connector).iter().filter(|spec| !spec.secret) {
                names.extend([spec.name.to_owned(), spec.written(connector)]);
            }
        }
        names
    });
    !is_secret_name(word) && NAMES.contains(word)
}

fn names_of(fields: &[Field], names: &mut HashSet<String>) {
    for field in fields {
        names.insert(field.name.to_owned());
        names_of_kind(&field.kind, names);
    }
}

fn names_of_kind(kind: &Kind, names: &mut HashSet<String>) {
    match kind {
        Kind::Fields(fields) | Kind::OpenFields(fields, _) => names_of(fields, names),
        Kind::FieldsOrList(fields, item) => {
            names_of(fields, names);
            names_of(item, names);
        }
        Kind::List(item) | Kind::MapOf(item) => names_of_kind(item, names),
        _ => {}
    }
}

/// Where the first value begins that must not be shown.
fn secret_value(line: &str) -> Option<usize> {
    secret_values(line).find(|start| !is_harmless(line, *start))
}

/// Whether a value is only references, a comment, or the beginning of a block or mapping.
fn is_harmless(line: &str, start: usize) -> bool {
    let in_flow = line[..start].contains(['{', '[']);
    let value = line[start..].trim();
    let mut rest = value.trim_start_matches(['"', '\'']);
    while let Some((_, after)) = rest.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        rest = after;
    }
    let rest = rest.trim_start_matches(['"', '\'']).trim_start();
    let ends = match rest.chars().next() {
        None | Some('#') => true,
        Some(',' | '}' | ']') => in_flow,
        Some('|' | '>') => rest.len() <= 3,
        Some(_) => false,
    };
    // The keys of a mapping on the same line are judged by themselves.
    ends || value.starts_with('{') || value.starts_with("[]")
}

/// Whether a line continues the value of a secret name on an earlier line.
fn is_inside_secret(text: &str, line: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut inside: Option<(usize, bool)> = None;
    for (number, content) in text.lines().enumerate() {
        if content.trim().is_empty() {
            continue;
        }
        if let Some((depth, block)) = inside {
            let item = content.trim_start().starts_with('-');
            let deeper = indent(content) > depth || item && indent(content) == depth;
            // An element of a list may hold a colon: `- key:rw`.
            let mapping = !block && !item && content.contains(':');
            if deeper && !mapping {
                if number + 1 == line {
                    return true;
                }
                continue;
            }
            inside = None;
        }
        if number + 1 >= line {
            return false;
        }
        let end = content.trim_end();
        let block =
            end.ends_with(['|', '>']) || end.ends_with("|-") || end.ends_with(">-") || end.ends_with("|+");
        let opens = end.trim_end_matches(['|', '>', '-', '+', ' ']);
        if opens.ends_with(':') && secret_value(&format!("{opens} x")).is_some() {
            inside = Some((indent(content), block));
        } else if secret_value(content).is_some() {
            // A value in quotes, or a plain one, may run on over deeper lines.
            inside = Some((indent(content), false));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (line, shown) in [
            ("  spiceai_api_key: hunter2", "  spiceai_api_key: ****"),
            ("  - \"api-key\": \"hunter2\"", "  - \"api-key\": ****"),
            ("params: { spiceai_token: hunter2, x: y }", "params: { spiceai_token: ****"),
            ("  spiceai_api_key hunter2", "  spiceai_api_key ****"),
            ("  flightsql_password: a${env:B}c", "  flightsql_password: ****"),
            ("  keys: [hunter2]", "  keys: ****"),
            ("from: spice.ai:https://u:hunter2@host:1", "from: spice.ai:https://****@host:1"),
            ("  spiceai_api_key: ${secrets:K}", "  spiceai_api_key: ${secrets:K}"),
            ("  spiceai_api_key:", "  spiceai_api_key:"),
            ("  spiceai_tls_client_key_file: /k.pem", "  spiceai_tls_client_key_file: /k.pem"),
            ("sql: SELECT token FROM t", "sql: SELECT token FROM t"),
            ("primary_key: id", "primary_key: id"),
            ("  spiceai_tokne: hunter2", "  spiceai_tokne: ****"),
            ("  {name: a, pwd: hunter2}", "  {name: a, pwd: ****"),
            ("  hashicorp_vault_secret_id: hunter2", "  hashicorp_vault_secret_id: ****"),
            ("  aws_secret_access_key: hunter2", "  aws_secret_access_key: ****"),
            ("  hashicorp_vault_token_file: /t", "  hashicorp_vault_token_file: /t"),
            ("  - from: spice.ai:https://h:1", "  - from: spice.ai:https://h:1"),
            ("p: {spiceai_api_key: '${a:b}', x: hunter2}", "p: {spiceai_api_key: '${a:b}', x: ****"),
            ("  spiceai_api_key: ${a:b}, hunter2", "  spiceai_api_key: ****"),
            ("  spiceai_api_key: ${a:b}hunter2", "  spiceai_api_key: ****"),
        ] {
            assert_eq!(mask(line), shown);
        }
    }

    #[test]
    fn lines_of_a_secret_are_masked() {
        let text = "a:\n  tls_client_key: |\n    hunter2: x\n    b\n  c: d\n  api_key:\n    hunter2\n  keys:\n  - k\n  e: f\n  keys:\n    - k:rw\n    - j: x";
        let masked: Vec<bool> = (1..=13).map(|line| is_inside_secret(text, line)).collect();
        let expected = [false, false, true, true, false, false, true, false, true, false, false, true, true];
        assert_eq!(masked, expected);
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let (text, column) = cut(&line, 5001);
        assert_eq!(text.chars().nth(column - 1), Some('X'));
        assert!(text.chars().count() <= WIDTH_MAX + 2);
    }

    proptest! {
        #[test]
        fn no_place_panics(text in "(\\PC|\n|\t|: |api_key:){0,40}", line in 0usize..5, column in 0usize..50, len in 0usize..50) {
            let source = SourceFile { path: "x.yaml".into(), text };
            let _ = Excerpt { source: &source, at: Span { line, column: column.max(1), len } }.to_string();
        }
    }
}
