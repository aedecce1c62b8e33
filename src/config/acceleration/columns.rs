//! Columns of a key as spicepods write them: `id`, `(a, b)`, `"odd, name"`.

use super::super::text::shorten;

/// The column names in the order in which they stand; at least one, none twice.
///
/// # Errors
/// What is wrong, for the end of a message.
pub(super) fn columns(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    let inside = match text.strip_prefix('(') {
        Some(rest) => match rest.strip_suffix(')') {
            Some(inside) => inside,
            None => return Err(format!("`{}` has no closing parenthesis", shorten(text))),
        },
        None => text,
    };
    let mut names: Vec<String> = Vec::new();
    let mut rest = inside;
    loop {
        let (name, after) = name(rest).map_err(|what| format!("`{}` {what}", shorten(text)))?;
        if names.contains(&name) {
            return Err(format!("`{}` names the column `{}` twice", shorten(text), shorten(&name)));
        }
        names.push(name);
        match after {
            Some(after) => rest = after,
            None => break,
        }
    }
    match names.len() {
        2.. if inside.len() == text.len() => {
            Err(format!("several columns stand in parentheses: `({})`", shorten(text)))
        }
        _ => Ok(names),
    }
}

/// The first name, and what follows the comma behind it.
fn name(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let text = text.trim_start();
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_name(quoted).ok_or("has an unclosed quote")?,
        None => {
            let (name, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
            if name.contains(['(', ')', '"']) {
                return Err(
                    "is not a column or `(a, b)`; names with parentheses or quotes stand in double quotes",
                );
            }
            (name.trim_end().to_owned(), rest)
        }
    };
    if name.is_empty() {
        return Err("names no column in one place");
    }
    match rest.trim_start() {
        "" => Ok((name, None)),
        rest => rest.strip_prefix(',').map(|rest| (name, Some(rest))).ok_or("has text behind a quoted name"),
    }
}

/// What stands before the closing quote, `""` being one quote, and what follows it.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("id", &["id"][..]),
            (" (id) ", &["id"]),
            ("(a, b,c )", &["a", "b", "c"]),
            ("Order ID", &["Order ID"]),
            ("\"a, b\"", &["a, b"]),
            ("(\"x\"\"y\" , \"(z)\")", &["x\"y", "(z)"]),
        ] {
            assert_eq!(columns(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let said = |text: &str| columns(text).unwrap_err();
        assert!(said("").contains("names no column"));
        assert!(said("()").contains("names no column"));
        assert!(said("(a,)").contains("names no column"));
        assert!(said("(a, b").contains("no closing parenthesis"));
        assert!(said("a, b").contains("stand in parentheses: `(a, b)`"));
        assert!(said("(a, b, a)").contains("`a` twice"));
        assert!(said("\"a").contains("unclosed quote"));
        assert!(said("(\"a\" b)").contains("behind a quoted name"));
        assert!(said("lower(a)").contains("not a column"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([\\PC]|[(),\" ab]){0,20}") {
            let _ = columns(&text);
        }

        #[test]
        fn quoted_names_are_kept(names in prop::collection::btree_set("[a-z(),\" ]{1,8}", 1..4)) {
            let quoted: Vec<String> =
                names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
            let read = columns(&format!("({})", quoted.join(", "))).unwrap();
            prop_assert_eq!(read, names.into_iter().collect::<Vec<_>>());
        }
    }
}
