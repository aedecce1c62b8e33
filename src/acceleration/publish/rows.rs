//! The rows of one generation by their numbers, read a piece at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::acceleration::disk::PinnedChunk;
use crate::acceleration::store::{Chunk, Layout, Role};
use crate::proto::stream::{Epoch, Position};

/// A run of rows that is read at once. Holding it holds the rows, in memory or on disk.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(super) rows: u64,
    /// In memory, or of the file.
    pub(super) bytes: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Chunk(Arc<Chunk>),
    File(PinnedChunk),
    Batch(Arc<RecordBatch>),
}

/// One generation: the first rows of its epoch, all that there are by now.
#[derive(Debug)]
pub(crate) struct Published {
    epoch: Epoch,
    schema: SchemaRef,
    /// The names of the primary key's columns, empty without one.
    primary_key: Arc<[String]>,
    pieces: Vec<Piece>,
    /// For each piece the number of its last row.
    ends: Vec<u64>,
}

impl Piece {
    pub(crate) fn chunk(chunk: &Arc<Chunk>) -> Self {
        let (rows, bytes) = (chunk.rows() as u64, chunk.bytes() as u64);
        Self { rows, bytes, source: Source::Chunk(Arc::clone(chunk)) }
    }

    pub(crate) fn file(file: PinnedChunk) -> Self {
        Self { rows: file.rows(), bytes: file.bytes(), source: Source::File(file) }
    }

    pub(crate) fn batch(batch: RecordBatch) -> Self {
        let (rows, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size() as u64);
        Self { rows, bytes, source: Source::Batch(Arc::new(batch)) }
    }

    /// Tells what is held twice from what is held once, among pieces that are held at the same time.
    pub(super) fn address(&self) -> usize {
        match &self.source {
            Source::Chunk(chunk) => Arc::as_ptr(chunk).addr(),
            Source::File(file) => file.address(),
            Source::Batch(batch) => Arc::as_ptr(batch).addr(),
        }
    }

    /// What [`Piece::read`] takes beside what is held anyway, in bytes.
    pub(super) fn unpacked_bytes(&self) -> usize {
        match &self.source {
            Source::Chunk(chunk) => chunk.unpacked_bytes(),
            Source::File(file) => usize::try_from(file.memory()).unwrap_or(usize::MAX),
            Source::Batch(_) => 0,
        }
    }

    /// Its rows `from` to `to`, counted from zero, the last one left out. Blocks.
    ///
    /// # Errors
    /// What the disk or a kernel says.
    pub(super) fn read(&self, from: u64, to: u64) -> Result<RecordBatch, String> {
        let all = match &self.source {
            Source::Chunk(chunk) => chunk.batch().map_err(|error| error.to_string())?,
            Source::File(file) => file.read().map_err(|error| error.to_string())?,
            Source::Batch(batch) => RecordBatch::clone(batch),
        };
        let bad = || format!("rows {from} to {to} were to be read of {}", all.num_rows());
        let (from, to) = (usize::try_from(from).map_err(|_| bad())?, usize::try_from(to).map_err(|_| bad())?);
        match from <= to && to <= all.num_rows() {
            true => Ok(all.slice(from, to - from)),
            false => Err(bad()),
        }
    }
}

impl Published {
    /// The generation of these pieces, in the order of the table; each is of the layout's schema.
    pub(crate) fn new(epoch: Epoch, layout: &Layout, pieces: impl IntoIterator<Item = Piece>) -> Self {
        let primary = layout.keys().iter().find(|key| matches!(key.role, Role::Primary { .. }));
        let columns = primary.map_or(&[][..], |key| &key.columns);
        let name = |column: &usize| layout.schema().field(*column).name().clone();
        let primary_key = columns.iter().map(name).collect();
        Self { primary_key, ..Self::of(epoch, layout.schema(), pieces) }
    }

    /// The same of a table without a key.
    pub(crate) fn of(epoch: Epoch, schema: &SchemaRef, pieces: impl IntoIterator<Item = Piece>) -> Self {
        let pieces: Vec<Piece> = pieces.into_iter().filter(|piece| piece.rows > 0).collect();
        let mut rows = 0;
        let ends = pieces.iter().map(|piece| {
            rows += piece.rows;
            rows
        });
        let ends = ends.collect();
        Self { epoch, schema: Arc::clone(schema), primary_key: Arc::new([]), pieces, ends }
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.ends.last().copied().unwrap_or_default() }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn primary_key(&self) -> &Arc<[String]> {
        &self.primary_key
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The piece that follows on `sent` rows, and how many rows stand before it.
    pub(super) fn piece_after(&self, sent: u64) -> Option<(&Piece, u64)> {
        let at = self.ends.partition_point(|end| *end <= sent);
        let piece = self.pieces.get(at)?;
        Some((piece, self.ends[at] - piece.rows))
    }

    /// That piece and those behind it, and how many rows stand before them.
    pub(super) fn rest(&self, sent: u64) -> (Vec<Piece>, u64) {
        let at = self.ends.partition_point(|end| *end <= sent);
        let before = at.checked_sub(1).map_or(0, |last| self.ends[last]);
        (self.pieces[at..].to_vec(), before)
    }
}
