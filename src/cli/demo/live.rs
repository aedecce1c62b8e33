//! `readings`: a table that grows by a row a second, for SQL and for subscribers.
//!
//! Which rows there are follows from when the first one was made, and that is kept in the demo's directory: an upstream
//! that is started again has the rows that were due while it was away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::catalog::MemTable;

use crate::acceleration::{MemoryLog, Publication, Retention};

use super::Failure;

/// What the table is called.
pub(super) const NAME: &str = "readings";
const EVERY_MS: i64 = 1_000;
/// Whose first row is older begins anew: a directory may be used again after days.
const ROWS_MAX: i64 = 3_600;
/// When the first row was made, in milliseconds since the Unix epoch.
const BEGAN_FILE: &str = "readings.began";

pub(super) struct Live {
    began_ms: i64,
    schema: SchemaRef,
    table: Arc<MemTable>,
    log: MemoryLog,
}

impl Live {
    /// The table with the rows that are due by now.
    pub fn try_new(dir: &Path) -> Result<Self, Failure> {
        let now_ms = now_ms()?;
        let began_ms = began_ms(dir, now_ms)?;
        let schema = schema();
        let earlier = rows(&schema, began_ms, 0..due(began_ms, now_ms))?;
        let log = MemoryLog::new(NAME.parse()?, Arc::clone(&schema), Retention::default());
        log.append(earlier.clone())?;
        let table = Arc::new(MemTable::try_new(Arc::clone(&schema), vec![vec![earlier]])?);
        Ok(Self { began_ms, schema, table, log })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn table(&self) -> &Arc<MemTable> {
        &self.table
    }

    pub fn publication(&self) -> &Arc<Publication> {
        self.log.publication()
    }

    /// Adds each row when it is due, for as long as it is polled.
    pub async fn grow(&self) -> Result<(), Failure> {
        let mut next =
            self.table.batches[0].read().await.iter().map(RecordBatch::num_rows).sum::<usize>() as i64;
        loop {
            let now_ms = now_ms()?;
            let end = due(self.began_ms, now_ms);
            if end > next {
                let new = rows(&self.schema, self.began_ms, next..end)?;
                // Who is told of a row finds it by a query as well.
                self.table.batches[0].write().await.push(new.clone());
                self.log.append(new)?;
                next = end;
            }
            let wait_ms = self.began_ms + next * EVERY_MS - now_ms;
            tokio::time::sleep(Duration::from_millis(wait_ms.clamp(1, EVERY_MS) as u64)).await;
        }
    }
}

fn now_ms() -> Result<i64, Failure> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

/// That of an earlier start, if it is there and recent, else now.
fn began_ms(dir: &Path, now_ms: i64) -> Result<i64, Failure> {
    let path = dir.join(BEGAN_FILE);
    let kept = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(kept) = kept.filter(|kept| *kept <= now_ms && due(*kept, now_ms) <= ROWS_MAX) {
        return Ok(kept);
    }
    std::fs::write(&path, format!("{now_ms}\n"))?;
    Ok(now_ms)
}

/// How many rows there are at `now_ms`: the first one at once.
fn due(began_ms: i64, now_ms: i64) -> i64 {
    (now_ms - began_ms) / EVERY_MS + 1
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("celsius", DataType::Float64, false),
    ]))
}

fn rows(schema: &SchemaRef, began_ms: i64, ids: std::ops::Range<i64>) -> Result<RecordBatch, ArrowError> {
    let at = ids.clone().map(|id| began_ms + id * EVERY_MS);
    let sensor = ids.clone().map(|id| format!("s{}", id % 4));
    let celsius = ids.clone().map(|id| 20.0 + (id as f64 / 30.0).sin());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids)),
        Arc::new(TimestampMillisecondArray::from_iter_values(at)),
        Arc::new(StringArray::from_iter_values(sensor)),
        Arc::new(Float64Array::from_iter_values(celsius)),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_has_the_rows_that_were_due_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let began = 1_700_000_000_000;
        assert_eq!(began_ms(dir, began).unwrap(), began);
        assert_eq!(began_ms(dir, began + 30_500).unwrap(), began);
        assert_eq!((due(began, began), due(began, began + 30_500)), (1, 31));
        let all = rows(&schema(), began, 0..31).unwrap();
        assert_eq!(all.slice(10, 5), rows(&schema(), began, 10..15).unwrap());
        let days_later = began + 3 * 86_400_000;
        assert_eq!(began_ms(dir, days_later).unwrap(), days_later);
        std::fs::write(dir.join(BEGAN_FILE), "no number").unwrap();
        assert_eq!(began_ms(dir, began).unwrap(), began);
    }

    #[tokio::test]
    async fn it_grows_for_queries_and_subscribers_alike() {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::try_new(dir.path()).unwrap();
        let mut subscription = live.publication().subscribe(None);
        let seen = async {
            loop {
                let event = subscription.next().await.unwrap();
                if let crate::acceleration::StreamEvent::Rows { last: 3, .. } = event {
                    return live.table().batches[0].read().await.len();
                }
            }
        };
        tokio::select! {
            batches = seen => assert!(batches >= 3, "{batches} batches"),
            ended = live.grow() => panic!("it has ended: {ended:?}"),
        }
    }
}
