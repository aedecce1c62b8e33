//! The results cache in the words of requests and answers: the same over HTTP and Flight.

use std::time::Duration;

use thiserror::Error;

use crate::query::{CacheStatus, CacheWishes, ClientKey};

/// What both front ends call them; gRPC metadata are headers too.
pub(super) const CACHE_CONTROL: &str = "cache-control";
pub(super) const CLIENT_KEY: &str = "spice-cache-key";
pub(super) const STATUS: &str = "results-cache-status";
/// The older header; it knows hit and miss.
pub(super) const X_CACHE: &str = "x-cache";

/// A request's words about the cache that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum WishError {
    #[error("the header {CLIENT_KEY} must have 1 to 128 of the characters A-Z, a-z, 0-9, _ and -")]
    Key,
    #[error("the header {CACHE_CONTROL} is no text")]
    NoText,
    #[error("the header {CACHE_CONTROL}: `{0}` needs a number of seconds, for example `{0}=30`")]
    Seconds(&'static str),
}

/// Reads a request's headers: every value of `Cache-Control`, and that of `Spice-Cache-Key`. A value that is no text
/// comes as none. Directives that are about something else are left alone, as RFC 9111 asks.
///
/// # Errors
/// A key that is none, a directive without its number.
pub(super) fn wishes<'a>(
    control: impl IntoIterator<Item = Option<&'a str>>,
    key: Option<Option<&str>>,
) -> Result<CacheWishes, WishError> {
    let mut wishes = CacheWishes::default();
    for line in control {
        let directives = line.ok_or(WishError::NoText)?.split(',');
        directives.map(str::trim).try_for_each(|directive| read(&mut wishes, directive))?;
    }
    if let Some(key) = key {
        wishes.key = Some(key.and_then(ClientKey::new).ok_or(WishError::Key)?);
    }
    Ok(wishes)
}

fn read(wishes: &mut CacheWishes, directive: &str) -> Result<(), WishError> {
    let (name, value) = match directive.split_once('=') {
        Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
        None => (directive, None),
    };
    match name.to_ascii_lowercase().as_str() {
        "no-cache" => wishes.no_cache = true,
        "no-store" => wishes.no_store = true,
        "only-if-cached" => wishes.only_if_cached = true,
        "max-age" => wishes.max_age = Some(seconds("max-age", value)?),
        "min-fresh" => wishes.min_fresh = Some(seconds("min-fresh", value)?),
        // Without a number: any.
        "max-stale" => wishes.max_stale = Some(seconds_or_any("max-stale", value)?),
        "stale-if-error" => wishes.stale_if_error = Some(seconds_or_any("stale-if-error", value)?),
        _ => {}
    }
    Ok(())
}

fn seconds(name: &'static str, value: Option<&str>) -> Result<Duration, WishError> {
    let text = value.ok_or(WishError::Seconds(name))?.trim_matches('"');
    match text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(WishError::Seconds(name)),
        // More digits than a number holds are as good as for ever.
        false => Ok(text.parse().map_or(Duration::MAX, Duration::from_secs)),
    }
}

fn seconds_or_any(name: &'static str, value: Option<&str>) -> Result<Duration, WishError> {
    match value {
        None => Ok(Duration::MAX),
        value => seconds(name, value),
    }
}

/// The value of [`STATUS`].
pub(super) fn status(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Hit => "HIT",
        CacheStatus::Stale => "STALE",
        CacheStatus::Miss => "MISS",
        CacheStatus::Bypass => "BYPASS",
    }
}

/// The value of [`X_CACHE`].
pub(super) fn x_cache(status: CacheStatus) -> Option<&'static str> {
    match status {
        CacheStatus::Hit | CacheStatus::Stale => Some("Hit from spiceai"),
        CacheStatus::Miss => Some("Miss from spiceai"),
        CacheStatus::Bypass => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_one(control: &str) -> Result<CacheWishes, WishError> {
        wishes([Some(control)], None)
    }

    #[test]
    fn directives_are_read() {
        let read = read_one("No-Cache, max-stale = 30,min-fresh=5 , stale-if-error=\"60\", foo=bar, public")
            .unwrap();
        let expected = CacheWishes {
            no_cache: true,
            max_stale: Some(Duration::from_secs(30)),
            min_fresh: Some(Duration::from_secs(5)),
            stale_if_error: Some(Duration::from_secs(60)),
            ..CacheWishes::default()
        };
        assert_eq!(read, expected);
        assert_eq!(read_one("max-stale").unwrap().max_stale, Some(Duration::MAX));
        assert_eq!(read_one("max-age=99999999999999999999").unwrap().max_age, Some(Duration::MAX));
        let several = wishes([Some("only-if-cached"), Some("no-store")], Some(Some("key_1"))).unwrap();
        assert!(several.only_if_cached && several.no_store && several.key.is_some());
        assert_eq!(wishes([], None), Ok(CacheWishes::default()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_words() {
        assert_eq!(read_one("max-age").unwrap_err(), WishError::Seconds("max-age"));
        assert_eq!(read_one("min-fresh=soon").unwrap_err(), WishError::Seconds("min-fresh"));
        assert_eq!(read_one("max-stale=-1").unwrap_err(), WishError::Seconds("max-stale"));
        assert_eq!(wishes([None], None).unwrap_err(), WishError::NoText);
        assert_eq!(wishes([], Some(None)).unwrap_err(), WishError::Key);
        assert_eq!(
            wishes([], Some(Some("a key"))).unwrap_err().to_string(),
            "the header spice-cache-key must have 1 to 128 of the characters A-Z, a-z, 0-9, _ and -"
        );
        assert_eq!(
            read_one("min-fresh=").unwrap_err().to_string(),
            "the header cache-control: `min-fresh` needs a number of seconds, for example `min-fresh=30`"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(control in "\\PC{0,40}", key in "\\PC{0,140}") {
            let _ = wishes([Some(control.as_str())], Some(Some(&key)));
        }
    }
}
