//! The JSON Schema of a spicepod, for editors; made from the same table as the check.

use serde_json::{Map, Value, json};

use super::fields::SPICEPOD;
use super::params::{ParamForm, connector_params};
use super::schema::{Field, Kind, Support, Zero};
use super::types::Connector;

/// The JSON Schema (draft 2020-12) of a spicepod.
///
/// ```
/// let schema = sidewing::config::json_schema();
/// assert_eq!(schema["required"][0], "version");
/// ```
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "Spicepod of sidewing".into());
    schema.extend(object(SPICEPOD));
    Value::Object(schema)
}

fn object(fields: &[Field]) -> Map<String, Value> {
    let known = || fields.iter().filter(|field| !matches!(field.support, Support::Renamed(_)));
    let properties: Map<String, Value> =
        known().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = known().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("additionalProperties".into(), false.into());
    schema.insert("properties".into(), properties.into());
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = kind(&field.kind);
    let mark = match field.support {
        Support::Built | Support::Toggled | Support::Renamed(_) => String::new(),
        Support::NotYet([]) => "Not supported yet. ".to_owned(),
        Support::NotYet(off) => format!("Not supported yet, except for `{}`. ", off.join("`, `")),
        Support::Switch { .. } => "Not supported yet, except for `enabled: false`. ".to_owned(),
    };
    schema.insert("description".into(), format!("{mark}{}", field.doc).into());
    schema.into()
}

/// The schema of one kind, without a description.
fn kind(kind: &Kind) -> Map<String, Value> {
    let schema = match kind {
        Kind::Text | Kind::Bind | Kind::BindOrSocket | Kind::Cron => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::OnOff => json!({"enum": ["on", "off", true, false]}),
        Kind::Int(least) => json!({"type": "integer", "minimum": least}),
        Kind::Number => json!({"type": "number", "minimum": 0}),
        Kind::Duration(zero) => amount(*zero, &["30s", "1h30m"]),
        Kind::Size(zero) => amount(*zero, &["4MB", "16MiB"]),
        Kind::OneOf(values) => json!({"enum": values}),
        Kind::Choice { built, .. } => json!({"enum": built}),
        Kind::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Kind::TextOrList => json!({"type": ["string", "array"], "items": {"type": "string"}}),
        Kind::Any => json!({}),
        Kind::List(item) => json!({"type": "array", "items": self::kind(item)}),
        Kind::MapOf(value) => json!({"type": "object", "additionalProperties": self::kind(value)}),
        Kind::Fields(fields) | Kind::FieldsOrList(fields, _) => return object(fields),
        Kind::OpenFields(fields, other) => {
            let mut schema = object(fields);
            schema.insert("additionalProperties".into(), self::kind(other).into());
            return schema;
        }
        Kind::Params => return params(),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// Text with a unit, or a bare number.
fn amount(zero: Zero, examples: &[&str]) -> Value {
    match zero {
        Zero::Allowed => json!({"type": ["string", "number"], "minimum": 0, "examples": examples}),
        Zero::Refused => json!({"type": ["string", "number"], "exclusiveMinimum": 0, "examples": examples}),
    }
}

/// The params of every connector, as users write them.
fn params() -> Map<String, Value> {
    let mut properties = Map::new();
    for connector in [Connector::SpiceAi, Connector::FlightSql] {
        for spec in connector_params(connector) {
            let schema = match spec.form {
                ParamForm::Text => json!({"type": ["string", "number", "boolean"], "description": spec.doc}),
                ParamForm::Size => json!({"type": ["string", "number"], "description": spec.doc}),
                ParamForm::Duration => {
                    let mut schema = amount(Zero::Refused, &["60s"]);
                    schema["description"] = spec.doc.into();
                    schema
                }
                // A reference to a secret store may stand here as well.
                ParamForm::OneOf(values) => {
                    json!({"anyOf": [{"enum": values}, {"pattern": "\\$\\{"}], "description": spec.doc})
                }
            };
            if spec.bare {
                properties.insert(spec.name.to_owned(), schema.clone());
            }
            properties.insert(spec.written(connector), schema);
        }
    }
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("additionalProperties".into(), false.into());
    schema.insert("properties".into(), properties.into());
    schema
}
