//! Rows held in files alone (`params.resident: false`), for tables larger than memory.
//!
//! What passes through memory is at most a pack of rows at a time; an append also holds the rows of the times that it
//! asks for again, to count out what is here already.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::acceleration::chunk_id::ChunkId;
use crate::acceleration::disk::{Chunks, Commit, Folder, KnownChunk, Restored};
use crate::acceleration::publish::{Piece, Publication, Published};
use crate::acceleration::store::{Append, Budget, Generation, Layout, Pack, Packer, kept, restored};
use crate::name::DatasetName;
use crate::proto::stream::Position;
use crate::task::blocking;

use super::build::{Build, grouped};
use super::error::RefreshError;
use super::lineage::Lineage;
use super::rows::{Figures, Intake, Onto};

/// Files with fewer rows are joined.
const SMALL_ROWS: u64 = 64 << 10;
/// So many of them beside each other: fewer are not worth writing again and again.
const SMALL_FILES_MIN: usize = 8;

pub(super) struct Filed {
    dataset: DatasetName,
    budget: Budget,
    folder: Folder,
    /// A session to read what is held, with the memory that all share.
    context: SessionContext,
    held: Option<Held>,
    /// The last generation that was let go.
    numbered: u64,
    publication: Arc<Publication>,
}

/// The generation of now.
#[derive(Debug, Clone)]
struct Held {
    layout: Arc<Layout>,
    number: u64,
    watermark: Option<i64>,
    /// In the order of the table.
    chunks: Vec<ChunkId>,
    lineage: Lineage,
}

/// A generation on its way into files.
pub(super) struct Files {
    layout: Arc<Layout>,
    packer: Packer,
    chunks: Vec<ChunkId>,
}

impl Filed {
    pub(super) fn new(
        dataset: DatasetName,
        budget: Budget,
        folder: Folder,
        context: SessionContext,
        publication: Arc<Publication>,
    ) -> Self {
        Self { dataset, budget, folder, context, held: None, numbered: 0, publication }
    }

    pub(super) fn layout(&self) -> Option<Arc<Layout>> {
        self.held.as_ref().map(|held| Arc::clone(&held.layout))
    }

