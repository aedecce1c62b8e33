//! Generations made of the rows of another: some taken out, small chunks joined, read back from disk.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{not, prep_null_mask_filter};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::physical_plan::PhysicalExpr;

use crate::acceleration::chunk_id::ChunkId;

use super::cut::{Cut, Cutter, fingerprint};
use super::generation::watermark;
use super::seal::{Seal, reduced};
use super::{Budget, Chunk, Generation, Layout, StoreError, prune, shape};

/// So many small chunks beside each other are joined: fewer are not worth copying them again and again.
const SMALL_CHUNKS_MIN: usize = 8;

/// `previous` less the rows for which `predicate` (over the table's schema) is true; none when it is true for none.
/// The watermark stays: what was taken out is not asked for again.
///
/// # Errors
/// [`StoreError::Compute`] when the predicate fails on a row, [`StoreError::Memory`].
pub(crate) fn without(
    previous: &Arc<Generation>,
    predicate: &Arc<dyn PhysicalExpr>,
    budget: &Budget,
) -> Result<Option<Arc<Generation>>, StoreError> {
    let layout = previous.layout();
    let may_match = prune::kept(previous, predicate);
    let mut changed = false;
    let mut chunks = Vec::with_capacity(previous.chunks().len());
    for (chunk, may_match) in previous.chunks().iter().zip(may_match) {
        let stays = match may_match {
            true => {
                let batch = chunk.batch().map_err(StoreError::arrow(layout.name()))?;
                staying(&batch, predicate).map_err(StoreError::compute(layout.name()))?
            }
            false => None,
        };
        match stays {
            None => chunks.push(Arc::clone(chunk)),
            Some(stays) => {
                changed = true;
                chunks.extend(reduced(layout, chunk, &stays, budget)?);
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    seal(previous, budget).trusted(chunks).map(Some)
}

/// The same rows in fewer chunks; none when there is nothing to gain.
///
/// # Errors
/// [`StoreError::Memory`].
pub(crate) fn compacted(
    previous: &Arc<Generation>,
    budget: &Budget,
) -> Result<Option<Arc<Generation>>, StoreError> {
    let Some(size) = previous.size() else { return Ok(None) };
    let is_small = |chunk: &Arc<Chunk>| chunk.rows() < size.rows_min();
    let mut chunks = Vec::new();
    for run in previous.chunks().chunk_by(|one, other| is_small(one) && is_small(other)) {
        match run.len() < SMALL_CHUNKS_MIN {
            true => chunks.extend(run.iter().cloned()),
            false => chunks.extend(joined(previous, run, budget)?),
        }
    }
    if chunks.len() == previous.chunks().len() {
        return Ok(None);
    }
    seal(previous, budget).trusted(chunks).map(Some)
}

/// A generation as it was written: batches that own their buffers, each under its id.
///
/// # Errors
/// [`StoreError::Schema`] for a batch of other columns, [`StoreError::Memory`], [`StoreError::Time`].
pub(crate) fn restored(
    layout: &Arc<Layout>,
    batches: Vec<(ChunkId, RecordBatch)>,
    number: u64,
    last: Option<i64>,
    budget: &Budget,
) -> Result<Arc<Generation>, StoreError> {
    let mut chunks = Vec::with_capacity(batches.len());
    let mut cutter = Cutter::new(None);
    for (id, batch) in batches.into_iter().filter(|(_, batch)| batch.num_rows() > 0) {
        let batch = shape::fitted(layout.schema(), &batch).map_err(|reason| layout.mismatch(reason))?;
        cutter.measure(&batch);
        let fingerprint = fingerprint(&batch).map_err(StoreError::compute(layout.name()))?;
        chunks.push(Chunk::keep(layout, id, batch, fingerprint, budget)?);
    }
    let watermark = watermark(last, &chunks);
    let seal = Seal { layout, number, previous: None, size: cutter.size(), watermark, budget };
    seal.trusted(chunks)
}

fn seal<'a>(previous: &'a Arc<Generation>, budget: &'a Budget) -> Seal<'a> {
    Seal {
        layout: previous.layout(),
        number: previous.number() + 1,
        previous: Some(previous),
        size: previous.size(),
        watermark: previous.watermark(),
        budget,
    }
}

/// Which rows stay, when not all of them do. A row for which the predicate is NULL stays.
pub(super) fn staying(
    batch: &RecordBatch,
    predicate: &Arc<dyn PhysicalExpr>,
) -> Result<Option<BooleanArray>> {
    let matched = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    let Some(matched) = matched.as_boolean_opt() else {
        return plan_err!("{predicate} is no condition but a {}", matched.data_type());
    };
    let matched = match matched.null_count() {
        0 => matched.clone(),
        _ => prep_null_mask_filter(matched),
    };
    match matched.has_true() {
        true => Ok(Some(not(&matched)?)),
        false => Ok(None),
    }
}

fn joined(previous: &Generation, run: &[Arc<Chunk>], budget: &Budget) -> Result<Vec<Arc<Chunk>>, StoreError> {
    let layout = previous.layout();
    let mut cutter = Cutter::new(previous.size());
    let mut cuts: Vec<Cut> = Vec::new();
    for chunk in run {
        let batch = chunk.batch().map_err(StoreError::arrow(layout.name()))?;
        cuts.extend(cutter.push(&batch).map_err(StoreError::compute(layout.name()))?);
    }
    cuts.extend(cutter.rest());
    cuts.iter().map(|cut| Chunk::build(layout, &cut.pieces, cut.fingerprint, budget)).collect()
}
