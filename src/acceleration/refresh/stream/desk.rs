//! Where rows of a stream are put: on what is held, or into a generation aside that queries do not see before it is whole.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use tokio::time::Instant;

use crate::acceleration::store::Layout;
use crate::proto::stream::Position;
use crate::upstream::Fit;

use super::super::error::RefreshError;
use super::super::holder::Holder;
use super::super::progress::Counted;
use super::super::rows::{Aside, Intake, Onto, stream_of};
use super::told::Told;

pub(super) struct Desk {
    pub held: Holder,
    pub told: Arc<Told>,
    /// Of the rows of this connection.
    layout: Option<Arc<Layout>>,
    aside: Option<Aside>,
    /// Where that ends in the stream of another sidewing; none where it came from a stock upstream.
    pub reached: Option<Position>,
    /// When that was begun.
    begun: Instant,
    /// The first load, for those who watch it.
    counted: Option<Counted>,
}

impl Desk {
    pub(super) fn new(held: Holder, told: Arc<Told>) -> Self {
        Self { held, told, layout: None, aside: None, reached: None, begun: Instant::now(), counted: None }
    }

    /// The columns that the upstream's table has now.
    ///
    /// # Errors
    /// Others than those held, where `on_schema_change` does not follow.
    pub(super) fn expect(&mut self, schema: &SchemaRef) -> Result<Arc<Layout>, RefreshError> {
        let layout = self.held.layout_for(schema)?;
        self.layout = Some(Arc::clone(&layout));
        Ok(layout)
    }

    /// # Errors
    /// No stream was opened yet.
    pub(super) fn layout(&self) -> Result<Arc<Layout>, RefreshError> {
        self.layout.clone().ok_or_else(|| self.broken("it has no columns yet"))
    }

    /// Whether rows of this connection can stand on what is held.
    pub(super) fn holds_same(&self) -> bool {
        self.layout.is_some() && self.held.rows.layout() == self.layout
    }

    pub(super) fn is_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Of the table that queries see.
    pub(super) fn held_rows(&self) -> u64 {
        self.held.rows.figures().map_or(0, |figures| figures.rows as u64)
    }

    /// From where the stream of another sidewing is to go on.
    pub(super) fn position(&self) -> Option<Position> {
        match self.is_aside() {
            true => self.reached,
            false => self.held.rows.upstream().filter(|_| self.holds_same()),
        }
    }

    /// The upstream has fewer rows than are held, and is not believed yet.
    pub(super) fn doubt(&self, rows: u64) {
        let held = self.held_rows();
        self.held.board.explain(format!(
            "the upstream has {rows} rows and {held} are held: they stay until a second count agrees"
        ));
    }

    /// It is believed.
    pub(super) fn believe(&self, rows: u64) {
        let (dataset, held) = (self.held.name(), self.held_rows());
        tracing::warn!(%dataset, held, upstream = rows, "the upstream has fewer rows than are held, and is followed");
    }

    /// `batch` with the table's columns, however the stream lays them out.
    ///
    /// # Errors
    /// Other columns: the upstream's schema has changed.
    pub(super) fn fitted(&self, batch: RecordBatch) -> Result<RecordBatch, RefreshError> {
        let layout = self.layout()?;
        let given = batch.schema();
        let fit = Fit::try_new(layout.schema(), &given);
        let fit = fit.map_err(|reason| self.broken(format!("its columns are not the table's: {reason}")))?;
        let batch = fit.apply(batch).map_err(|error| self.broken(error.to_string()))?;
        crate::acceleration::store::shape::fitted(layout.schema(), &batch)
            .map_err(|reason| self.broken(reason))
    }

    /// A generation begins aside; one that was begun before is given up.
    pub(super) async fn begin(&mut self) -> Result<(), RefreshError> {
        self.give_up().await?;
        self.reached = None;
        let layout = self.layout()?;
        self.aside = Some(self.held.rows.begin(layout).await?);
        self.begun = Instant::now();
        if self.held.rows.layout().is_none() {
            self.counted = Some(self.held.board.underway.begin());
        }
        Ok(())
    }

    /// Puts rows where they belong; on what is held they end at `upstream` in the stream.
    pub(super) async fn add(
        &mut self,
        batches: Vec<RecordBatch>,
        upstream: Option<Position>,
    ) -> Result<(), RefreshError> {
        if batches.is_empty() {
            return Ok(());
        }
        if let Some(aside) = self.aside.take() {
            if let Some(counted) = &self.counted {
                batches.iter().for_each(|batch| counted.add(batch));
            }
            self.aside = Some(self.held.rows.add(aside, batches).await?);
            return Ok(());
        }
        let layout = self.layout()?;
        let rows = stream_of(&layout, batches);
        let intake = Intake { onto: Onto::Held, upstream, ..Intake::load(layout, rows) };
        self.held.take(intake).await
    }

    /// Queries see what was made aside.
    pub(super) async fn finish(&mut self, upstream: Option<Position>) -> Result<(), RefreshError> {
        self.counted = None;
        match self.aside.take() {
            Some(aside) => self.held.finish(aside, upstream).await?,
            None => return Ok(()),
        }
        self.held.board.refreshed(self.begun.elapsed());
        Ok(())
    }

    pub(super) async fn give_up(&mut self) -> Result<(), RefreshError> {
        match self.aside.take() {
            Some(aside) => self.held.rows.give_up(aside).await,
            None => Ok(()),
        }
    }

    /// All rows that queries see.
    ///
    /// # Errors
    /// What reading them meets.
    pub(super) async fn scan(&self) -> Result<SendableRecordBatchStream, RefreshError> {
        let Some(table) = self.held.rows.provider() else { return Err(self.broken("nothing is held")) };
        let failed = self.held.failed();
        let rows = self.held.reading().read_table(table).map_err(&failed)?;
        rows.execute_stream().await.map_err(failed)
    }

    /// A stream that is not what it should be.
    pub(super) fn broken(&self, message: impl Into<String>) -> RefreshError {
        RefreshError::Stream { dataset: self.held.name().clone(), message: message.into() }
    }
}
