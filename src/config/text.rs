//! Text from outside made fit for a message: short, without control characters; nearest known names.

/// The most characters of someone else's text that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Longer names are no misspelling of a known one.
const SUGGEST_BYTES_MAX: usize = 64;

/// `text` with control characters escaped, cut to a length that fits a message.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(SHOWN_CHARS_MAX).flat_map(printable).collect();
    if text.trim().chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The character itself, or its escape where it would steer a terminal.
pub(super) fn printable(c: char) -> impl Iterator<Item = char> {
    let escape = steers(c).then(|| c.escape_default());
    escape.is_none().then_some(c).into_iter().chain(escape.into_iter().flatten())
}

/// Control characters, and those that turn the direction of text or have no width.
pub(super) fn steers(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || invisible
}

/// The candidate that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
    let wanted = plain(name);
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`, for lists of what would have been right.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name() {
        let names = ["acceleration", "access", "name", "bind_address"];
        assert_eq!(nearest("accelaration", names), Some("acceleration"));
        assert_eq!(nearest("bindAddress", names), Some("bind_address"));
        assert_eq!(nearest("nmae", names), Some("name"));
        assert_eq!(nearest("zzz", names), None);
        assert_eq!(nearest(&"a".repeat(100_000), names), None);
    }

    #[test]
    fn text_cannot_steer_a_terminal() {
        assert_eq!(shorten("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(shorten(&"x".repeat(1000)).chars().count(), SHOWN_CHARS_MAX + 1);
    }

    #[test]
    fn lists() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
