//! The rows of one dataset, wherever they are held: in memory, or in files alone.
//!
//! A stream of batches enters, the next generation is what queries read when it is whole. In `mode: file` it is on disk
//! before a query sees it, so that a restart never shows less than was shown.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;

use crate::acceleration::disk::Restored;
use crate::acceleration::store::Layout;

use super::error::RefreshError;
use super::filed::Filed;
use super::resident::Resident;

/// See the module.
pub(super) enum Rows {
    Resident(Resident),
    Filed(Filed),
}

/// What one refresh brings.
pub(super) struct Intake {
    pub layout: Arc<Layout>,
    /// The condition under which the rows were asked for, where they stand on top of what is held; none for a full load.
    pub newer: Option<Expr>,
    pub rows: SendableRecordBatchStream,
    /// True for the rows that are kept no longer.
    pub dropped: Vec<Arc<dyn PhysicalExpr>>,
}

/// The generation of now in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub rows: usize,
    /// In memory, or of the files.
    pub bytes: usize,
    pub generation: u64,
    /// Nanoseconds since the epoch.
    pub watermark: Option<i64>,
}

impl Rows {
    /// None before the first generation.
    pub(super) fn layout(&self) -> Option<Arc<Layout>> {
        match self {
            Self::Resident(rows) => rows.layout(),
            Self::Filed(rows) => rows.layout(),
        }
    }

    /// None before the first generation.
    pub(super) fn figures(&self) -> Option<Figures> {
        match self {
            Self::Resident(rows) => rows.figures(),
            Self::Filed(rows) => rows.figures(),
        }
    }

    /// The table that queries read; another one after each change of the layout. None before the first generation.
    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        match self {
            Self::Resident(rows) => rows.provider(),
            Self::Filed(rows) => rows.provider(),
        }
    }

    /// Serves what was found on disk.
    ///
    /// # Errors
    /// Rows that do not fit into memory, or not to the layout.
    pub(super) async fn restore(&mut self, layout: Layout, held: Restored) -> Result<(), RefreshError> {
        match self {
            Self::Resident(rows) => rows.restore(layout, held).await,
            Self::Filed(rows) => rows.restore(layout, held),
        }
    }

    /// Makes the next generation of `intake`, unless nothing is new.
    ///
    /// # Errors
    /// The stream's first failure, the store's or the disk's. What was held stays.
    pub(super) async fn take(&mut self, intake: Intake) -> Result<(), RefreshError> {
        match self {
            Self::Resident(rows) => rows.take(intake).await,
            Self::Filed(rows) => rows.take(intake).await,
        }
    }

    /// Drops the rows for which one of `dropped` is true; the generation stays when it is none.
    ///
    /// # Errors
    /// A condition that fails on a row, the store's or the disk's failure. What was held stays.
    pub(super) async fn retain(&mut self, dropped: Vec<Arc<dyn PhysicalExpr>>) -> Result<(), RefreshError> {
        match self {
            Self::Resident(rows) => rows.retain(dropped).await,
            Self::Filed(rows) => rows.retain(&dropped).await,
        }
    }

    /// Lets go of what is held, before rows of another layout are loaded.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Resident(rows) => rows.forget(),
            Self::Filed(rows) => rows.forget(),
        }
    }
}
