//! A value that cannot be printed, and texts freed of such values.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// What stands in a text for a secret.
const MASK: &str = "[secret]";

/// Shorter values are too common in any text to be replaced.
const REDACT_BYTES_MIN: usize = 4;

/// A value that cannot be printed, compared in constant time, wiped when dropped.
///
/// ```
/// use sidewing::secrets::Secret;
/// assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[secret]");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value.into())
    }

    /// The bare value: for the wire, and for params that are not secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

/// `text` with every occurrence of a secret replaced; values below four bytes are left.
#[must_use]
pub fn redact(text: &str, secrets: &[&Secret]) -> String {
    let mut values: Vec<&str> = secrets
        .iter()
        .map(|secret| secret.expose())
        .filter(|value| value.len() >= REDACT_BYTES_MIN)
        .collect();
    // A secret that holds another one goes first, so that nothing of it is left over.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.iter().fold(text.to_owned(), |text, value| text.replace(value, MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_equal_by_value() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(secret("a") == secret("a"));
        assert!(secret("a") != secret("b"));
        assert!(secret("a") != secret("ab"));
        assert!(secret("").is_empty());
    }

    #[test]
    fn texts_are_freed_of_secrets() {
        let secrets = ["hunter2", "hunter2-long", "abc"].map(|text| Secret::new(text.to_owned()));
        let secrets: Vec<&Secret> = secrets.iter().collect();
        assert_eq!(redact("key hunter2-long, hunter2; abc", &secrets), "key [secret], [secret]; abc");
    }
}
