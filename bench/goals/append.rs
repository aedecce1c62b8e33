//! Append streams: from the emission of a row to its sight by a query, beside its delivery to a direct subscriber.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::{FlightClient, FlightData, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Result;
use crate::calls;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::publisher::{NAME, Publisher, ROW_BYTES, rows};
use crate::report::Spread;
use crate::sidecar;
use crate::table::{Finding, Findings};
use crate::ways::percentile;

pub const ROWS: &[&str] = &["append"];

const ROUNDS: usize = 7;
/// Rows of a round, each emitted when the one before was seen.
const EMISSIONS: usize = 150;
const VISIBLE_WITHIN: Duration = Duration::from_secs(30);
/// Between two rows, so that the work for one is not met by the next.
const PAUSE: Duration = Duration::from_millis(2);

/// The upstream, and both who follow it.
struct Scene {
    upstream: Publisher,
    subscriber: FlightRecordBatchStream,
    client: FlightClient,
    emitted: i64,
}

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let upstream = Publisher::start().await?;
    let pod = dataset(&upstream.address, NAME, "acceleration: {refresh_mode: append}");
    let sidecar = bench.sidecar(NO_CACHE, &pod).await?;
    let client = sidecar::client(sidecar.address("flight")?).await?;
    let subscriber = subscribed(&upstream.address).await?;
    let mut scene = Scene { upstream, subscriber, client, emitted: 0 };
    let (mut seen, mut delivered, mut asked, mut over) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let [one, other, query] = scene.round().await?;
        if round > 0 {
            seen.push(one);
            delivered.push(other);
            asked.push(query);
            over.push((one - other) * 1e3);
        }
    }
    sidecar.stop().await?;
    let [seen, delivered, asked] =
        [seen, delivered, asked].map(|times| Spread::of(times.into_iter()).shown(1e3, 3, " ms"));
    let figures = format!(
        "rows of {ROW_BYTES} bytes: seen after {seen}, of which the query alone {asked}; delivered after {delivered}"
    );
    Ok(vec![Finding { row: "append", ratio: Some(Spread::of(over.into_iter())), figures }].into())
}

/// A stock subscriber: the name of the table, and nothing else.
async fn subscribed(address: &str) -> Result<FlightRecordBatchStream> {
    let first = FlightData::new().with_descriptor(FlightDescriptor::new_path(vec![NAME.to_owned()]));
    // It says no more, but goes on listening.
    let words = stream::iter([first]).chain(stream::pending());
    let messages = calls::connect(address).await?.do_exchange(words).await?.into_inner();
    Ok(FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into)))
}

impl Scene {
    /// The medians of a round: emission to sight, emission to delivery, and the query alone.
    async fn round(&mut self) -> Result<[f64; 3]> {
        let (mut seen, mut delivered, mut asked) = (vec![], vec![], vec![]);
        for _ in 0..EMISSIONS {
            // One at a time, so that neither waits for the other's work: first who asks, then who is told.
            let begun = self.emit().await?;
            self.visible(begun).await?;
            seen.push(begun.elapsed().as_secs_f64());
            self.delivered().await?;
            let begun = Instant::now();
            self.count().await?;
            asked.push(begun.elapsed().as_secs_f64());
            tokio::time::sleep(PAUSE).await;

            let begun = self.emit().await?;
            self.delivered().await?;
            delivered.push(begun.elapsed().as_secs_f64());
            self.visible(begun).await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok([seen, delivered, asked].map(|mut times| percentile(&mut times, 50)))
    }

    /// Emits a row; the moment before.
    async fn emit(&mut self) -> Result<Instant> {
        let row = rows(self.emitted..self.emitted + 1)?;
        let begun = Instant::now();
        self.upstream.emit(row).await?;
        self.emitted += 1;
        Ok(begun)
    }

    /// Returns when a query counts all rows.
    async fn visible(&mut self, begun: Instant) -> Result<()> {
        while self.count().await? < self.emitted {
            if begun.elapsed() > VISIBLE_WITHIN {
                return Err(format!("row {} is not visible after {VISIBLE_WITHIN:?}", self.emitted).into());
            }
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<i64> {
        let mut batches = self.client.do_get(Ticket::new(format!("SELECT count(*) FROM {NAME}"))).await?;
        let mut count = None;
        while let Some(batch) = batches.try_next().await? {
            count = (batch.num_rows() == 1).then(|| batch.column(0).as_primitive::<Int64Type>().value(0));
        }
        count.ok_or_else(|| "no count was answered".into())
    }

    /// Returns when the subscriber has the newest row.
    async fn delivered(&mut self) -> Result<()> {
        loop {
            let next = tokio::time::timeout(VISIBLE_WITHIN, self.subscriber.try_next()).await??;
            let change = next.ok_or("the subscription ended")?;
            if newest(&change) == Some(self.emitted - 1) {
                return Ok(());
            }
        }
    }
}

/// The key of the last row of a change (operation, keys, row), where it has one.
fn newest(change: &RecordBatch) -> Option<i64> {
    let rows = change.column_by_name("data")?.as_struct_opt()?;
    let last = rows.len().checked_sub(1)?;
    let keys = rows.column_by_name("id")?.as_primitive_opt::<Int64Type>()?;
    rows.is_valid(last).then(|| keys.value(last))
}
