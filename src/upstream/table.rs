//! The name of a table on its upstream: a `from:` path enters, one to three parts leave. No I/O.

/// Catalog, schema, table: more parts than that name nothing.
const PARTS_MAX: usize = 3;

/// The table on the upstream: one to three parts, as they are spelled there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteTableName {
    pub parts: Vec<String>,
}

impl RemoteTableName {
    /// Reads `[catalog.][schema.]table`; a part in double quotes is kept as it is, any other is lower-cased,
    /// as the upstream's own SQL would do.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that began with it.
    pub(super) fn try_new(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        loop {
            let (part, after) = next_part(rest)?;
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err("has text after a closing quote".to_owned()),
            }
        }
        match parts.len() {
            0..=PARTS_MAX => Ok(Self { parts }),
            count => {
                Err(format!("has {count} parts; a table has at most {PARTS_MAX} (catalog.schema.table)"))
            }
        }
    }

    /// The dotted name, as paths of Flight descriptors carry it.
    pub(super) fn reference(&self) -> String {
        self.parts.iter().map(|part| spelled(part)).collect::<Vec<_>>().join(".")
    }
}

/// A part as it is read back from a dotted name: in quotes where it would be taken for something else without.
fn spelled(part: &str) -> String {
    let is_plain = part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match is_plain {
        true => part.to_owned(),
        false => format!("\"{}\"", part.replace('"', "\"\"")),
    }
}

/// The first part of a dotted name and what follows it.
fn next_part(text: &str) -> Result<(String, &str), String> {
    let (part, after) = match text.strip_prefix('"') {
        Some(quoted) => quoted_part(quoted).ok_or("has a quote that never closes")?,
        None => {
            let (part, after) = text.split_at(text.find('.').unwrap_or(text.len()));
            if let Some(odd) = part.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))) {
                return Err(format!("holds {odd:?}; put the part in double quotes"));
            }
            (part.to_lowercase(), after)
        }
    };
    match part.is_empty() {
        true => Err("has an empty part".to_owned()),
        false => Ok((part, after)),
    }
}

/// Reads up to the closing quote; a doubled quote stands for one.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Vec<String> {
        RemoteTableName::try_new(text).unwrap().parts
    }

    #[test]
    fn one_to_three_parts() {
        assert_eq!(parts("Orders"), ["orders"]);
        assert_eq!(parts("public.orders"), ["public", "orders"]);
        assert_eq!(parts(r#"spice."My ""S""."."T.1""#), ["spice", r#"My "S"."#, "T.1"]);
        for bad in ["", "a.", ".a", "a..b", "a.b.c.d", "\"a", "\"a\"b", "a b", "\"\"", "a/b"] {
            assert!(RemoteTableName::try_new(bad).is_err(), "{bad:?} was taken");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_quoted_part_is_kept(names in prop::collection::vec("\\PC{1,12}", 1..=3)) {
            let quoted: Vec<_> = names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
            prop_assert_eq!(&parts(&quoted.join(".")), &names);
            prop_assert_eq!(&parts(&RemoteTableName { parts: names.clone() }.reference()), &names);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = RemoteTableName::try_new(&text);
        }
    }
}
