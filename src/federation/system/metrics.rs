//! `runtime.metrics`, with the columns of the public runtime, which are OpenTelemetry's: a row for each series, as it is
//! now.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::error::Result;
use serde::Serialize;

use super::{Snapshot, nanoseconds, written};
use crate::telemetry::{Context, Family, Kind, Number, Registry, Series};

/// OpenTelemetry's number for it; a gauge has none.
const CUMULATIVE: i32 = 2;

#[derive(Serialize)]
struct Row<'a> {
    time_unix_nano: i64,
    start_time_unix_nano: i64,
    resource: Resource,
    scope: Scope,
    schema_url: &'static str,
    /// 1 gauge, 2 sum, 3 histogram.
    metric_type: u8,
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    aggregation_temporality: Option<i32>,
    is_monotonic: Option<bool>,
    flags: u32,
    attributes: Vec<Attribute<'a>>,
    data_number: Option<NumberColumn>,
    data_histogram: Option<HistogramColumn<'a>>,
}

#[derive(Serialize)]
struct Resource {
    schema_url: &'static str,
    attributes: Vec<Attribute<'static>>,
    dropped_attributes_count: u32,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
    attributes: Vec<Attribute<'static>>,
    dropped_attributes_count: u32,
}

/// All values here are texts; the other columns are for those who know no text only.
#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    r#type: u8,
    str: &'a str,
}

#[derive(Serialize)]
struct NumberColumn {
    int_value: Option<i64>,
    double_value: Option<f64>,
}

#[derive(Serialize)]
struct HistogramColumn<'a> {
    count: u64,
    sum: f64,
    bucket_counts: &'a [u64],
    explicit_bounds: &'a [f64],
}

pub(super) fn table(registry: &Registry) -> Snapshot {
    let registry = registry.clone();
    let rows = move |_: Option<Context>, schema: &SchemaRef| -> Result<_> {
        let families = registry.families();
        let now = nanoseconds(SystemTime::now());
        let start = nanoseconds(registry.started());
        let rows = families
            .iter()
            .flat_map(|family| family.series.iter().map(move |series| Row::of(family, series, start, now)));
        written(&rows.collect::<Vec<_>>(), schema)
    };
    Snapshot { name: "metrics", schema: schema(), rows: Arc::new(rows) }
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let time = |name: &str| {
        field(name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))).with_nullable(false)
    };
    let dropped = || field("dropped_attributes_count", DataType::UInt32);
    let resource = vec![field("schema_url", DataType::Utf8), attributes(), dropped()];
    let scope =
        vec![field("name", DataType::Utf8), field("version", DataType::Utf8), attributes(), dropped()];
    let list = |name: &str, of: DataType| field(name, DataType::List(Arc::new(field("item", of))));
    let number = vec![field("int_value", DataType::Int64), field("double_value", DataType::Float64)];
    let histogram = vec![
        field("count", DataType::UInt64),
        field("sum", DataType::Float64),
        list("bucket_counts", DataType::UInt64),
        list("explicit_bounds", DataType::Float64),
    ];
    let group = |name: &str, fields: Vec<Field>| field(name, DataType::Struct(Fields::from(fields)));
    Arc::new(Schema::new(vec![
        time("time_unix_nano"),
        time("start_time_unix_nano"),
        group("resource", resource),
        group("scope", scope),
        field("schema_url", DataType::Utf8),
        field("metric_type", DataType::UInt8),
        field("name", DataType::Utf8).with_nullable(false),
        field("description", DataType::Utf8),
        field("unit", DataType::Utf8),
        field("aggregation_temporality", DataType::Int32),
        field("is_monotonic", DataType::Boolean),
        field("flags", DataType::UInt32),
        attributes(),
        group("data_number", number),
        group("data_histogram", histogram),
    ]))
}

fn attributes() -> Field {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let attribute = vec![
        field("key", DataType::Utf8),
        field("type", DataType::UInt8),
        field("str", DataType::Utf8),
        field("int", DataType::Int64),
        field("double", DataType::Float64),
        field("bool", DataType::Boolean),
        field("bytes", DataType::Binary),
        field("ser", DataType::Binary),
    ];
    field("attributes", DataType::List(Arc::new(field("item", DataType::Struct(attribute.into())))))
}

impl<'a> Row<'a> {
    fn of(family: &'a Family, series: &'a Series, start: i64, now: i64) -> Self {
        let is_gauge = family.kind == Kind::Gauge;
        let attributes = series.labels.iter().map(|(key, value)| Attribute::new(key, value));
        let (number, histogram) = columns(&series.number);
        Self {
            time_unix_nano: now,
            start_time_unix_nano: start,
            resource: Resource {
                schema_url: "",
                attributes: vec![Attribute::new("service.name", "sidewing")],
                dropped_attributes_count: 0,
            },
            scope: Scope {
                name: "sidewing",
                version: env!("CARGO_PKG_VERSION"),
                attributes: Vec::new(),
                dropped_attributes_count: 0,
            },
            schema_url: "",
            metric_type: match family.kind {
                Kind::Gauge => 1,
                Kind::Counter => 2,
                Kind::Histogram => 3,
            },
            name: &family.name,
            description: &family.help,
            unit: family.unit,
            aggregation_temporality: (!is_gauge).then_some(CUMULATIVE),
            is_monotonic: (family.kind == Kind::Counter).then_some(true),
            flags: 0,
            attributes: attributes.collect(),
            data_number: number,
            data_histogram: histogram,
        }
    }
}

fn columns(number: &Number) -> (Option<NumberColumn>, Option<HistogramColumn<'_>>) {
    match number {
        Number::Counter(count) => {
            let int_value = Some(i64::try_from(*count).unwrap_or(i64::MAX));
            (Some(NumberColumn { int_value, double_value: None }), None)
        }
        Number::Gauge(value) => {
            // JSON, by which rows become Arrow, has no infinity.
            let double_value = Some(*value).filter(|value| value.is_finite());
            (Some(NumberColumn { int_value: None, double_value }), None)
        }
        Number::Histogram(counted) => {
            let histogram = HistogramColumn {
                count: counted.count(),
                sum: counted.sum,
                bucket_counts: &counted.counts,
                explicit_bounds: counted.bounds,
            };
            (None, Some(histogram))
        }
    }
}

impl<'a> Attribute<'a> {
    fn new(key: &'a str, value: &'a str) -> Self {
        Self { key, r#type: 1, str: value }
    }
}
