//! The table that queries see: one pointer to the generation of now.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::utils::{conjunction_opt, split_conjunction};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::SessionConfig;

use super::scan::{ChunkScan, Piece};
use super::sieve::Filter;
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

    /// What its rows come from, and nothing else: with a source behind it is part of another table.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The rows for which all of `filters`, optimised expressions over the table, are true.
    ///
    /// # Errors
    /// [`StoreError::NotReady`]; an expression that cannot be computed.
    pub(crate) fn read(
        &self,
        config: &SessionConfig,
        props: &ExecutionProps,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let not_ready = || {
            let table = self.table.layout.name().clone();
            DataFusionError::External(Box::new(StoreError::NotReady { table }))
        };
        let generation = Pins::pin(config, &self.table).ok_or_else(not_ready)?;
        let schema = generation.layout().schema();
        let (columns, queries) =
            (DFSchema::try_from(Arc::clone(schema))?, PhysicalPlanningContext::default());
        let predicates = filters.iter().map(|filter| create_physical_expr(filter, &columns, props, &queries));
        let predicates = predicates.collect::<Result<Vec<_>>>()?;
        let pieces = Self::pieces(&generation, filters, conjunction_opt(predicates.iter().cloned()).as_ref());
        let parts = predicates.iter().flat_map(split_conjunction).cloned();
        let parts = parts.map(|predicate| Filter::try_new(schema, predicate)).collect::<Result<Vec<_>>>()?;
        let scan =
            ChunkScan::try_new(Arc::clone(&generation), pieces, config.target_partitions(), projection)?;
        Ok(Arc::new(scan.filtered(parts).limited(limit)))
    }

    /// What may pass `filters`, all together `predicate`.
    fn pieces(
        generation: &Generation,
        filters: &[Expr],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Vec<Piece> {
        if let Some(rows) = prune::found(generation, filters) {
            let piece = |(at, rows): (usize, Vec<u32>)| Piece::Rows(at, UInt32Array::from(rows));
            return rows.into_iter().map(piece).collect();
        }
        let all = (0..generation.chunks().len()).map(Piece::Whole);
        match predicate {
            None => all.collect(),
            Some(predicate) => {
                let kept = prune::kept(generation, predicate);
                all.zip(kept).filter_map(|(piece, kept)| kept.then_some(piece)).collect()
            }
        }
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

    /// All that can be decided by a row alone.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            Ok(match filter.is_volatile() || filter.exists(|part| Ok(is_query(part)))? {
                true => TableProviderFilterPushDown::Unsupported,
                false => TableProviderFilterPushDown::Exact,
            })
        };
        filters.iter().map(support).collect()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.read(state.config(), state.execution_props(), projection, filters, limit)
    }
}

fn is_query(part: &Expr) -> bool {
    matches!(part, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_))
}
