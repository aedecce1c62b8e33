//! Which web pages may ask: `runtime.cors` enters, the headers of the Fetch standard leave.
//!
//! Keys are shown in headers and never in cookies, so no credentials are allowed, and any origin may be.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::outer::REQUEST_ID;
use super::{CONFIG, QUERY_ID};
use crate::config::Cors;
use crate::serve::caching;

/// How long a browser remembers what it was allowed.
const REMEMBERED: Duration = Duration::from_secs(600);
const ANY: &str = "*";

/// The layer that answers browsers; none where pages of other origins may not ask.
pub(super) fn layer(cors: &Cors) -> Option<CorsLayer> {
    let exposed = [
        REQUEST_ID,
        QUERY_ID,
        CONFIG,
        RETRY_AFTER,
        HeaderName::from_static(caching::STATUS),
        HeaderName::from_static(caching::X_CACHE),
        HeaderName::from_static("mcp-session-id"),
    ];
    let layer = CorsLayer::new()
        .allow_origin(origins(cors))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        // `*` would leave Authorization out.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(REMEMBERED);
    cors.enabled.then_some(layer)
}

fn origins(cors: &Cors) -> AllowOrigin {
    match cors.allowed_origins.iter().any(|origin| origin == ANY) {
        true => AllowOrigin::from(Any),
        // What is no header is the origin of no page.
        false => {
            let origins = cors.allowed_origins.iter();
            AllowOrigin::list(origins.filter_map(|origin| HeaderValue::try_from(origin).ok()))
        }
    }
}
