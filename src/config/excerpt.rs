//! The offending line of a spicepod with a caret below, safe to print: secrets masked, control
//! characters replaced, long lines cut around the place.

use std::fmt;

use super::diagnostic::{Safe, SourceFile, Span};
use super::text::steers;

/// Characters of a line that are shown.
const WIDTH_MAX: usize = 110;

/// Characters shown before the place in a line that is cut.
const LEAD: usize = 40;

/// What stands for a secret.
const MASK: &str = "****";

/// Names whose values are secrets, `-` read as `_`; a name that ends so counts as well.
const SECRET_NAMES: &[&str] =
    &["api_key", "token", "password", "passwd", "secret", "keys", "client_key", "client_certificate"];

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
        Some(start) if !is_harmless(&line[start..]) => format!("{}{MASK}", &line[..start]),
        _ => line,
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

/// Where the value begins that follows the first secret name of the line.
fn secret_value(line: &str) -> Option<usize> {
    let folded = line.to_ascii_lowercase().replace('-', "_");
    let mut starts = SECRET_NAMES.iter().flat_map(|name| {
        folded.match_indices(name).map(|(at, found)| (at, at + found.len())).filter_map(|(at, end)| {
            // A dataset `tokens` or a param `.._key_file` is no secret: the name must end here.
            let after = folded[end..].trim_start_matches(['"', '\'']);
            let separator = after.chars().next()?;
            let first = folded[..at].chars().all(|c| c.is_alphanumeric() || " _-\"'{".contains(c));
            let names = match separator {
                ':' | '=' => true,
                c => c.is_whitespace() && first,
            };
            let skipped = after.find(|c: char| !c.is_whitespace() && c != ':' && c != '=')?;
            names.then_some(folded.len() - after.len() + skipped)
        })
    });
    let first = starts.next()?;
    Some(starts.fold(first, usize::min))
}

/// Whether a value is only references, a comment, or the beginning of a block.
fn is_harmless(value: &str) -> bool {
    let value = value.trim().trim_matches(['"', '\'', '}', ']', '[', ',', ' ']);
    let mut rest = value;
    while let Some(after) = rest.strip_prefix("${") {
        match after.find('}') {
            Some(end) => rest = after[end + 1..].trim_start(),
            None => return after.trim().is_empty(),
        }
    }
    rest.is_empty()
        || rest.starts_with('#')
        || matches!(rest.chars().next(), Some('|' | '>')) && rest.len() <= 3
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
            let item = indent(content) == depth && content.trim_start().starts_with('-');
            let mapping = !block && content.contains(':');
            if (indent(content) > depth || item) && !mapping {
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
        } else if secret_value(content).is_some_and(|start| !is_harmless(&content[start..])) {
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
        ] {
            assert_eq!(mask(line), shown);
        }
    }

    #[test]
    fn lines_of_a_secret_are_masked() {
        let text = "a:\n  tls_client_key: |\n    hunter2: x\n    b\n  c: d\n  api_key:\n    hunter2\n  keys:\n  - k\n  e: f";
        let masked: Vec<bool> = (1..=10).map(|line| is_inside_secret(text, line)).collect();
        let expected = [false, false, true, true, false, false, true, false, true, false];
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
