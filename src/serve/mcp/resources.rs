//! Datasets and views as resources: a list of them leaves, a URI enters, columns and state leave.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde::Serialize;

use super::names;
use super::rows::Column;
use super::tools::{Asker, Dataset};
use crate::name::DatasetName;
use crate::query::DatasetStatus;
use crate::serve::Door;

const PREFIX: &str = "sidewing://dataset/";
const JSON: &str = "application/json";

/// What a resource holds.
#[derive(Serialize)]
struct Read {
    #[serde(flatten)]
    dataset: Dataset,
    /// None where they are not known.
    columns: Option<Vec<Column>>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns_error: Option<String>,
}

/// One resource for each dataset and view.
pub(super) fn list<D: Door>(asker: &Asker<'_, D>) -> Vec<Resource> {
    asker.door.datasets().iter().map(|dataset| resource(asker, dataset)).collect()
}

fn resource<D: Door>(asker: &Asker<'_, D>, dataset: &DatasetStatus) -> Resource {
    let kind = if dataset.is_view { "view" } else { "dataset" };
    let description = asker.descriptions.get(&dataset.name.to_string()).cloned();
    Resource::new(uri(&dataset.name), names::shown(&dataset.name))
        .with_description(description.unwrap_or_else(|| format!("The columns and the state of this {kind}.")))
        .with_mime_type(JSON)
}

/// How their URIs are made.
pub(super) fn template() -> ResourceTemplate {
    ResourceTemplate::new(format!("{PREFIX}{{name}}"), "dataset")
        .with_description("The columns and the state of a dataset or view, by its name.")
        .with_mime_type(JSON)
}

/// What is known of the dataset or view at `uri`.
///
/// # Errors
/// There is none.
pub(super) async fn read<D: Door>(asker: &Asker<'_, D>, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let datasets = asker.door.datasets();
    let found = datasets.iter().find(|dataset| self::uri(&dataset.name) == uri).ok_or_else(|| {
        let message = format!("there is no resource {uri}: resources/list names all of them");
        ErrorData::resource_not_found(message, None)
    })?;
    let (columns, columns_error) = match asker.columns(found).await {
        Ok(columns) => (Some(columns), None),
        Err(failure) => (None, Some(failure.message().to_owned())),
    };
    let read = Read { dataset: asker.shown(found), columns, columns_error };
    let text = serde_json::to_string_pretty(&read).map_err(|error| {
        ErrorData::internal_error(format!("the resource cannot be written: {error}"), None)
    })?;
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(JSON)]))
}

/// The URI of a dataset or view; its name percent-encoded (RFC 3986 section 2.1), so that it is one segment.
fn uri(name: &DatasetName) -> String {
    use std::fmt::Write as _;
    let mut uri = PREFIX.to_owned();
    for byte in names::shown(name).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            other => {
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment() {
        let of = |text: &str| uri(&text.parse().unwrap());
        assert_eq!(of("sales.orders"), "sidewing://dataset/sales.orders");
        assert_eq!(of(r#""Größe/1""#), "sidewing://dataset/%22Gr%C3%B6%C3%9Fe%2F1%22");
    }
}
