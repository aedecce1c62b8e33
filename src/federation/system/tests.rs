//! The tables over telemetry of their own, asked by SQL.

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

async fn asked(telemetry: &Telemetry, sql: &str) -> String {
    let config = SessionConfig::new().with_default_catalog_and_schema("spice", "public");
    let context = SessionContext::new_with_config(config.with_create_default_catalog_and_schema(false));
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(RUNTIME, schema(telemetry).unwrap()).unwrap();
    context.register_catalog("spice", Arc::new(catalog));
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn metrics_are_rows_of_opentelemetrys_columns() {
    let telemetry = Telemetry::default();
    ::metrics::with_local_recorder(&telemetry.registry, || {
        ::metrics::counter!("query_failures", "protocol" => "http", "err_code" => "SyntaxError").increment(2);
        ::metrics::gauge!("query_memory_limit_bytes").set(1.5);
        ::metrics::histogram!("query_duration_ms", "protocol" => "mcp").record(3.0);
    });
    let sql = "SELECT name, unit, metric_type AS type, is_monotonic AS mono, data_number['int_value'] AS int, \
               data_number['double_value'] AS double, data_histogram['count'] AS count, attributes[1]['str'] AS first \
               FROM runtime.metrics WHERE name IN ('query_failures', 'query_failures_total', 'query_memory_limit_bytes', \
               'query_duration_ms') AND (data_number['int_value'] > 0 OR data_number['double_value'] > 0 OR \
               data_histogram['count'] > 0) ORDER BY name";
    insta::assert_snapshot!(asked(&telemetry, sql).await);
    let all = asked(&telemetry, "SELECT * FROM spice.runtime.metrics LIMIT 1").await;
    assert!(all.contains("time_unix_nano"), "{all}");
}

#[tokio::test]
async fn tasks_are_rows_with_a_map_of_labels() {
    let telemetry = Telemetry::default();
    assert!(asked(&telemetry, "SELECT count(*) AS n FROM runtime.task_history").await.contains("| 0 |"));
    let span = telemetry.tracer.start("sql_query", "SELECT 1", None);
    let call = span.context().child("flight_request", "SELECT 1 FROM t");
    call.context().label("rows", "3");
    call.fail("away");
    drop((call, span));
    let sql = "SELECT c.task, c.input, c.error_message, c.labels['rows'] AS rows, c.parent_span_id = p.span_id AS hangs, \
               c.trace_id = p.trace_id AS same, c.end_time >= c.start_time AS lasts, p.parent_span_id IS NULL AS first \
               FROM runtime.task_history c JOIN runtime.task_history p ON c.task = 'flight_request' AND p.task = 'sql_query'";
    insta::assert_snapshot!(asked(&telemetry, sql).await);
}
