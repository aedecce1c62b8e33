//! `${store:KEY}` inside text: checked for form here, resolved in the secrets room.

use std::fmt;

use thiserror::Error;

use super::text::shorten;

/// Text with `${store:KEY}` references in it, checked for form, not resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<TemplatePart>,
}

/// A piece of a [`Template`].
#[derive(Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(String),
    /// `${store:KEY}`; the store `secrets` means all of them.
    Reference {
        store: String,
        key: String,
    },
}

/// What is wrong with a template; `at` counts characters from its start. Never holds plain text of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    pub at: usize,
    pub len: usize,
    pub what: TemplateFault,
}

/// A fault of form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateFault {
    #[error("`${{` is never closed")]
    Unclosed,
    #[error("`${{{0}}}` names no store: write `${{secrets:{0}}}`")]
    NoStore(String),
    #[error("`${{...}}` holds no reference")]
    Empty,
    #[error("`{0}` is not a store or key name: letters, digits, `_` and `-`, beginning with a letter or `_`")]
    BadName(String),
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.parts).finish()
    }
}

/// Plain text may be a secret that somebody wrote in clear: only its length is shown.
impl fmt::Debug for TemplatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "[{} characters]", text.chars().count()),
            Self::Reference { store, key } => write!(f, "${{{store}:{key}}}"),
        }
    }
}

impl Template {
    /// Reads the references out of `text`.
    ///
    /// # Errors
    /// The first fault of form.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, after) = rest.split_at(start);
            let at = || text[..text.len() - after.len()].chars().count();
            let Some(end) = after.find('}') else {
                return Err(TemplateError { at: at(), len: 2, what: TemplateFault::Unclosed });
            };
            let reference = reference(&after[2..end]).map_err(|what| TemplateError {
                at: at(),
                len: after[..=end].chars().count(),
                what,
            })?;
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            parts.push(reference);
            rest = &after[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The whole text, where it holds no reference.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Every `(store, key)` in it.
    pub fn references(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Text(_) => None,
            TemplatePart::Reference { store, key } => Some((store.as_str(), key.as_str())),
        })
    }
}

fn reference(inside: &str) -> Result<TemplatePart, TemplateFault> {
    if inside.trim().is_empty() {
        return Err(TemplateFault::Empty);
    }
    let Some((store, key)) = inside.split_once(':') else {
        let key = inside.trim();
        return Err(match is_identifier(key) {
            true => TemplateFault::NoStore(shorten(key)),
            false => TemplateFault::BadName(shorten(key)),
        });
    };
    for name in [store.trim(), key.trim()] {
        if !is_identifier(name) {
            return Err(TemplateFault::BadName(shorten(name)));
        }
    }
    Ok(TemplatePart::Reference { store: store.trim().to_owned(), key: key.trim().to_owned() })
}

/// Whether `name` can name a store or a key.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> TemplateError {
        Template::parse(text).unwrap_err()
    }

    #[test]
    fn references_and_text() {
        let template = Template::parse("Bearer ${ env : A-b } and ${secrets:_X}$").unwrap();
        assert_eq!(template.references().collect::<Vec<_>>(), [("env", "A-b"), ("secrets", "_X")]);
        assert_eq!(template.parts.len(), 5);
        assert_eq!(template.literal(), None);
        assert_eq!(Template::parse("pa$$word").unwrap().literal(), Some("pa$$word"));
        assert_eq!(Template::parse("").unwrap().literal(), Some(""));
    }

    #[test]
    fn faults_have_a_place() {
        assert_eq!(fault("äb${secrets:K").at, 2);
        assert_eq!(fault("${secrets:K").what, TemplateFault::Unclosed);
        assert_eq!(fault("${KEY}").what.to_string(), "`${KEY}` names no store: write `${secrets:KEY}`");
        assert_eq!(fault("${ }").what, TemplateFault::Empty);
        assert_eq!(fault("${a:b:c}").what, TemplateFault::BadName("b:c".into()));
        assert_eq!(fault("x${1a:b}").len, 7);
    }

    #[test]
    fn debug_shows_no_text() {
        let shown = format!("{:?}", Template::parse("hunter2${secrets:K}").unwrap());
        assert_eq!(shown, "[[7 characters], ${secrets:K}]");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\$\\{|\\}|:|[a-z ä]){0,12}") {
            let _ = Template::parse(&text);
        }
    }
}
