//! `GET /v1/datasets` and `GET /v1/views`: what can be asked, in which state it is, and how it is kept here.

use ::http::HeaderMap;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::Refusal;
use super::extract::Params;
use super::kept::ItemAcceleration;
use super::listing::{self, Csv, ListFormat, shown};
use crate::acceleration::Phase;
use crate::query::{DatasetState, DatasetStatus, QueryError};
use crate::serve::{Door, status};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DatasetsParams {
    /// With the state of each.
    #[serde(default)]
    status: bool,
    /// Wins over `Accept`.
    #[param(inline)]
    format: Option<ListFormat>,
    /// Only datasets of this connector, or with this `from`.
    source: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ViewsParams {
    /// With the state of each.
    #[serde(default)]
    status: bool,
    /// Wins over `Accept`.
    #[param(inline)]
    format: Option<ListFormat>,
}

/// One dataset, by the names that Spice.ai's clients know.
#[derive(Serialize, ToSchema)]
#[schema(as = Dataset)]
pub(super) struct Item {
    /// Of the spicepod, as written.
    from: String,
    name: String,
    /// Always false: what is kept here is called an acceleration.
    replication_enabled: bool,
    acceleration_enabled: bool,
    #[serde(flatten)]
    state: ItemState,
    /// Only with `status=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    acceleration: Option<ItemAcceleration>,
}

/// One view.
#[derive(Serialize, ToSchema)]
#[schema(as = View)]
pub(super) struct ViewItem {
    name: String,
    #[serde(flatten)]
    state: ItemState,
}

/// How a dataset or a view is; nothing without `status=true`.
#[derive(Serialize, ToSchema, Default)]
#[schema(as = State)]
pub(super) struct ItemState {
    /// `Initializing`, `Ready`, `Refreshing` or `Error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// When the error began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    since: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StateError)]
pub(super) struct ItemError {
    /// Whose it is: `dataset`.
    category: &'static str,
    /// Whether it may heal: `transient` or `permanent`.
    #[serde(rename = "type")]
    kind: &'static str,
    #[schema(example = "UpstreamConnect")]
    code: &'static str,
}

impl ItemState {
    fn of(dataset: &DatasetStatus) -> Self {
        let failed = dataset.acceleration.as_ref().filter(|kept| kept.phase == Phase::Error);
        let (error, since) = match &dataset.state {
            DatasetState::Error { reason, since, .. } => (Some(reason), Some(*since)),
            DatasetState::Initializing | DatasetState::Ready => (None, None),
        };
        Self {
            status: Some(dataset.phase().word()),
            error: error.map(|error| ItemError::of(error)),
            error_message: failed
                .and_then(|kept| kept.reason.clone())
                .or_else(|| error.map(|error| status::message(error))),
            since: since.map(shown),
        }
    }
}

impl ItemError {
    fn of(error: &QueryError) -> Self {
        let verdict = status::of(error);
        let kind = if verdict.passes { "transient" } else { "permanent" };
        Self { category: "dataset", kind, code: verdict.code }
    }
}

const DATASETS: Csv<Item> =
    Csv { columns: &["from", "name", "replication_enabled", "acceleration_enabled"], fields: Item::fields };

const DATASETS_WITH_STATE: Csv<Item> = Csv {
    columns: &["from", "name", "replication_enabled", "acceleration_enabled", "status", "error_message"],
    fields: |item| [item.fields(), item.state.fields()].concat(),
};

const VIEWS: Csv<ViewItem> = Csv { columns: &["name"], fields: |item| vec![item.name.clone()] };

const VIEWS_WITH_STATE: Csv<ViewItem> = Csv {
    columns: &["name", "status", "error_message"],
    fields: |item| [vec![item.name.clone()], item.state.fields()].concat(),
};

impl Item {
    fn fields(&self) -> Vec<String> {
        let (replicated, accelerated) = (self.replication_enabled, self.acceleration_enabled);
        vec![self.from.clone(), self.name.clone(), replicated.to_string(), accelerated.to_string()]
    }
}

impl ItemState {
    fn fields(&self) -> Vec<String> {
        let status = self.status.unwrap_or_default().to_owned();
        vec![status, self.error_message.clone().unwrap_or_default()]
    }
}

/// The datasets of the spicepod; views are not among them.
#[utoipa::path(
    get,
    path = "/v1/datasets",
    params(DatasetsParams),
    responses(
        (status = 200, description = "The datasets", content(
            (Vec<Item> = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query string cannot be read"),
        (status = 406, description = "Neither JSON nor CSV is accepted"),
    )
)]
pub(super) async fn datasets<D: Door>(
    State(door): State<D>,
    Params(params): Params<DatasetsParams>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let listed = door.datasets().into_iter().filter(|dataset| !dataset.is_view);
    let wanted = listed.filter(|dataset| is_from(&dataset.from, params.source.as_deref()));
    let items: Vec<Item> = wanted.map(|dataset| item(dataset, params.status)).collect();
    let csv = if params.status { DATASETS_WITH_STATE } else { DATASETS };
    listing::answer(&items, &csv, params.format, &headers)
}

/// The views of the spicepod.
#[utoipa::path(
    get,
    path = "/v1/views",
    params(ViewsParams),
    responses(
        (status = 200, description = "The views", content(
            (Vec<ViewItem> = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query string cannot be read"),
        (status = 406, description = "Neither JSON nor CSV is accepted"),
    )
)]
pub(super) async fn views<D: Door>(
    State(door): State<D>,
    Params(params): Params<ViewsParams>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let listed = door.datasets().into_iter().filter(|dataset| dataset.is_view);
    let items =
        listed.map(|view| ViewItem { name: view.name.to_string(), state: state(&view, params.status) });
    let csv = if params.status { VIEWS_WITH_STATE } else { VIEWS };
    listing::answer(&items.collect::<Vec<_>>(), &csv, params.format, &headers)
}

/// Whether a dataset comes `from` this source: the connector's name, or the whole text.
fn is_from(from: &str, source: Option<&str>) -> bool {
    let connector = from.split([':', '/']).next();
    source.is_none_or(|source| from == source || connector == Some(source))
}

fn item(dataset: DatasetStatus, with_state: bool) -> Item {
    let kept = dataset.acceleration.as_ref();
    Item {
        name: dataset.name.to_string(),
        replication_enabled: false,
        acceleration_enabled: kept.is_some(),
        acceleration: kept.filter(|_| with_state).map(ItemAcceleration::of),
        state: state(&dataset, with_state),
        from: dataset.from,
    }
}

fn state(dataset: &DatasetStatus, with_state: bool) -> ItemState {
    match with_state {
        true => ItemState::of(dataset),
        false => ItemState::default(),
    }
}
