//! The rows of one dataset, wherever they are held: in memory, or in files alone.
//!
//! A stream of batches enters, the next generation is what queries read when it is whole. In `mode: file` it is on disk
//! before a query sees it, so that a restart never shows less than was shown.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::acceleration::disk::Restored;
use crate::acceleration::store::{Layout, Load};
use crate::proto::stream::Position;

use super::error::RefreshError;
use super::filed::{Filed, Files};
use super::lineage::Lineage;
use super::resident::Resident;

/// See the module.
pub(super) enum Rows {
    Resident(Resident),
    Filed(Filed),
}

/// What one refresh brings.
pub(super) struct Intake {
    pub layout: Arc<Layout>,
    pub onto: Onto,
    pub rows: SendableRecordBatchStream,
    /// True for the rows that are kept no longer.
    pub dropped: Vec<Arc<dyn PhysicalExpr>>,
    /// Where the rows end in the stream of their upstream.
    pub upstream: Option<Position>,
}

/// What the rows of an intake stand on.
pub(super) enum Onto {
    /// They are all there are.
    Nothing,
    /// On what is held. They were asked for by this condition, and what of them is held already is counted out.
    Asked(Expr),
    /// On what is held, as they are: each is one row more.
    Held,
}

/// A generation on its way, beside the one that is held. It is finished or given up by the rows that it was begun for.
pub(super) enum Aside {
    Resident(Box<Load>),
    Filed(Box<Files>),
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

impl Intake {
    /// All rows of a table.
    pub(super) fn load(layout: Arc<Layout>, rows: SendableRecordBatchStream) -> Self {
        Self { layout, onto: Onto::Nothing, rows, dropped: Vec::new(), upstream: None }
    }
}

/// Batches of `layout` that are here already, as a stream.
pub(super) fn stream_of(layout: &Layout, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let batches = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(layout.schema()), batches))
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

    /// Where what is held ends in the stream of its upstream.
    pub(super) fn upstream(&self) -> Option<Position> {
        self.lineage()?.upstream
    }

    fn lineage(&self) -> Option<Lineage> {
        match self {
            Self::Resident(rows) => rows.lineage(),
            Self::Filed(rows) => rows.lineage(),
        }
    }

    /// The table that queries read; another one after each change of the layout. None before the first generation.
    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        match self {
            Self::Resident(rows) => rows.provider(),
            Self::Filed(rows) => rows.provider(),
        }
    }

    /// Serves what was found on disk. Only where that `is_last`, nothing newer was shown before: its history goes on.
    ///
    /// # Errors
    /// Rows that do not fit into memory, or not to the layout.
    pub(super) async fn restore(
        &mut self,
        layout: Layout,
        held: Restored,
        is_last: bool,
    ) -> Result<(), RefreshError> {
        let known = held.resume.as_deref().and_then(Lineage::decode);
        let lineage = match known {
            Some(known) if is_last => known,
            known => Lineage::begin(known.and_then(|known| known.upstream)),
        };
        match self {
            Self::Resident(rows) => rows.restore(layout, held, lineage).await,
            Self::Filed(rows) => rows.restore(layout, held, lineage),
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

    /// Begins a whole generation of `layout` beside what is held.
    ///
    /// # Errors
    /// A schema that cannot be written to disk.
    pub(super) async fn begin(&mut self, layout: Arc<Layout>) -> Result<Aside, RefreshError> {
        match self {
            Self::Resident(rows) => rows.begin(layout).await.map(|load| Aside::Resident(Box::new(load))),
            Self::Filed(rows) => rows.begin(layout).await.map(|files| Aside::Filed(Box::new(files))),
        }
    }

    /// `aside` with more rows.
    ///
    /// # Errors
    /// The store's or the disk's failure. The generation aside is gone then, what is held stays.
    pub(super) async fn add(
        &mut self,
        aside: Aside,
        batches: Vec<RecordBatch>,
    ) -> Result<Aside, RefreshError> {
        match (self, aside) {
            (Self::Resident(rows), Aside::Resident(load)) => {
                rows.add(*load, batches).await.map(|load| Aside::Resident(Box::new(load)))
            }
            (Self::Filed(rows), Aside::Filed(files)) => {
                rows.add(*files, batches).await.map(|files| Aside::Filed(Box::new(files)))
            }
            (_, aside) => Ok(aside),
        }
    }

    /// Makes `aside` what is held. Its rows end at `upstream` in the stream of their upstream.
    ///
    /// # Errors
    /// The store's or the disk's failure. The generation aside is gone then, what was held stays.
    pub(super) async fn finish(
        &mut self,
        aside: Aside,
        upstream: Option<Position>,
    ) -> Result<(), RefreshError> {
        match (self, aside) {
            (Self::Resident(rows), Aside::Resident(load)) => rows.finish(*load, upstream).await,
            (Self::Filed(rows), Aside::Filed(files)) => rows.finish(*files, upstream).await,
            // An aside is given to whom it was begun for.
            _ => Ok(()),
        }
    }

    /// Lets go of `aside`.
    ///
    /// # Errors
    /// The disk's failure.
    pub(super) async fn give_up(&mut self, aside: Aside) -> Result<(), RefreshError> {
        match (self, aside) {
            (Self::Filed(rows), Aside::Filed(_)) => rows.abandon().await,
            _ => Ok(()),
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
