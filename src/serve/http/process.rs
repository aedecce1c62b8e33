//! `GET /v1/status`, `/v1/spicepods` and `/v1/catalogs`: the process itself.

use std::sync::Arc;

use ::http::HeaderMap;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::about::About;
use super::detailed::{self, Detailed};
use super::error::Refusal;
use super::extract::Params;
use super::listing::{self, Csv, ListFormat, ListParams};
use crate::federation::DEFAULT_CATALOG;
use crate::serve::Door;

/// What the tables of the one catalog come from.
const CATALOG_FROM: &str = "spicepod";

/// What is told of the process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) about: Arc<About>,
    /// Cancelled once no more connections are taken.
    pub(super) draining: CancellationToken,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CatalogParams {
    /// Only catalogs of this source.
    from: Option<String>,
    /// Wins over `Accept`.
    #[param(inline)]
    format: Option<ListFormat>,
}

/// A catalog that statements may name.
#[derive(Serialize, ToSchema)]
#[schema(as = Catalog)]
pub(super) struct CatalogItem {
    /// What its tables come from.
    #[schema(example = "spicepod")]
    from: &'static str,
    #[schema(example = "spice")]
    name: &'static str,
}

/// The spicepod that is served.
#[derive(Serialize, ToSchema)]
#[schema(as = Spicepod)]
pub(super) struct SpicepodItem {
    name: String,
    /// Of the spicepod's format.
    #[schema(example = "v1")]
    version: String,
    datasets_count: usize,
    views_count: usize,
}

/// A listener of the process.
#[derive(Serialize, ToSchema)]
#[schema(as = Listener)]
pub(super) struct ListenerItem {
    /// What is spoken there.
    #[schema(example = "http")]
    name: &'static str,
    #[schema(example = "127.0.0.1:8090")]
    endpoint: String,
    /// `Ready`, or `ShuttingDown` once no more connections are taken.
    #[schema(example = "Ready")]
    status: &'static str,
}

const CATALOGS: Csv<CatalogItem> =
    Csv { columns: &["from", "name"], fields: |item| vec![item.from.to_owned(), item.name.to_owned()] };

const SPICEPODS: Csv<SpicepodItem> = Csv {
    columns: &["name", "version", "datasets_count", "views_count"],
    fields: |item| {
        let (datasets, views) = (item.datasets_count.to_string(), item.views_count.to_string());
        vec![item.name.clone(), item.version.clone(), datasets, views]
    },
};

const LISTENERS: Csv<ListenerItem> = Csv {
    columns: &["name", "endpoint", "status"],
    fields: |item| vec![item.name.to_owned(), item.endpoint.clone(), item.status.to_owned()],
};

/// The catalogs that statements may name: the one that holds the spicepod's datasets and views.
#[utoipa::path(
    get,
    path = "/v1/catalogs",
    params(CatalogParams),
    responses(
        (status = 200, description = "The catalogs", content(
            (Vec<CatalogItem> = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query string cannot be read"),
        (status = 406, description = "Neither JSON nor CSV is accepted"),
    )
)]
pub(super) async fn catalogs(
    Params(params): Params<CatalogParams>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let all = [CatalogItem { from: CATALOG_FROM, name: DEFAULT_CATALOG }];
    let wanted = all.into_iter().filter(|item| params.from.as_deref().is_none_or(|from| item.from == from));
    listing::answer(&wanted.collect::<Vec<_>>(), &CATALOGS, params.format, &headers)
}

/// The spicepod that is served.
#[utoipa::path(
    get,
    path = "/v1/spicepods",
    params(ListParams),
    responses(
        (status = 200, description = "One spicepod", content(
            (Vec<SpicepodItem> = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query string cannot be read"),
        (status = 406, description = "Neither JSON nor CSV is accepted"),
    )
)]
pub(super) async fn spicepods<D: Door>(
    State(door): State<D>,
    Extension(process): Extension<Process>,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (views, datasets): (Vec<_>, Vec<_>) = door.datasets().into_iter().partition(|known| known.is_view);
    let about = &process.about.spicepod;
    let item = SpicepodItem {
        name: about.name.clone(),
        version: about.version.clone(),
        datasets_count: datasets.len(),
        views_count: views.len(),
    };
    listing::answer(&[item], &SPICEPODS, params.format, &headers)
}

/// What `/v1/status` answers: the listeners, or with `verbose` every part of the process.
#[derive(Serialize, ToSchema)]
#[schema(as = Status)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes two answers that are written elsewhere")]
pub(super) enum StatusAnswer {
    Listeners(Vec<ListenerItem>),
    Detailed(Detailed),
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusParams {
    /// Every part of the process in place of its listeners, as `/health/detailed`.
    #[serde(default)]
    verbose: bool,
    /// Wins over `Accept`.
    #[param(inline)]
    format: Option<ListFormat>,
}

/// The listeners of the process.
#[utoipa::path(
    get,
    path = "/v1/status",
    params(StatusParams),
    responses(
        (status = 200, description = "Every listener", content(
            (StatusAnswer = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query string cannot be read"),
        (status = 406, description = "Neither JSON nor CSV is accepted"),
        (status = 503, description = "With `verbose`: something is not answered", body = Detailed),
    )
)]
pub(super) async fn status<D: Door>(
    State(door): State<D>,
    Extension(process): Extension<Process>,
    Params(params): Params<StatusParams>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if params.verbose {
        return Ok(detailed::told(&door, &process));
    }
    let status = if process.draining.is_cancelled() { "ShuttingDown" } else { "Ready" };
    let listeners = process.about.listeners.iter();
    let items: Vec<_> = listeners
        .map(|listener| ListenerItem { name: listener.name, endpoint: listener.endpoint.clone(), status })
        .collect();
    listing::answer(&items, &LISTENERS, params.format, &headers)
}
