//! Bytes of an answer whose table is kept as string views, beside the same rows as plain strings.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::FlightData;
use prost::Message;
use sidewing::cli::demo::tpch as data;

use crate::Result;
use crate::calls;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::report::Spread;
use crate::served::Served;
use crate::table::{Finding, Findings};
use crate::upstream;

pub const ROWS: &[&str] = &["wire-bytes"];

const SCALE: f64 = 0.1;
const TABLE: &str = "orders";
/// The same table, read from the upstream each time.
const FAR: &str = "orders_far";
/// What gRPC puts before each message.
const PREFIX_BYTES: usize = 5;

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let tables = data::tables(SCALE / bench.options.scale as f64)?;
    let served = Served::start(&tables).await?;
    let kept = dataset(&served.address, TABLE, "acceleration: {enabled: true}");
    let far = format!("  - from: spice.ai:http://{}/{TABLE}\n    name: {FAR}\n", served.address);
    let sidecar = bench.sidecar(NO_CACHE, &(kept + &far)).await?;
    let mut client = calls::connect(sidecar.address("flight")?).await?;
    let kept = calls::read(&mut client, &format!("SELECT * FROM {TABLE}")).await?.wire_bytes;
    let far = calls::read(&mut client, &format!("SELECT * FROM {FAR}")).await?.wire_bytes;
    sidecar.stop().await?;

    let found = tables.into_iter().find(|(name, ..)| *name == TABLE);
    let (_, schema, batches) = found.ok_or("no orders")?;
    let views = bytes(&upstream::encoded(Arc::clone(&schema), batches.clone()).await?);
    let plain = plain_schema(&schema);
    let compact = batches.iter().map(|batch| compacted(&plain, batch)).collect::<Result<_>>()?;
    let compact = bytes(&upstream::encoded(plain, compact).await?);
    let shown = |bytes: usize| format!("{:.2} MB", bytes as f64 / 1e6);
    let figures = format!(
        "kept {}, federated {}, compact utf8 {}; as the upstream sends views {}",
        shown(kept),
        shown(far),
        shown(compact),
        shown(views)
    );
    let ratio = Spread::of([kept as f64 / compact as f64].into_iter());
    Ok(vec![Finding { row: "wire-bytes", ratio: Some(ratio), figures }].into())
}

fn bytes(frames: &[FlightData]) -> usize {
    frames.iter().map(|frame| PREFIX_BYTES + frame.encoded_len()).sum()
}

/// The schema with strings for views.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn compacted(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<std::result::Result<_, _>>()?)?)
}
