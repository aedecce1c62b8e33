//! Which web pages may ask: `runtime.cors` enters, the headers of the Fetch standard leave.
//!
//! Keys are shown in headers and never in cookies, so no credentials are allowed, and any origin may be.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::QUERY_ID;
use super::outer::REQUEST_ID;
use crate::serve::caching;

/// How long a browser remembers what it was allowed.
const REMEMBERED: Duration = Duration::from_secs(600);
const ANY: &str = "*";

/// The origins whose pages may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Each as browsers send it, `https://app.example.com`; `*` is all of them.
    pub allowed_origins: Vec<String>,
}

impl Cors {
    pub(super) fn layer(&self) -> CorsLayer {
        let exposed = [
            REQUEST_ID,
            QUERY_ID,
            RETRY_AFTER,
            HeaderName::from_static(caching::STATUS),
            HeaderName::from_static(caching::X_CACHE),
            HeaderName::from_static("mcp-session-id"),
        ];
        CorsLayer::new()
            .allow_origin(self.origins())
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
            // `*` would leave Authorization out.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed)
            .max_age(REMEMBERED)
    }

    fn origins(&self) -> AllowOrigin {
        match self.allowed_origins.iter().any(|origin| origin == ANY) {
            true => AllowOrigin::from(Any),
            // What is no header is the origin of no page.
            false => {
                let origins = self.allowed_origins.iter();
                AllowOrigin::list(origins.filter_map(|origin| HeaderValue::try_from(origin).ok()))
            }
        }
    }
}
