//! Rows held in memory, and in `mode: file` on disk as well.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::PhysicalExpr;

use crate::acceleration::chunk_id::ChunkId;
use crate::acceleration::disk::{Chunks, Commit, Folder, Lazy, Restored};
use crate::acceleration::publish::{Piece, Publication, Published};
use crate::acceleration::store::{
    AcceleratedTable, Append, Budget, Generation, Layout, Load, Table, compacted, restored, without,
};
use crate::name::DatasetName;
use crate::proto::stream::Position;
use crate::task::blocking;

use super::build::Build;
use super::error::RefreshError;
use super::lineage::Lineage;
use super::rows::{Figures, Intake, Onto};

pub(super) struct Resident {
    dataset: DatasetName,
    budget: Budget,
    /// None in `mode: memory`.
    folder: Option<Folder>,
    /// What queries read; none before the first generation.
    table: Option<Arc<Table>>,
    /// Of what queries read.
    lineage: Option<Lineage>,
    /// The last generation that was let go.
    numbered: u64,
    publication: Arc<Publication>,
}

impl Resident {
    pub(super) fn new(
        dataset: DatasetName,
        budget: Budget,
        folder: Option<Folder>,
        publication: Arc<Publication>,
    ) -> Self {
        Self { dataset, budget, folder, table: None, lineage: None, numbered: 0, publication }
    }

    pub(super) fn layout(&self) -> Option<Arc<Layout>> {
        self.table.as_ref().map(|table| Arc::clone(table.layout()))
    }

