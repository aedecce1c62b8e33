//! `runtime.auth.api-key`: the keys that clients present, each a template with or without a suffix of its rights.
//!
//! Only form is judged here. Keys that come from a store are judged by the same rules where they are resolved.

use thiserror::Error;

use super::decode::Decoder;
use super::references::{ValueError, read_template};
use super::template::Template;
use super::yaml::{Key, Node, Value};
use super::{Diagnostic, Span};

/// Keys of one spicepod: each is compared with what a request shows.
const KEYS_MAX: usize = 1_000;

/// The spellings of the section.
const NAMES: [&str; 2] = ["api-key", "api_key"];

/// One of `runtime.auth.api-key.keys`.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// How messages name it, e.g. `runtime.auth.api-key.keys[0]`.
    pub name: String,
    /// The key, and its suffix where it is written here.
    pub value: Template,
    pub at: Span,
}

/// What the bearer of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRights {
    Read,
    ReadWrite,
}

/// A key that cannot be one; never holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyFault {
    #[error("the key is empty")]
    Empty,
    #[error("the key holds characters that no header can carry")]
    Unsendable,
    #[error("the key has two suffixes that tell its rights")]
    TwoSuffixes,
}

impl KeyFault {
    /// What to do.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Empty => "remove it, or set its secret; everybody can show an empty key",
            Self::Unsendable => "use printable ASCII characters",
            Self::TwoSuffixes => "write `:ro` or `:rw` once, in the secret or behind the reference",
        }
    }
}

impl KeyRights {
    /// Splits `key`, `key:ro` or `key:rw`; blanks around it do not count.
    ///
    /// # Errors
    /// What cannot be a key.
    ///
    /// ```
    /// use sidewing::config::KeyRights;
    /// assert_eq!(KeyRights::split("abc:rw"), Ok(("abc", KeyRights::ReadWrite)));
    /// assert_eq!(KeyRights::split("abc"), Ok(("abc", KeyRights::Read)));
    /// ```
    pub fn split(text: &str) -> Result<(&str, Self), KeyFault> {
        let (key, rights) = Self::suffixed(text.trim());
        match key {
            "" => Err(KeyFault::Empty),
            key if Self::suffixed(key).0 != key => Err(KeyFault::TwoSuffixes),
            key if !key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => {
                Err(KeyFault::Unsendable)
            }
            key => Ok((key, rights)),
        }
    }

    fn suffixed(text: &str) -> (&str, Self) {
        let suffixes = [(":ro", Self::Read), (":rw", Self::ReadWrite)];
        let found = suffixes.iter().find_map(|(suffix, rights)| Some((text.strip_suffix(suffix)?, *rights)));
        found.map_or((text, Self::Read), |(key, rights)| (key.trim_end(), rights))
    }
}

/// The keys that are asked for; none where everybody may ask.
pub(super) fn read_api_keys(decoder: &mut Decoder<'_>, runtime: Option<&Node>) -> Vec<ApiKey> {
    let auth = runtime.and_then(|runtime| runtime.get("auth"));
    let sections: Vec<(&Key, &Node)> =
        NAMES.iter().filter_map(|name| auth.and_then(|auth| auth.section(name))).collect();
    match sections.as_slice() {
        [] => Vec::new(),
        [(key, section)] => read(decoder, key, section),
        [_, (key, _), ..] => {
            let message = "`runtime.auth.api-key` and `runtime.auth.api_key` are two names of one section";
            decoder.problem(
                Diagnostic::new("InvalidValue", message).at(key.at).help("keep `runtime.auth.api-key`"),
            );
            Vec::new()
        }
    }
}

fn read(decoder: &mut Decoder<'_>, key: &Key, section: &Node) -> Vec<ApiKey> {
    let is_off = section.get("enabled").and_then(Node::as_bool) == Some(false);
    // What is no mapping was refused by the checker.
    let is_malformed = !section.is_null() && !matches!(section.value, Value::Map(_));
    if is_off || is_malformed {
        return Vec::new();
    }
    let name = format!("runtime.auth.{}", key.name);
    let items = section.get("keys").map_or(&[][..], Node::items);
    let is_list = section.get("keys").is_none_or(|keys| matches!(keys.value, Value::List(_)));
    if items.is_empty() && is_list {
        let message = format!("`{name}` asks for keys, and there are none");
        let help = "write `keys: [\"${secrets:NAME}\"]`, or `enabled: false` to let everybody ask";
        decoder.problem(Diagnostic::new("MissingApiKeys", message).at(key.at).help(help));
    }
    if items.len() > KEYS_MAX {
        let message = format!("`{name}.keys` has {} keys, more than {KEYS_MAX}", items.len());
        decoder.problem(Diagnostic::new("InvalidValue", message).at(key.at));
        return Vec::new();
    }
    let named = items.iter().enumerate().map(|(index, item)| (format!("{name}.keys[{index}]"), item));
    named.filter_map(|(name, item)| one(decoder, name, item)).collect()
}

fn one(decoder: &mut Decoder<'_>, name: String, item: &Node) -> Option<ApiKey> {
    // A key that is no text was refused by the checker.
    let text = item.text().filter(|_| item.kind() == "text")?;
    let value = match read_template(&format!("`{name}`"), item, text, &decoder.stores) {
        Ok(value) => value,
        Err((code, words, at)) => {
            decoder.problem(value_problem((code, words, at)));
            return None;
        }
    };
    if let Some(literal) = value.literal() {
        if let Err(fault) = KeyRights::split(literal) {
            let problem = Diagnostic::new("InvalidApiKey", format!("`{name}`: {fault}"));
            decoder.problem(problem.at(item.at).help(fault.help()));
            return None;
        }
        let message = format!("`{name}` holds a secret in clear");
        let help = "write `${secrets:NAME}` and set NAME in the environment or `.env`";
        decoder.warnings.push(Diagnostic::new("ClearTextSecret", message).at(item.at).help(help));
    }
    Some(ApiKey { name, value, at: item.at })
}

pub(super) fn value_problem((code, (message, help), at): ValueError) -> Diagnostic {
    Diagnostic { code: Some(code), message, at: Some(at), help }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_suffix_tells_the_rights() {
        let read = |key| Ok((key, KeyRights::Read));
        for (text, expected) in [
            ("abc", read("abc")),
            ("abc:ro", read("abc")),
            (" abc:rw\n", Ok(("abc", KeyRights::ReadWrite))),
            ("a:b", read("a:b")),
            ("abc:RW", read("abc:RW")),
            ("a b", read("a b")),
            ("", Err(KeyFault::Empty)),
            (" :rw", Err(KeyFault::Empty)),
            ("abc:ro:rw", Err(KeyFault::TwoSuffixes)),
            ("abc:rw:rw", Err(KeyFault::TwoSuffixes)),
            ("clé", Err(KeyFault::Unsendable)),
            ("a\nb", Err(KeyFault::Unsendable)),
        ] {
            assert_eq!(KeyRights::split(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_key_is_empty_or_ends_like_a_right(text in "[a: row]{0,8}") {
            if let Ok((key, _)) = KeyRights::split(&text) {
                prop_assert!(!key.is_empty() && key == key.trim());
                prop_assert!(!key.ends_with(":ro") && !key.ends_with(":rw"), "{}", key);
            }
        }
    }
}
