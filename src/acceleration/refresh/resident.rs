//! Rows held in memory, and in `mode: file` on disk as well.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::physical_plan::PhysicalExpr;

use crate::acceleration::disk::{Chunks, Commit, Folder, Lazy, Restored};
use crate::acceleration::store::{
    AcceleratedTable, Append, Budget, Generation, Layout, Load, Table, compacted, restored, without,
};
use crate::name::DatasetName;
use crate::task::blocking;

use super::build::Build;
use super::error::RefreshError;
use super::rows::{Figures, Intake};

pub(super) struct Resident {
    dataset: DatasetName,
    budget: Budget,
    /// None in `mode: memory`.
    folder: Option<Folder>,
    /// What queries read; none before the first generation.
    table: Option<Arc<Table>>,
    /// The last generation that was let go.
    numbered: u64,
}

impl Resident {
    pub(super) fn new(dataset: DatasetName, budget: Budget, folder: Option<Folder>) -> Self {
        Self { dataset, budget, folder, table: None, numbered: 0 }
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

    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        let table = Arc::clone(self.table.as_ref()?);
        Some(Arc::new(AcceleratedTable::new(table)))
    }

    pub(super) fn forget(&mut self) {
        self.numbered = self.pin().map_or(self.numbered, |generation| generation.number());
        self.table = None;
    }

    pub(super) async fn restore(&mut self, layout: Layout, held: Restored) -> Result<(), RefreshError> {
        // Read as files: the folder was not opened for memory.
        let Chunks::Memory(batches) = held.chunks else { return Ok(()) };
        let (layout, budget) = (Arc::new(layout), self.budget.clone());
        let (number, watermark) = (held.number, held.watermark);
        let generation =
            blocking("restore table", move || restored(&layout, batches, number, watermark, &budget));
        self.show(generation.await??)
    }

    pub(super) async fn take(&mut self, intake: Intake) -> Result<(), RefreshError> {
        let Intake { layout, newer, rows, dropped } = intake;
        if self.folder.is_some() && self.layout().as_ref() != Some(&layout) {
            Folder::check(layout.schema()).await.map_err(RefreshError::disk(&self.dataset))?;
        }
        let build = match (newer, self.pin()) {
            (Some(_), Some(previous)) if *previous.layout() == layout => {
                Build::Append(Append::begin(previous, self.budget.clone()))
            }
            (_, previous) => {
                let load = Load::begin(layout, previous, self.budget.clone());
                Build::Load(load.numbered_after(self.numbered))
            }
        };
        let Some(next) = build.take(&self.dataset, rows).await? else { return Ok(()) };
        let next = self.less(next, dropped).await?;
        self.publish(next).await?;
        // The rows are here: small chunks are a matter of speed, and the next refresh tries again.
        if let Err(error) = self.compact().await {
            tracing::warn!(dataset = %self.dataset, %error, "small chunks are not joined");
        }
        Ok(())
    }

    pub(super) async fn retain(&mut self, dropped: Vec<Arc<dyn PhysicalExpr>>) -> Result<(), RefreshError> {
        let Some(generation) = self.pin() else { return Ok(()) };
        let number = generation.number();
        let next = self.less(generation, dropped).await?;
        match next.number() == number {
            true => Ok(()),
            false => self.publish(next).await,
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
            Some(joined) => self.publish(joined).await,
            None => Ok(()),
        }
    }

    /// To disk first: what a query has seen, a restart shows too.
    async fn publish(&mut self, generation: Arc<Generation>) -> Result<(), RefreshError> {
        if let Some(folder) = &mut self.folder {
            let chunks = generation.chunks().iter().cloned();
            let chunks = chunks.map(|chunk| (chunk.id(), Lazy::new(move || chunk.batch())));
            let commit = Commit {
                number: generation.number(),
                schema: Arc::clone(generation.layout().schema()),
                watermark: generation.watermark(),
                resume: None,
            };
            folder.commit(commit, chunks.collect()).await.map_err(RefreshError::disk(&self.dataset))?;
        }
        self.show(generation)
    }

    fn show(&mut self, generation: Arc<Generation>) -> Result<(), RefreshError> {
        let table = match &self.table {
            Some(table) if table.layout() == generation.layout() => Arc::clone(table),
            _ => Arc::new(Table::new(Arc::clone(generation.layout()))),
        };
        table.publish(generation)?;
        self.table = Some(table);
        Ok(())
    }
}
