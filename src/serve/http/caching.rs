//! The headers of the results cache on `/v1/sql`.

use ::http::header::{CACHE_CONTROL, HeaderName, VARY};
use ::http::{HeaderMap, HeaderValue};

use super::error::Refusal;
use crate::query::{CacheWishes, Cached, Scope};
use crate::serve::caching;

const STATUS: HeaderName = HeaderName::from_static(caching::STATUS);
const X_CACHE: HeaderName = HeaderName::from_static(caching::X_CACHE);
const SCOPE: HeaderName = HeaderName::from_static("results-cache-scope");
const CLIENT_KEY: HeaderName = HeaderName::from_static(caching::CLIENT_KEY);

/// What a request says of the cache.
///
/// # Errors
/// 400 for what cannot be read.
pub(super) fn wishes(headers: &HeaderMap) -> Result<CacheWishes, Refusal> {
    let control = headers.get_all(CACHE_CONTROL).iter().map(|value| value.to_str().ok());
    let key = headers.get(CLIENT_KEY).map(|value| value.to_str().ok());
    caching::wishes(control, key).map_err(|error| {
        let code = match error {
            caching::WishError::Key => "InvalidCacheKey",
            caching::WishError::NoText | caching::WishError::Seconds(_) => "InvalidCacheControl",
        };
        Refusal::bad(code, error.to_string())
    })
}

/// Says how an answer came about.
pub(super) fn tell(headers: &mut HeaderMap, cached: &Cached) {
    headers.insert(STATUS, HeaderValue::from_static(caching::status(cached.status)));
    if let Some(x_cache) = caching::x_cache(cached.status) {
        headers.insert(X_CACHE, HeaderValue::from_static(x_cache));
    }
    match cached.scope {
        Some(Scope::Shared) => drop(headers.insert(SCOPE, HeaderValue::from_static("shared"))),
        Some(Scope::User) => {
            headers.insert(SCOPE, HeaderValue::from_static("user"));
            headers.append(VARY, HeaderValue::from_static("Authorization, X-API-Key, Cookie"));
        }
        None => {}
    }
    if cached.has_client_key {
        headers.append(VARY, HeaderValue::from_static("Spice-Cache-Key"));
    }
    if let Some((fresh, stale)) = cached.freshness {
        let text = format!("max-age={}, stale-while-revalidate={}", fresh.as_secs(), stale.as_secs());
        // Digits are a header.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(CACHE_CONTROL, value);
        }
    }
}