    pub(super) fn figures(&self) -> Option<Figures> {
        let held = self.held.as_ref()?;
        let known = self.known(&held.chunks);
        let sum = |of: fn(&KnownChunk) -> u64| usize::try_from(known.iter().map(of).sum::<u64>()).ok();
        Some(Figures {
            rows: sum(|chunk| chunk.rows)?,
            bytes: sum(|chunk| chunk.bytes)?,
            generation: held.number,
            watermark: held.watermark,
        })
    }

    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.held.as_ref().map(|held| held.lineage)
    }

    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        let held = self.held.as_ref()?;
        Some(Arc::new(self.folder.table(Arc::clone(held.layout.schema()))))
    }

    pub(super) fn forget(&mut self) {
        self.numbered = self.held.take().map_or(self.numbered, |held| held.number);
        self.publication.withdraw();
    }

    pub(super) fn restore(
        &mut self,
        layout: Layout,
        held: Restored,
        lineage: Lineage,
    ) -> Result<(), RefreshError> {
        if let Chunks::Files(chunks) = held.chunks {
            let (layout, number, watermark) = (Arc::new(layout), held.number, held.watermark);
            self.show(Held { layout, number, watermark, chunks, lineage });
        }
        Ok(())
    }

    /// What is held loses rows by [`Filed::retain`] alone: with each append the file of the oldest rows would be
    /// written anew.
    pub(super) async fn take(&mut self, intake: Intake) -> Result<(), RefreshError> {
        Folder::check(intake.layout.schema()).await.map_err(self.disk())?;
        let below = self.held.clone().filter(|held| held.layout == intake.layout);
        let (next, is_append) = match (intake.onto, below) {
            (Onto::Asked(newer), Some(below)) => {
                (self.appended(below, newer, intake.rows, intake.dropped).await, true)
            }
            (Onto::Held, Some(below)) => (self.extended(below, intake.rows, intake.dropped).await, true),
            _ => (self.loaded(intake.layout, intake.rows, intake.dropped).await.map(Some), false),
        };
        let Some(next) = self.or_abandon(next).await? else { return Ok(()) };
        let next = self.continued(next, intake.upstream.get());
        self.seal(next).await?;
        if is_append && let Err(error) = self.compact().await {
            tracing::warn!(dataset = %self.dataset, %error, "small files are not joined");
        }
        Ok(())
    }

    pub(super) async fn retain(&mut self, dropped: &[Arc<dyn PhysicalExpr>]) -> Result<(), RefreshError> {
        let Some(held) = self.held.clone().filter(|_| !dropped.is_empty()) else { return Ok(()) };
        let kept = self.less(&held, dropped).await;
        match self.or_abandon(kept).await? {
            chunks if chunks == held.chunks => Ok(()),
            chunks => {
                let upstream = held.lineage.upstream;
                let next = self.continued(Held { chunks, ..held.next() }, upstream);
                self.seal(next).await
            }
        }
    }

    /// The same, with what it continues.
    fn continued(&self, next: Held, upstream: Option<Position>) -> Held {
        let lineage = match &self.held {
            Some(before) if before.layout == next.layout => before.lineage.followed_by(
                before.chunks.iter().copied(),
                next.chunks.iter().copied(),
                upstream,
            ),
            _ => Lineage::begin(upstream),
        };
        Held { lineage, ..next }
    }

    /// A full load.
    async fn loaded(
        &mut self,
        layout: Arc<Layout>,
        rows: SendableRecordBatchStream,
        dropped: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Held, RefreshError> {
        let packer = Packer::new(Arc::clone(&layout), dropped, self.budget.clone());
        let mut files = Files { layout, packer, chunks: Vec::new() };
        let mut groups = grouped(&self.dataset, rows);
        while let Some(group) = groups.try_next().await? {
            files = self.packed(files, group).await?;
        }
        self.whole(files).await
    }

    pub(super) async fn begin(&self, layout: Arc<Layout>) -> Result<Files, RefreshError> {
        Folder::check(layout.schema()).await.map_err(self.disk())?;
        let packer = Packer::new(Arc::clone(&layout), Vec::new(), self.budget.clone());
        Ok(Files { layout, packer, chunks: Vec::new() })
    }

    pub(super) async fn add(
        &mut self,
        files: Files,
        batches: Vec<RecordBatch>,
    ) -> Result<Files, RefreshError> {
        let more = self.packed(files, batches).await;
        self.or_abandon(more).await
    }

    pub(super) async fn finish(
        &mut self,
        files: Files,
        upstream: Option<Position>,
    ) -> Result<(), RefreshError> {
        let next = self.whole(files).await;
        let next = self.or_abandon(next).await?;
        let next = self.continued(next, upstream);
        self.seal(next).await
    }

    /// What was written since the last generation is removed.
    pub(super) async fn abandon(&mut self) -> Result<(), RefreshError> {
        self.folder.abandon().await.map_err(self.disk())
    }

    async fn packed(&mut self, files: Files, batches: Vec<RecordBatch>) -> Result<Files, RefreshError> {
        let Files { layout, packer, mut chunks } = files;
        let packer = self.pack(packer, batches, &mut chunks).await?;
        Ok(Files { layout, packer, chunks })
    }

    async fn whole(&mut self, files: Files) -> Result<Held, RefreshError> {
        let Files { layout, packer, mut chunks } = files;
        let number = self.held.as_ref().map_or(self.numbered, |held| held.number) + 1;
        let watermark = packer.watermark();
        self.rest(packer, &mut chunks).await?;
        Ok(Held { layout, number, watermark, chunks, lineage: Lineage::begin(None) })
    }

    /// `below` and all of `rows`; none when there are none.
    async fn extended(
        &mut self,
        below: Held,
        rows: SendableRecordBatchStream,
        dropped: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Option<Held>, RefreshError> {
        let before = below.chunks.len();
        let more = self.loaded(Arc::clone(&below.layout), rows, dropped).await?;
        let chunks: Vec<ChunkId> = below.chunks.iter().chain(&more.chunks).copied().collect();
        let watermark = below.watermark.max(more.watermark);
        Ok((chunks.len() > before).then(|| Held { chunks, watermark, ..below.next() }))
    }

    /// `below` and what of `rows` is not there yet; none when that is nothing.
    async fn appended(
        &mut self,
        below: Held,
        newer: Expr,
        rows: SendableRecordBatchStream,
        dropped: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Option<Held>, RefreshError> {
        let tail = self.tail(&below, newer).await?;
        let known: HashSet<ChunkId> = tail.chunks().iter().map(|chunk| chunk.id()).collect();
        let build = Build::Append(Append::begin(tail, self.budget.clone()));
        let Some(next) = build.take(&self.dataset, rows).await? else { return Ok(None) };
        let fresh = next.chunks().iter().filter(|chunk| !known.contains(&chunk.id()));
        let fresh = fresh.map(|chunk| chunk.batch()).collect::<Result<_, _>>();
        let fresh = fresh.map_err(|error| RefreshError::fetch(&self.dataset)(error.into()))?;
        let mut chunks = below.chunks.clone();
        let packer = Packer::new(Arc::clone(&below.layout), dropped, self.budget.clone());
        let packer = self.pack(packer, fresh, &mut chunks).await?;
        self.rest(packer, &mut chunks).await?;
        Ok(Some(Held { chunks, watermark: next.watermark(), ..below.next() }))
    }

    /// What is held of the rows that are asked for again, in memory.
    async fn tail(&self, below: &Held, newer: Expr) -> Result<Arc<Generation>, RefreshError> {
        let fetch = RefreshError::fetch(&self.dataset);
        let table = Arc::new(self.folder.table(Arc::clone(below.layout.schema())));
        let rows = self.context.read_table(table).and_then(|all| all.filter(newer)).map_err(&fetch)?;
        let rows = rows.execute_stream().await.map_err(&fetch)?;
        let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(&fetch)?;
        let batches = batches.into_iter().map(|batch| (ChunkId::fresh(), batch)).collect();
        let (layout, number, watermark) = (Arc::clone(&below.layout), below.number, below.watermark);
        let budget = self.budget.clone();
        let tail = blocking("read tail", move || restored(&layout, batches, number, watermark, &budget));
        Ok(tail.await??)
    }

    /// The chunks of `held` less the rows that are dropped; those that lose none keep their file.
    async fn less(
        &mut self,
        held: &Held,
        dropped: &[Arc<dyn PhysicalExpr>],
    ) -> Result<Vec<ChunkId>, RefreshError> {
        let mut chunks = Vec::with_capacity(held.chunks.len());
        for (id, may_lose) in held.chunks.iter().zip(self.may_lose(held, dropped)) {
            if !may_lose {
                chunks.push(*id);
                continue;
            }
            let batch = self.folder.read(*id).await.map_err(self.disk())?;
            let rows = batch.num_rows();
            let (layout, dropped) = (Arc::clone(&held.layout), dropped.to_vec());
            let rest = blocking("retention", move || kept(&layout, batch, &dropped)).await??;
            match rest.num_rows() {
                0 => {}
                left if left == rows => chunks.push(*id),
                _ => chunks.push(self.write(rest).await?),
            }
        }
        Ok(chunks)
    }

    /// For each chunk whether one of `dropped` may be true for one of its rows.
    fn may_lose(&self, held: &Held, dropped: &[Arc<dyn PhysicalExpr>]) -> Vec<bool> {
        let known: Vec<_> = self.known(&held.chunks).into_iter().map(|chunk| chunk.statistics).collect();
        let schema = held.layout.schema();
        let files = PrunableStatistics::new(known, Arc::clone(schema));
        let mut may = vec![false; held.chunks.len()];
        for predicate in dropped {
            let pruning = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
            let found = pruning.build(Arc::clone(predicate)).and_then(|pruning| pruning.prune(&files).ok());
            // What cannot be decided without reading is read.
            let found = found.unwrap_or_else(|| vec![true; may.len()]);
            may.iter_mut().zip(found).for_each(|(may, found)| *may |= found);
        }
        may
    }

    /// Small files beside each other become one.
    async fn compact(&mut self) -> Result<(), RefreshError> {
        let Some(held) = self.held.clone() else { return Ok(()) };
        let joined = self.joined(&held).await;
        match self.or_abandon(joined).await? {
            chunks if chunks.len() == held.chunks.len() => Ok(()),
            chunks => self.seal(Held { chunks, ..held.next() }).await,
        }
    }

    async fn joined(&mut self, held: &Held) -> Result<Vec<ChunkId>, RefreshError> {
        let small: Vec<bool> = self.known(&held.chunks).iter().map(|chunk| chunk.rows < SMALL_ROWS).collect();
        let both: Vec<(ChunkId, bool)> = held.chunks.iter().copied().zip(small).collect();
        let mut chunks = Vec::with_capacity(both.len());
        for run in both.chunk_by(|(_, one), (_, other)| *one && *other) {
            if run.len() < SMALL_FILES_MIN {
                chunks.extend(run.iter().map(|(id, _)| *id));
                continue;
            }
            let mut packer = Packer::new(Arc::clone(&held.layout), Vec::new(), self.budget.clone());
            for (id, _) in run {
                let batch = self.folder.read(*id).await.map_err(self.disk())?;
                packer = self.pack(packer, vec![batch], &mut chunks).await?;
            }
            self.rest(packer, &mut chunks).await?;
        }
        Ok(chunks)
    }

    /// Takes `batches` and writes each pack that they fill.
    async fn pack(
        &mut self,
        mut packer: Packer,
        batches: Vec<RecordBatch>,
        chunks: &mut Vec<ChunkId>,
    ) -> Result<Packer, RefreshError> {
        let packed = blocking("pack rows", move || {
            let mut packs = Vec::new();
            for batch in &batches {
                packs.extend(packer.push(batch)?);
            }
            Ok::<_, RefreshError>((packer, packs))
        });
        let (packer, packs) = packed.await??;
        for pack in packs {
            self.keep(pack, chunks).await?;
        }
        Ok(packer)
    }

    async fn rest(&mut self, mut packer: Packer, chunks: &mut Vec<ChunkId>) -> Result<(), RefreshError> {
        match blocking("pack rest", move || packer.rest()).await?? {
            Some(pack) => self.keep(pack, chunks).await,
            None => Ok(()),
        }
    }

    async fn keep(&mut self, pack: Pack, chunks: &mut Vec<ChunkId>) -> Result<(), RefreshError> {
        chunks.push(self.write(pack.batch.clone()).await?);
        Ok(())
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<ChunkId, RefreshError> {
        let id = ChunkId::fresh();
        self.folder.write(id, batch).await.map_err(self.disk())?;
        Ok(id)
    }

    /// From now on queries and restarts read `next`.
    async fn seal(&mut self, next: Held) -> Result<(), RefreshError> {
        let commit = Commit {
            number: next.number,
            schema: Arc::clone(next.layout.schema()),
            watermark: next.watermark,
            resume: Some(next.lineage.encode()),
        };
        self.folder.seal(commit, next.chunks.clone()).await.map_err(self.disk())?;
        self.show(next);
        Ok(())
    }

    fn show(&mut self, held: Held) {
        let pieces = self.folder.pinned().into_iter().flatten().map(Piece::file);
        self.publication.publish(Published::new(held.lineage.epoch, &held.layout, pieces));
        self.held = Some(held);
    }

    /// What was written for nothing is removed.
    async fn or_abandon<T>(&mut self, done: Result<T, RefreshError>) -> Result<T, RefreshError> {
        if done.is_err() {
            self.abandon().await?;
        }
        done
    }

    fn known(&self, chunks: &[ChunkId]) -> Vec<KnownChunk> {
        chunks.iter().filter_map(|id| self.folder.known(*id)).collect()
    }

    fn disk(&self) -> impl Fn(crate::acceleration::disk::DiskError) -> RefreshError + use<> {
        RefreshError::disk(&self.dataset)
    }
}

impl Held {
    fn next(&self) -> Self {
        Self { number: self.number + 1, ..self.clone() }
    }
}
