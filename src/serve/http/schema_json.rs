//! An Arrow schema as JSON, in the form that arrow-rs and the public runtime write.
//!
//! Made here, because the feature of `arrow-schema` that makes it is all or nothing for the whole tree.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, TimeUnit, UnionMode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// The schema of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArrowSchema {
    fields: Vec<ArrowField>,
    metadata: BTreeMap<String, String>,
}

/// One column, or what is within one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArrowField {
    name: String,
    /// A name where the type has no parameters, else an object with one key: `{"Decimal128": [38, 2]}`.
    #[schema(example = "Int64")]
    data_type: Value,
    nullable: bool,
    /// Always 0: Arrow does without.
    dict_id: i64,
    dict_is_ordered: bool,
    metadata: BTreeMap<String, String>,
}

impl ArrowSchema {
    pub(super) fn of(schema: &Schema) -> Self {
        let metadata = schema.metadata().clone().into_iter().collect();
        Self { fields: schema.fields().iter().map(|field| ArrowField::of(field)).collect(), metadata }
    }
}

impl ArrowField {
    fn of(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            data_type: data_type(field.data_type()),
            nullable: field.is_nullable(),
            dict_id: 0,
            dict_is_ordered: field.dict_is_ordered().unwrap_or(false),
            metadata: field.metadata().clone().into_iter().collect(),
        }
    }
}

fn field(of: &FieldRef) -> Value {
    json!(ArrowField::of(of))
}

fn fields(of: &Fields) -> Value {
    of.iter().map(field).collect()
}

/// As serde's derive writes the enum: a word without parameters, else the word with them.
fn data_type(of: &DataType) -> Value {
    match of {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Date64
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => json!(format!("{of:?}")),
        DataType::Timestamp(unit, zone) => json!({ "Timestamp": [time_unit(*unit), zone.as_deref()] }),
        DataType::Time32(unit) => json!({ "Time32": time_unit(*unit) }),
        DataType::Time64(unit) => json!({ "Time64": time_unit(*unit) }),
        DataType::Duration(unit) => json!({ "Duration": time_unit(*unit) }),
        DataType::Interval(unit) => json!({ "Interval": interval_unit(*unit) }),
        DataType::FixedSizeBinary(size) => json!({ "FixedSizeBinary": size }),
        DataType::Decimal32(precision, scale) => json!({ "Decimal32": [precision, scale] }),
        DataType::Decimal64(precision, scale) => json!({ "Decimal64": [precision, scale] }),
        DataType::Decimal128(precision, scale) => json!({ "Decimal128": [precision, scale] }),
        DataType::Decimal256(precision, scale) => json!({ "Decimal256": [precision, scale] }),
        nested => nested_type(nested),
    }
}

fn nested_type(of: &DataType) -> Value {
    match of {
        DataType::List(item) => json!({ "List": field(item) }),
        DataType::ListView(item) => json!({ "ListView": field(item) }),
        DataType::LargeList(item) => json!({ "LargeList": field(item) }),
        DataType::LargeListView(item) => json!({ "LargeListView": field(item) }),
        DataType::FixedSizeList(item, size) => json!({ "FixedSizeList": [field(item), size] }),
        DataType::Struct(children) => json!({ "Struct": fields(children) }),
        DataType::Map(entries, ordered) => json!({ "Map": [field(entries), ordered] }),
        DataType::Dictionary(key, value) => json!({ "Dictionary": [data_type(key), data_type(value)] }),
        DataType::RunEndEncoded(ends, values) => json!({ "RunEndEncoded": [field(ends), field(values)] }),
        DataType::Union(children, mode) => {
            let mode = match mode {
                UnionMode::Sparse => "Sparse",
                UnionMode::Dense => "Dense",
            };
            let children: Vec<Value> = children.iter().map(|(id, child)| json!([id, field(child)])).collect();
            json!({ "Union": [children, mode] })
        }
        // All others are written by `data_type`.
        plain => json!(plain.to_string()),
    }
}

fn time_unit(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "Second",
        TimeUnit::Millisecond => "Millisecond",
        TimeUnit::Microsecond => "Microsecond",
        TimeUnit::Nanosecond => "Nanosecond",
    }
}

fn interval_unit(unit: IntervalUnit) -> &'static str {
    match unit {
        IntervalUnit::YearMonth => "YearMonth",
        IntervalUnit::DayTime => "DayTime",
        IntervalUnit::MonthDayNano => "MonthDayNano",
    }
}