    pub(super) fn figures(&self) -> Option<Figures> {
        let generation = self.pin()?;
        Some(Figures {
            rows: generation.rows(),
            bytes: generation.bytes(),
            generation: generation.number(),
            watermark: generation.watermark(),
        })
    }

    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.lineage
    }

    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        let table = Arc::clone(self.table.as_ref()?);
        Some(Arc::new(AcceleratedTable::new(table)))
    }

    pub(super) fn forget(&mut self) {
        self.numbered = self.pin().map_or(self.numbered, |generation| generation.number());
        (self.table, self.lineage) = (None, None);
        self.publication.withdraw();
    }

    pub(super) async fn restore(
        &mut self,
        layout: Layout,
        held: Restored,
        lineage: Lineage,
    ) -> Result<(), RefreshError> {
        // Read as files: the folder was not opened for memory.
        let Chunks::Memory(batches) = held.chunks else { return Ok(()) };
        let (layout, budget) = (Arc::new(layout), self.budget.clone());
        let (number, watermark) = (held.number, held.watermark);
        let generation =
            blocking("restore table", move || restored(&layout, batches, number, watermark, &budget));
        self.show(generation.await??, lineage)
    }

    pub(super) async fn take(&mut self, intake: Intake) -> Result<(), RefreshError> {
        let Intake { layout, onto, rows, dropped, upstream } = intake;
        let below = self.pin().filter(|previous| *previous.layout() == layout);
        let build = match (onto, below) {
            (Onto::Asked(_), Some(below)) => Build::Append(Append::begin(below, self.budget.clone())),
            (Onto::Held, Some(below)) => Build::Append(Append::of_new_rows(below, self.budget.clone())),
            _ => Build::Load(self.begin(layout).await?),
        };
        let Some(next) = build.take(&self.dataset, rows).await? else { return Ok(()) };
        let next = self.less(next, dropped).await?;
        let lineage = self.followed_by(&next, upstream.get());
        self.publish(next, lineage).await?;
        // The rows are here: small chunks are a matter of speed, and the next refresh tries again.
        if let Err(error) = self.compact().await {
            tracing::warn!(dataset = %self.dataset, %error, "small chunks are not joined");
        }
        Ok(())
    }

    pub(super) async fn begin(&self, layout: Arc<Layout>) -> Result<Load, RefreshError> {
        if self.folder.is_some() {
            Folder::check(layout.schema()).await.map_err(RefreshError::disk(&self.dataset))?;
        }
        let load = Load::begin(layout, self.pin(), self.budget.clone());
        Ok(load.numbered_after(self.numbered))
    }

    pub(super) async fn add(&self, load: Load, batches: Vec<RecordBatch>) -> Result<Load, RefreshError> {
        Ok(blocking("take rows", move || {
            let mut load = load;
            batches.iter().try_for_each(|batch| load.push(batch)).map(|()| load)
        })
        .await??)
    }

    pub(super) async fn finish(
        &mut self,
        load: Load,
        upstream: Option<Position>,
    ) -> Result<(), RefreshError> {
        let next = blocking("finish generation", move || load.finish()).await??;
        let lineage = self.followed_by(&next, upstream);
        self.publish(next, lineage).await
    }

    pub(super) async fn retain(&mut self, dropped: Vec<Arc<dyn PhysicalExpr>>) -> Result<(), RefreshError> {
        let Some(generation) = self.pin() else { return Ok(()) };
        let number = generation.number();
        let next = self.less(generation, dropped).await?;
        match next.number() == number {
            true => Ok(()),
            false => {
                let lineage = self.followed_by(&next, self.lineage.and_then(|lineage| lineage.upstream));
                self.publish(next, lineage).await
            }
        }
    }

    fn pin(&self) -> Option<Arc<Generation>> {
        self.table.as_ref().and_then(|table| table.pin())
    }

    async fn less(
        &self,
        generation: Arc<Generation>,
        dropped: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<Generation>, RefreshError> {
        if dropped.is_empty() {
            return Ok(generation);
        }
        let budget = self.budget.clone();
        let kept = blocking("retention", move || {
            dropped.iter().try_fold(generation, |generation, predicate| {
                Ok::<_, RefreshError>(without(&generation, predicate, &budget)?.unwrap_or(generation))
            })
        });
        kept.await?
    }

    async fn compact(&mut self) -> Result<(), RefreshError> {
        let Some(generation) = self.pin() else { return Ok(()) };
        let budget = self.budget.clone();
        match blocking("compact table", move || compacted(&generation, &budget)).await?? {
            // The same rows in the same order.
            Some(joined) => {
                let lineage = self.lineage.unwrap_or_else(|| Lineage::begin(None));
                self.publish(joined, lineage).await
            }
            None => Ok(()),
        }
    }

    fn followed_by(&self, next: &Generation, upstream: Option<Position>) -> Lineage {
        match (self.lineage, self.pin()) {
            (Some(lineage), Some(before)) if before.layout() == next.layout() => {
                lineage.followed_by(ids(&before), ids(next), upstream)
            }
            _ => Lineage::begin(upstream),
        }
    }

    /// To disk first: what a query has seen, a restart shows too.
    async fn publish(&mut self, generation: Arc<Generation>, lineage: Lineage) -> Result<(), RefreshError> {
        if let Some(folder) = &mut self.folder {
            let chunks = generation.chunks().iter().cloned();
            let chunks = chunks.map(|chunk| (chunk.id(), Lazy::new(move || chunk.batch())));
            let commit = Commit {
                number: generation.number(),
                schema: Arc::clone(generation.layout().schema()),
                watermark: generation.watermark(),
                resume: Some(lineage.encode()),
            };
            folder.commit(commit, chunks.collect()).await.map_err(RefreshError::disk(&self.dataset))?;
        }
        self.show(generation, lineage)
    }

    fn show(&mut self, generation: Arc<Generation>, lineage: Lineage) -> Result<(), RefreshError> {
        let table = match &self.table {
            Some(table) if table.layout() == generation.layout() => Arc::clone(table),
            _ => Arc::new(Table::new(Arc::clone(generation.layout()))),
        };
        table.publish(Arc::clone(&generation))?;
        let (layout, pieces) = (generation.layout(), generation.chunks().iter().map(Piece::chunk));
        self.publication.publish(Published::new(lineage.epoch, layout, pieces));
        (self.table, self.lineage) = (Some(table), Some(lineage));
        Ok(())
    }
}

fn ids(generation: &Generation) -> impl ExactSizeIterator<Item = ChunkId> {
    generation.chunks().iter().map(|chunk| chunk.id())
}
