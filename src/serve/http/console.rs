//! `GET /`: the console, a page of files that are in the binary; a browser's request enters, one of them leaves.
//!
//! What the page shows it asks of the routes that everybody has, with the credentials that the browser was given for it:
//! nothing here knows of data. It may load nothing from elsewhere and be framed by nobody.

use std::fmt::Write as _;
use std::sync::Arc;

use ::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use ring::digest;

/// Where the page is.
const PAGE: &str = "/";

/// What the page may do: run its own scripts, wear its own styles, ask its own server. No text becomes markup.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Stored, and asked about each time: after an upgrade nobody sees half of the old page.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");
/// An ETag says this much of a file's digest, in bytes.
const TAG_BYTES: usize = 12;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, Content-Type and text of every file.
const FILES: &[(&str, &str, &str)] = &[
    (PAGE, HTML, include_str!("console/index.html")),
    ("/console/console.css", CSS, include_str!("console/console.css")),
    ("/console/icon.svg", SVG, include_str!("console/icon.svg")),
    ("/console/console.js", JS, include_str!("console/console.js")),
    ("/console/exact.js", JS, include_str!("console/exact.js")),
    ("/console/show.js", JS, include_str!("console/show.js")),
    ("/console/server.js", JS, include_str!("console/server.js")),
    ("/console/datasets.js", JS, include_str!("console/datasets.js")),
    ("/console/queries.js", JS, include_str!("console/queries.js")),
    ("/console/editor.js", JS, include_str!("console/editor.js")),
    ("/console/answer.js", JS, include_str!("console/answer.js")),
    ("/console/chart.js", JS, include_str!("console/chart.js")),
];

/// One file, ready to be sent.
struct File {
    content_type: HeaderValue,
    tag: Option<HeaderValue>,
    text: Bytes,
}

/// The routes of the console.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, (path, content_type, text)| {
        let file = Arc::new(File::new(content_type, text));
        router.route(path, get(async move |headers: HeaderMap| file.answer(&headers)))
    })
}

impl File {
    fn new(content_type: &'static str, text: &'static str) -> Self {
        let text = text.as_bytes();
        Self {
            content_type: HeaderValue::from_static(content_type),
            // Hexadecimal digits are a header.
            tag: HeaderValue::try_from(tag(text)).ok(),
            text: Bytes::from_static(text),
        }
    }

    /// The file, or 304 to a browser that has it.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = match self.is_known(headers) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.text.clone().into_response(),
        };
        let told = response.headers_mut();
        told.insert(CONTENT_TYPE, self.content_type.clone());
        told.insert(CACHE_CONTROL, REVALIDATED);
        told.insert(CONTENT_SECURITY_POLICY, POLICY);
        told.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        told.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        told.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        told.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        if let Some(tag) = &self.tag {
            told.insert(ETAG, tag.clone());
        }
        response
    }

    /// RFC 9110 section 13.1.2.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
        let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
        tags.any(|known| known == "*" || self.tag.as_ref().is_some_and(|tag| known == tag))
    }
}

