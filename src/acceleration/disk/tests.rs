//! What a folder promises, seen through its door; files are real unless a test says otherwise.

mod damage;
mod faults;
mod modes;
mod scans;
pub mod sim;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

use super::super::chunk_id::ChunkId;
use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

/// A chunk of rows `from..to` under a new id.
fn chunk(from: i64, to: i64) -> (ChunkId, RecordBatch) {
    let ids = Int64Array::from_iter_values(from..to);
    let names = StringArray::from_iter((from..to).map(|id| (id % 3 != 0).then(|| format!("name {id}"))));
    (ChunkId::fresh(), RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap())
}

fn commit(number: u64) -> Commit {
    let number_ns = i64::try_from(number).unwrap() * 1_000;
    let resume = Some(Bytes::from(number.to_le_bytes().to_vec()));
    Commit { number, schema: schema(), watermark: Some(number_ns), resume }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.to_owned(),
        mode: Mode::File,
        residence: Residence::Memory,
        definition: "from: here".to_owned(),
        adopts: None,
        memory_bytes_max: None,
    }
}

/// The rows of a restored generation, chunk by chunk.
fn rows(restored: &Restored) -> Vec<RecordBatch> {
    match &restored.chunks {
        Chunks::Memory(chunks) => chunks.iter().map(|(_, batch)| batch.clone()).collect(),
        Chunks::Files(_) => panic!("rows were asked for in memory"),
    }
}

fn batches(chunks: &[(ChunkId, RecordBatch)]) -> Vec<RecordBatch> {
    chunks.iter().map(|(_, batch)| batch.clone()).collect()
}

/// Names in the folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
