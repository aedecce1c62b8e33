//! What a request says of the results cache: whose it is, under which key, and how fresh its answer must be.

use std::sync::Arc;
use std::time::Duration;

use crate::query::Principal;

/// No key of a client is longer, in bytes.
const KEY_BYTES_MAX: usize = 128;

/// Who else may be given an answer: `Results-Cache-Scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody who may ask at all.
    Shared,
    /// Whoever shows the same API key.
    User,
}

impl Scope {
    pub(super) fn of(principal: &Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Shared,
            Principal::Key(_) => Self::User,
        }
    }
}

/// A client's own part of the key (`Spice-Cache-Key`): answers cached under one are not seen under another. It never
/// stands for the statement, so that no client can take the answer of one for the answer of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey(Arc<str>);

impl ClientKey {
    /// None unless it has 1 to 128 of the characters `A-Z`, `a-z`, `0-9`, `_` and `-`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_key = (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        is_key.then(|| Self(text.into()))
    }
}

/// What a request asks of the cache, in the words of RFC 9111 and RFC 5861. The default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheWishes {
    pub key: Option<ClientKey>,
    /// The statement is run; its result is kept.
    pub no_cache: bool,
    /// The statement is run; its result is not kept.
    pub no_store: bool,
    /// The statement is not run.
    pub only_if_cached: bool,
    /// No older than this.
    pub max_age: Option<Duration>,
    /// No longer stale than this; [`Duration::MAX`] where no number was given.
    pub max_stale: Option<Duration>,
    /// Fresh for at least so long.
    pub min_fresh: Option<Duration>,
    /// How stale it may be when the statement cannot be run.
    pub stale_if_error: Option<Duration>,
}

impl CacheWishes {
    /// Whether what is cached may be answered at all.
    pub(in crate::query) fn may_read(&self) -> bool {
        !self.no_cache && !self.no_store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_clients_are_short_and_plain() {
        assert!(ClientKey::new("tenant-7_A").is_some());
        assert!(ClientKey::new(&"k".repeat(128)).is_some());
        for bad in ["", "a b", "ü", "a:b", &"k".repeat(129)] {
            assert_eq!(ClientKey::new(bad), None, "{bad}");
        }
    }
}
