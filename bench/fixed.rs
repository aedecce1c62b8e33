//! Two tables of the bench's upstream that never change.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use tonic::Status;

use crate::Result;
use crate::upstream::{BATCH_ROWS, Tables, encoded};

/// Three 64-bit numbers, a string of 20 bytes and its offset.
const ROW_BYTES: usize = 3 * 8 + 20 + 4;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    OneRow,
    HundredMegabytes,
}

impl Table {
    const ALL: [Self; 2] = [Self::OneRow, Self::HundredMegabytes];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneRow => "one_row",
            Self::HundredMegabytes => "hundred_megabytes",
        }
    }

    pub fn rows(self) -> usize {
        match self {
            Self::OneRow => 1,
            Self::HundredMegabytes => 100_000_000_usize.div_ceil(ROW_BYTES),
        }
    }

    /// The Arrow data of the whole table.
    pub fn bytes(self) -> usize {
        self.rows() * ROW_BYTES
    }
}

/// All of them, as they go out.
pub struct Fixed(Vec<(Table, SchemaRef, Vec<FlightData>)>);

impl Fixed {
    pub async fn new() -> Result<Self> {
        let mut all = Vec::new();
        for table in Table::ALL {
            let starts = (0..table.rows()).step_by(BATCH_ROWS);
            let batches: Vec<RecordBatch> = starts
                .map(|first| batch(first..table.rows().min(first + BATCH_ROWS)))
                .collect::<Result<_>>()?;
            let schema = batches.first().ok_or("a table without rows")?.schema();
            all.push((table, Arc::clone(&schema), encoded(schema, batches).await?));
        }
        Ok(Self(all))
    }

    /// The table that a statement or a path names.
    fn find(&self, text: &str) -> Result<&(Table, SchemaRef, Vec<FlightData>), Status> {
        let found = self.0.iter().find(|(table, ..)| text.contains(table.name()));
        found.ok_or_else(|| Status::not_found(format!("no table in: {text}")))
    }
}

impl Tables for Fixed {
    fn schema(&self, text: &str) -> Result<SchemaRef, Status> {
        Ok(Arc::clone(&self.find(text)?.1))
    }

    fn frames(&self, text: &str) -> Result<Vec<FlightData>, Status> {
        Ok(self.find(text)?.2.clone())
    }
}

fn batch(rows: std::ops::Range<usize>) -> Result<RecordBatch> {
    let ids: Vec<i64> = rows.map(i64::try_from).collect::<std::result::Result<_, _>>()?;
    let groups = Int64Array::from_iter_values(ids.iter().map(|id| id % 97));
    let values = Float64Array::from_iter_values(ids.iter().map(|id| f64::from((id % 1000) as i32) / 8.0));
    let names = StringArray::from_iter_values(ids.iter().map(|id| format!("name-{id:015}")));
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(ids))),
        ("grp", Arc::new(groups)),
        ("value", Arc::new(values)),
        ("name", Arc::new(names)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
