//! The store against models of it. Rows are `(id, t, v)`: two numbers that may be NULL and a short text.

mod building;
mod grouping;
mod joining;
mod models;
mod querying;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// A row: key, time, value.
type Row = (Option<i64>, Option<i64>, String);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("v", DataType::Utf8, true),
    ]))
}

fn layout_of(keys: Vec<Key>) -> Arc<Layout> {
    let time = Some(Time { column: 1, format: TimeFormat::Timestamp });
    Arc::new(Layout::try_new("s.rows".parse().unwrap(), schema(), time, keys).unwrap())
}

fn primary(on_conflict: Option<OnConflict>) -> Key {
    Key { columns: vec![0], role: Role::Primary { on_conflict } }
}

fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
    Arc::new(GreedyMemoryPool::new(bytes))
}

fn budget() -> Budget {
    Budget::new("s.rows".parse().unwrap(), &pool(1 << 30))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(TimestampNanosecondArray::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// `n` rows that differ, from `from` on.
fn numbered(from: i64, n: i64) -> Vec<Row> {
    (from..from + n).map(|at| (Some(at), Some(at * 10), format!("v{at}"))).collect()
}

fn loaded(
    layout: &Arc<Layout>,
    previous: Option<&Arc<Generation>>,
    rows: &[Row],
) -> Result<Arc<Generation>, StoreError> {
    load(layout, previous, rows, &budget())
}

/// In small chunks, pushed in batches whose borders mean nothing.
fn load(
    layout: &Arc<Layout>,
    previous: Option<&Arc<Generation>>,
    rows: &[Row],
    budget: &Budget,
) -> Result<Arc<Generation>, StoreError> {
    let mut load = Load::begin(Arc::clone(layout), previous.cloned(), budget.clone()).in_small_chunks();
    for rows in rows.chunks(37) {
        load.push(&batch(rows))?;
    }
    load.finish()
}

fn appended(previous: &Arc<Generation>, rows: &[Row]) -> Result<Option<Arc<Generation>>, StoreError> {
    let mut append = Append::begin(Arc::clone(previous), budget());
    for rows in rows.chunks(5) {
        append.push(&batch(rows))?;
    }
    append.finish()
}

/// All rows in their order.
fn rows(generation: &Generation) -> Vec<Row> {
    generation.chunks().iter().flat_map(|chunk| rows_of(&chunk.batch().unwrap())).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let ids = batch.column(0).as_primitive::<Int64Type>();
    let times = batch.column(1).as_primitive::<TimestampNanosecondType>();
    let texts = batch.column(2).as_string::<i32>();
    let row = |at| {
        (
            ids.is_valid(at).then(|| ids.value(at)),
            times.is_valid(at).then(|| times.value(at)),
            texts.value(at).to_owned(),
        )
    };
    (0..batch.num_rows()).map(row).collect()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

/// Cases from `PROPTEST_RNG_SEED`, where it is set; more of them with `SIDEWING_LONG`.
fn runner(cases: u32) -> TestRunner {
    let cases = if std::env::var_os("SIDEWING_LONG").is_some() { cases * 50 } else { cases };
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}
