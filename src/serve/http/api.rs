//! The routes and the document that describes them, made together: a handler enters with its OpenAPI operation, whose
//! path and methods are its route.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::json;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, Content, Header, ObjectBuilder, Ref, RefOr, Response, SecurityRequirement, Type,
};
use utoipa::{OpenApi, Path};

use super::OPEN_ROUTES;
use super::error::ErrorBody;
use super::{acceleration, asked, datasets, detailed, envelope, log, process, queries};
use crate::serve::Door;

/// The ways to show a key.
const KEYS: [&str; 3] = ["key", "bearer", "basic"];
/// The name of the body and of the response.
const ERROR: &str = "Error";
const REQUEST_ID: &str = "X-Request-Id";

/// What the document says of all routes together, and the bodies that it names.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sidewing",
        description = "SQL over datasets that live elsewhere, answered beside the application.\n\n\
            Every answer has an `X-Request-Id`, the request's own where it brought one. Errors are JSON for a client \
            that takes JSON (`Accept: application/json`), and a line of text otherwise."
    ),
    components(schemas(
        ErrorBody,
        asked::SqlRequest,
        envelope::SqlAnswer,
        acceleration::Wish,
        acceleration::Accepted,
        acceleration::Change,
        datasets::Item,
        datasets::ViewItem,
        log::Log,
        process::CatalogItem,
        process::SpicepodItem,
        process::ListenerItem,
        process::StatusAnswer,
        detailed::Detailed,
        queries::Running,
        queries::Ended,
        queries::Cancelled,
    ))
)]
struct Frame;

/// See the module.
pub(super) struct Api<D> {
    router: Router<D>,
    /// What the document groups the next operations under.
    tag: &'static str,
    document: utoipa::openapi::OpenApi,
}

impl<D: Door> Api<D> {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), tag: "", document: Frame::openapi() }
    }

    /// Begins a group of operations.
    pub(super) fn group(self, tag: &'static str) -> Self {
        Self { tag, ..self }
    }

    /// Serves an operation of the document.
    pub(super) fn route<P, H, T>(mut self, _operation: P, handler: H) -> Self
    where
        P: Path,
        H: Handler<T, D>,
        T: 'static,
    {
        let (path, methods) = (P::path(), P::methods());
        if let Some(filter) = methods.iter().map(filter).reduce(MethodFilter::or) {
            self.router = self.router.route(&path, on(filter, handler));
        }
        let mut operation = P::operation();
        operation.tags = Some(vec![self.tag.to_owned()]);
        self.document.paths.add_path_operation(path, methods, operation);
        self
    }

    /// Serves what is no part of the document: pages for people, and protocols that describe themselves.
    pub(super) fn aside(mut self, path: &str, handlers: MethodRouter<D>) -> Self {
        self.router = self.router.route(path, handlers);
        self
    }

    /// The routes, and the document with what is true of each of them.
    pub(super) fn finish(self) -> (Router<D>, utoipa::openapi::OpenApi) {
        let Self { router, mut document, .. } = self;
        share(document.components.get_or_insert_with(Components::new));
        document.security =
            Some(KEYS.map(|key| SecurityRequirement::new(key, Vec::<String>::new())).to_vec());
        for (path, item) in &mut document.paths.paths {
            let is_open = OPEN_ROUTES.contains(&path.as_str());
            operations(item).for_each(|operation| complete(operation, is_open));
        }
        (router, document)
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// What operations refer to: the ways to show a key, the form of errors, the request's id.
fn share(components: &mut Components) {
    let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    let http = |scheme, description: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(description)).build())
    };
    let bearer = http(HttpAuthScheme::Bearer, "A key, or a session's token.");
    let basic = http(HttpAuthScheme::Basic, "Any user; the password is a key.");
    for (name, scheme) in KEYS.into_iter().zip([header, bearer, basic]) {
        components.add_security_scheme(name, scheme);
    }
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let id = Header::new(text.clone());
    components.headers.insert(REQUEST_ID.to_owned(), id.into());
    let mut line = Content::new(Some(text));
    line.example = Some(json!("dataset `orders` is not ready: connecting to its upstream\n"));
    let mut error = Response::new("What is wrong");
    error.headers.insert(REQUEST_ID.to_owned(), request_id());
    let body = Content::new(Some(Ref::from_schema_name(ERROR)));
    error.content.insert("application/json".to_owned(), body.into());
    error.content.insert("text/plain".to_owned(), line.into());
    components.responses.insert(ERROR.to_owned(), error.into());
}

fn request_id() -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{REQUEST_ID}")))
}

/// Adds what every operation has: who may ask, what happens to who may not, the form of errors, the request's id.
fn complete(operation: &mut Operation, is_open: bool) {
    let responses = &mut operation.responses.responses;
    let mut also = |status: &str, description: &str| {
        responses.entry(status.to_owned()).or_insert_with(|| Response::new(description).into());
    };
    also("500", "Something went wrong in sidewing; its log says what");
    match is_open {
        true => operation.security = Some(Vec::new()),
        false => {
            also("401", "No key was shown, or none that is known");
            also("403", "A page of another site asks");
        }
    }
    for (status, response) in responses {
        let RefOr::T(told) = response else { continue };
        told.headers.insert(REQUEST_ID.to_owned(), request_id());
        if status.starts_with(['4', '5']) && told.content.is_empty() {
            let mut error = Ref::from_response_name(ERROR);
            error.description = std::mem::take(&mut told.description);
            *response = RefOr::Ref(error);
        }
    }
}
