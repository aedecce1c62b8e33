//! `runtime.task_history`, with the columns of the public runtime.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::Result;
use serde::Serialize;

use super::{Snapshot, nanoseconds, written};
use crate::telemetry::{Context, Ids, Labels, Task, Tracer};

#[derive(Serialize)]
struct Row<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    task: &'a str,
    input: &'a str,
    captured_output: Option<&'a str>,
    start_time: i64,
    end_time: i64,
    execution_duration_ms: f64,
    error_message: Option<&'a str>,
    labels: &'a Labels,
}

pub(super) fn table(tracer: &Tracer) -> Snapshot {
    let history = tracer.history().clone();
    let rows = move |asker: Option<Context>, schema: &SchemaRef| -> Result<_> {
        let tasks = history.tasks();
        let seen = tasks.iter().filter(|task| asker.as_ref().is_none_or(|asker| asker.may_see(task)));
        written(&seen.map(|task| Row::of(task)).collect::<Vec<_>>(), schema)
    };
    Snapshot { name: "task_history", schema: schema(), rows: Arc::new(rows) }
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None), false);
    let entry = vec![text("keys"), Field::new("values", DataType::Utf8, true)];
    let entries = Field::new("entries", DataType::Struct(entry.into()), false);
    Arc::new(Schema::new(vec![
        text("trace_id"),
        text("span_id"),
        text("parent_span_id").with_nullable(true),
        text("task"),
        text("input"),
        text("captured_output").with_nullable(true),
        time("start_time"),
        time("end_time"),
        Field::new("execution_duration_ms", DataType::Float64, false),
        text("error_message").with_nullable(true),
        Field::new("labels", DataType::Map(Arc::new(entries), false), false),
    ]))
}

impl<'a> Row<'a> {
    fn of(task: &'a Task) -> Self {
        let Task { ids, parent, task: kind, input, output, error, labels, .. } = task;
        Self {
            trace_id: ids.trace_id(),
            span_id: ids.span_id(),
            parent_span_id: parent.map(|span| Ids { span, ..*ids }.span_id()),
            task: kind,
            input,
            captured_output: output.as_deref(),
            start_time: nanoseconds(task.started),
            end_time: nanoseconds(task.ended()),
            execution_duration_ms: task.took.as_secs_f64() * 1e3,
            error_message: error.as_deref(),
            labels,
        }
    }
}
