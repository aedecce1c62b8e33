//! Short lists in JSON or CSV: by `?format=`, else by `Accept`.

use std::time::SystemTime;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, StatusCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{self, Format};
use super::error::Refusal;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListFormat {
    Json,
    Csv,
}

/// The query string of a list that cannot be narrowed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Wins over `Accept`.
    #[param(inline)]
    pub(super) format: Option<ListFormat>,
}

/// A list as CSV.
pub(super) struct Csv<T> {
    pub(super) columns: &'static [&'static str],
    pub(super) fields: fn(&T) -> Vec<String>,
}

/// The list as it was asked for.
///
/// # Errors
/// 406 for a client that takes neither form.
pub(super) fn answer<T: Serialize>(
    items: &[T],
    csv: &Csv<T>,
    format: Option<ListFormat>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    Ok(match chosen(format, headers)? {
        ListFormat::Json => Json(items).into_response(),
        ListFormat::Csv => {
            let text = text(csv.columns, items.iter().map(csv.fields));
            ([(CONTENT_TYPE, Format::Csv.content_type())], text).into_response()
        }
    })
}

fn chosen(format: Option<ListFormat>, headers: &HeaderMap) -> Result<ListFormat, Refusal> {
    match (format, accept::negotiate_among(headers, &[Format::Json, Format::Csv])) {
        (Some(format), _) => Ok(format),
        (None, Some(Format::Csv)) => Ok(ListFormat::Csv),
        (None, Some(_)) => Ok(ListFormat::Json),
        (None, None) => {
            let message =
                "none of the accepted types can be answered: there is application/json and text/csv";
            Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message))
        }
    }
}

fn text(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = columns.join(",");
    text.push('\n');
    for row in rows {
        let fields: Vec<String> = row.iter().map(|field| quoted(field)).collect();
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// A CSV field, RFC 4180.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// RFC 3339, UTC.
pub(super) fn shown(moment: SystemTime) -> String {
    DateTime::<Utc>::from(moment).to_rfc3339_opts(SecondsFormat::Millis, true)
}
