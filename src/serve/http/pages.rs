//! Which web pages may ask: a request enters, and goes on unless a page of another site sent it.
//!
//! Browsers send some requests of any page to any server, loopback included, without asking first, and with the key
//! that their user once gave: the page cannot read the answer, but the statement has run. So CORS alone does not do.

use std::sync::Arc;

use ::http::{Method, StatusCode};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::Refusal;
use super::{HttpOptions, OPEN_ROUTES};
use crate::serve::access::Access;
use crate::serve::origin::{self, Foreign};

/// Whose pages may ask.
#[derive(Clone)]
pub(super) struct Pages {
    access: Access,
    allowed_hosts: Arc<[String]>,
    allowed_origins: Arc<[String]>,
}

impl Pages {
    pub(super) fn of(options: &HttpOptions) -> Self {
        let origins = if options.cors.enabled { options.cors.allowed_origins.as_slice() } else { &[] };
        Self {
            access: options.access.clone(),
            allowed_hosts: options.mcp.allowed_hosts.clone().into(),
            allowed_origins: origins.into(),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Foreign> {
        let (uri, headers) = (request.uri(), request.headers());
        if origin::is_of_listed(headers, &self.allowed_origins) {
            return Ok(());
        }
        origin::check_origin(uri, headers, &[])?;
        match self.access.is_open() {
            true => origin::check_page_host(uri, headers, &self.allowed_hosts),
            false => Ok(()),
        }
    }
}

/// Refuses what a page of another site sent.
pub(super) async fn guard(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    // OPTIONS asks what may be asked, and of health everybody may know.
    if request.method() == Method::OPTIONS || OPEN_ROUTES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match pages.check(&request) {
        Ok(()) => next.run(request).await,
        Err(foreign) => refusal(foreign).into_response(),
    }
}

fn refusal(foreign: Foreign) -> Refusal {
    let (code, message) = match foreign {
        Foreign::NoHost => {
            return Refusal::bad("HostMissing", "the request names no host: send one Host header");
        }
        Foreign::Host { name } => (
            "HostNotAllowed",
            format!(
                "a page of `{name}` sent the request, and the name may be another site's that resolves to this server \
                 (DNS rebinding): if it is this server's, add it to runtime.mcp.allowed_hosts, or set keys with \
                 runtime.auth.api-key"
            ),
        ),
        Foreign::Origin { origin } => (
            "OriginNotAllowed",
            format!(
                "a page of `{origin}` sent the request, and only this server's own pages may: if that site may ask, \
                 enable runtime.cors and add the origin to runtime.cors.allowed_origins"
            ),
        ),
    };
    Refusal::new(StatusCode::FORBIDDEN, code, message)
}
