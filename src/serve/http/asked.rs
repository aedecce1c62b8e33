//! The statement of a request: a body and its Content-Type enter, SQL with parameters leaves.

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{OneOfBuilder, RefOr, Schema, schema};

use super::error::Refusal;
use crate::query::{Parameters, Request};

/// As many as PostgreSQL binds. JSON nests 128 deep at most: `serde_json` reads no deeper.
pub(super) const PARAMETERS_MAX: usize = 65_535;

/// Some editors put it before a text; it is no part of the statement.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A statement with its parameters.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    #[schema(example = "SELECT * FROM orders WHERE id = $1")]
    sql: String,
    #[serde(default)]
    #[schema(schema_with = parameters_schema, required = false)]
    parameters: Value,
}

/// A list for `$1, $2` and `?`, an object for `$name`; 65535 at most.
fn parameters_schema() -> RefOr<Schema> {
    let scalar = [schema::Type::String, schema::Type::Number, schema::Type::Boolean, schema::Type::Null];
    let scalar = || schema::ObjectBuilder::new().schema_type(SchemaType::from_iter(scalar.clone()));
    let positional = schema::ArrayBuilder::new()
        .items(scalar())
        .max_items(Some(PARAMETERS_MAX))
        .description(Some("The values of `$1, $2` or `?`"));
    let named = schema::ObjectBuilder::new()
        .additional_properties(Some(RefOr::T(Schema::Object(scalar().build()))))
        .max_properties(Some(PARAMETERS_MAX))
        .description(Some("The values of `$name`"));
    let none = schema::ObjectBuilder::new().schema_type(schema::Type::Null);
    OneOfBuilder::new().item(positional).item(named).item(none).examples([json!([1])]).into()
}

/// A JSON request where Content-Type says so; otherwise the body is the statement, whatever its type
/// (curl's `-d` calls it a form).
///
/// # Errors
/// 400.
pub(super) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let request = match is_json(headers) {
        true => decode_json(body)?,
        false => {
            let sql = std::str::from_utf8(body)
                .map_err(|_| Refusal::bad("BodyNotUtf8", "the statement is not UTF-8 text"))?
                .to_owned();
            Request::new(sql)
        }
    };
    match request.sql.trim().is_empty() {
        true => Err(Refusal::bad("EmptyStatement", "the statement is empty: send SQL, for example SELECT 1")),
        false => Ok(request),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn decode_json(body: &[u8]) -> Result<Request, Refusal> {
    let expected = r#"expected {"sql": "…", "parameters": […] or {…}}"#;
    let bad = |message: String| Refusal::bad("BodyNotJson", message);
    let SqlRequest { sql, parameters } = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the request body: {error}; {expected}")))?;
    let (parameters, count) = match parameters {
        Value::Null => (Parameters::None, 0),
        Value::Array(values) => {
            let count = values.len();
            (Parameters::Positional(values), count)
        }
        Value::Object(values) => {
            let count = values.len();
            (Parameters::Named(values), count)
        }
        _ => return Err(bad(format!("`parameters` is no list and no object; {expected}"))),
    };
    if count > PARAMETERS_MAX {
        let message = format!("{count} parameters are more than {PARAMETERS_MAX}: send fewer at a time");
        return Err(Refusal::bad("TooManyParameters", message));
    }
    Ok(Request { parameters, ..Request::new(sql) })
}
