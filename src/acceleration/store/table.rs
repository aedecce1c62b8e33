//! The table that queries see: one pointer to the generation of now.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::scan::{ChunkScan, Piece};
use super::{Generation, Layout, Pins, StoreError, prune};

/// The one atomic pointer of a table.
#[derive(Debug)]
pub(crate) struct Table {
    layout: Arc<Layout>,
    current: ArcSwapOption<Generation>,
}

/// An accelerated table in the catalog.
#[derive(Debug)]
pub(crate) struct AcceleratedTable {
    table: Arc<Table>,
}

impl Table {
    #[must_use]
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        Self { layout, current: ArcSwapOption::empty() }
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The generation of now, held until it is dropped; none before the first.
    pub(crate) fn pin(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    /// Queries planned from now on read `next`.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when another generation was published since `next` was begun, [`StoreError::Schema`] for
    /// one of another layout.
    pub(crate) fn publish(&self, next: Arc<Generation>) -> Result<(), StoreError> {
        if *next.layout() != self.layout {
            return Err(self.layout.mismatch("a generation of another layout".to_owned()));
        }
        let current = self.current.load();
        let stale = |current: u64| {
            let table = self.layout.name().clone();
            Err(StoreError::Stale { table, offered: next.number(), current })
        };
        match current.as_ref() {
            Some(current) if current.number() >= next.number() => return stale(current.number()),
            _ => {}
        }
        let before = self.current.compare_and_swap(&*current, Some(Arc::clone(&next)));
        match (before.as_ref(), current.as_ref()) {
            (None, None) => Ok(()),
            (Some(before), Some(current)) if Arc::ptr_eq(before, current) => Ok(()),
            (before, _) => stale(before.map_or(0, |before| before.number())),
        }
    }
}

impl AcceleratedTable {
    #[must_use]
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    fn pieces(generation: &Generation, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Piece>> {
        if let Some(rows) = prune::found(generation, filters) {
            let piece = |(at, rows): (usize, Vec<u32>)| Piece::Rows(at, UInt32Array::from(rows));
            return Ok(rows.into_iter().map(piece).collect());
        }
        let all = (0..generation.chunks().len()).map(Piece::Whole);
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(all.collect()) };
        let schema = DFSchema::try_from(Arc::clone(generation.layout().schema()))?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let kept = prune::kept(generation, &filter);
        Ok(all.zip(kept).filter_map(|(piece, kept)| kept.then_some(piece)).collect())
    }
}

#[async_trait]
impl TableProvider for AcceleratedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.layout.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters skip chunks, and are applied by whoever reads.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let not_ready = || {
            let table = self.table.layout.name().clone();
            DataFusionError::External(Box::new(StoreError::NotReady { table }))
        };
        let generation = Pins::pin(state.config(), &self.table).ok_or_else(not_ready)?;
        let pieces = Self::pieces(&generation, state, filters)?;
        let partitions = state.config().target_partitions();
        // A limit counts the rows that pass the filters.
        let fetch = limit.filter(|_| filters.is_empty());
        Ok(Arc::new(ChunkScan::try_new(generation, pieces, partitions, projection, fetch)?))
    }
}