/// Weak: the bytes that are sent may be compressed ones.
fn tag(text: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, text);
    let mut tag = String::from("W/\"");
    for byte in digest.as_ref().iter().take(TAG_BYTES) {
        // Writing to a String never fails.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

#[cfg(test)]
mod tests {
    use ::http::Request;
    use ::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
    use axum::body::Body;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use reqwest::Client;
    use tower::ServiceExt;

    use super::*;
    use crate::secrets::Secret;
    use crate::serve::access::{Access, ApiKey};
    use crate::serve::fake::{Fake, http};
    use crate::serve::http::{HttpOptions, router};
    use crate::task::Scope;

    /// All files together, in bytes: the page must stay one that is read in a moment.
    const SIZE_MAX: usize = 100 << 10;

    #[tokio::test]
    async fn every_file_is_served_with_what_holds_it_in() {
        let (url, _scope) = http(Fake::default()).await;
        for (path, content_type, text) in FILES {
            let response = reqwest::get(format!("{url}{path}")).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let headers = response.headers().clone();
            let told = |name: &str| headers[name].to_str().unwrap().to_owned();
            assert_eq!(told("content-type"), *content_type, "{path}");
            assert_eq!(told("x-content-type-options"), "nosniff");
            assert_eq!(told("referrer-policy"), "no-referrer");
            assert_eq!(told("x-frame-options"), "DENY");
            assert_eq!(told("cross-origin-resource-policy"), "same-origin");
            assert_eq!(told("cache-control"), "private, no-cache");
            let policy = told("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(response.text().await.unwrap(), *text);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_known_is_not_sent_again() {
        let (url, _scope) = http(Fake::default()).await;
        let page = format!("{url}/console/console.js");
        let tag = reqwest::get(&page).await.unwrap().headers()["etag"].clone();
        let ask = async |known: &str| {
            let request = Client::new().get(&page).header("if-none-match", known);
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.headers()["etag"].clone(), response.text().await.unwrap())
        };
        let tag_text = tag.to_str().unwrap();
        assert_eq!(ask(tag_text).await, (304, tag.clone(), String::new()));
        assert_eq!(ask(&format!("\"other\", {tag_text}")).await.0, 304);
        assert_eq!(ask("*").await.0, 304);
        assert_eq!(ask("\"other\"").await.0, 200);
    }

    #[tokio::test]
    async fn a_browser_asks_its_user_for_a_key() {
        let access = Access::new(vec![ApiKey::reading(Secret::new("k1".into()))]);
        let options = HttpOptions { access, ..HttpOptions::default() };
        let router = router(Fake::default(), options, &Scope::new());
        for (path, ..) in FILES {
            let ask = async |key: &str| {
                let basic = format!("Basic {}", STANDARD.encode(format!("anybody:{key}")));
                let request = Request::get(*path).header(AUTHORIZATION, basic).body(Body::empty()).unwrap();
                router.clone().oneshot(request).await.unwrap()
            };
            let refused = ask("other").await;
            assert_eq!(refused.status(), 401, "{path}");
            let mut challenges = refused.headers().get_all(WWW_AUTHENTICATE).iter();
            assert!(challenges.any(|challenge| challenge.to_str().unwrap().starts_with("Basic ")), "{path}");
            assert_eq!(ask("k1").await.status(), 200, "{path}");
        }
    }

    #[tokio::test]
    async fn other_methods_and_paths_are_refused() {
        let (url, _scope) = http(Fake::default()).await;
        assert_eq!(Client::new().post(&url).send().await.unwrap().status(), 405);
        assert_eq!(Client::new().head(&url).send().await.unwrap().status(), 200);
        for path in ["/console", "/console/", "/console/other.js", "/console/../console.rs"] {
            assert_eq!(reqwest::get(format!("{url}{path}")).await.unwrap().status(), 404, "{path}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for (path, _, text) in FILES {
            let addresses = text
                .match_indices("://")
                .map(|(at, _)| &text[text.floor_char_boundary(at.saturating_sub(6))..]);
            for address in addresses {
                let (_, rest) = address.split_once("://").unwrap();
                assert!(
                    rest.starts_with("www.w3.org/"),
                    "{path} names an address: {}",
                    &address[..30.min(address.len())]
                );
            }
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(sink), "{path} makes text into markup or code: {sink}");
            }
            // Neither attributes of styles nor of events pass the policy.
            assert!(!text.contains("style=") && !text.contains("onclick="), "{path}");
        }
    }

    #[test]
    fn every_file_that_is_named_is_there() {
        for (path, _, text) in FILES {
            let quoted = text
                .split(['"', '\''])
                .filter(|part| part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".svg"));
            for named in quoted {
                let named = named.replace("./", "/console/");
                assert!(FILES.iter().any(|(known, ..)| *known == named), "{path} names {named}");
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        let size: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(size < SIZE_MAX, "{size} bytes");
    }
}
