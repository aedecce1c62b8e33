//! Families of numbers enter, OTLP's metrics leave. Counters and histograms are cumulative since the process began.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{attribute, nanoseconds};
use crate::telemetry::metrics::{Family, Kind, Number, Series};

/// When numbers began, and when they were read.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    now: u64,
}

pub(super) fn request(
    resource: Resource,
    scope: Option<InstrumentationScope>,
    families: &[Family],
    started: SystemTime,
) -> ExportMetricsServiceRequest {
    let span = Span { start: nanoseconds(started), now: nanoseconds(SystemTime::now()) };
    let metrics = families.iter().map(|family| metric(family, span)).collect();
    let scope_metrics = vec![ScopeMetrics { scope, metrics, schema_url: String::new() }];
    let all = ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }
}

fn metric(family: &Family, span: Span) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let numbers = || family.series.iter().filter_map(|series| number(series, span)).collect();
    let data = match family.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers(), aggregation_temporality, is_monotonic: true })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => {
            let data_points = family.series.iter().filter_map(|series| histogram(series, span)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }
    };
    Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        unit: ucum(family.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(series: &Series, span: Span) -> Option<NumberDataPoint> {
    let value = match series.number {
        Number::Counter(count) => Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
        Number::Gauge(value) => Value::AsDouble(value),
        Number::Histogram(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: span.start,
        time_unix_nano: span.now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(series: &Series, span: Span) -> Option<HistogramDataPoint> {
    let Number::Histogram(counted) = &series.number else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: span.start,
        time_unix_nano: span.now,
        count: counted.count(),
        sum: Some(counted.sum),
        bucket_counts: counted.counts.clone(),
        explicit_bounds: counted.bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(series: &Series) -> Vec<KeyValue> {
    series.labels.iter().map(|(key, value)| attribute(key, value)).collect()
}

/// Units as OpenTelemetry writes them.
fn ucum(unit: &str) -> &'static str {
    match unit {
        "bytes" => "By",
        "milliseconds" => "ms",
        "seconds" => "s",
        _ => "",
    }
}
