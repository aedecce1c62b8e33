//! Parts of a chunk's file for a scan, each block verified before a byte of it is used.
//!
//! Parquet's writer makes no checksums for pages, so a flipped bit on disk could pass for a row: every read is widened
//! to whole blocks and compared with the sums of the manifest.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::task::blocking;

use super::Damage;
use super::error::DiskError;
use super::files::ChunkFile;
use super::sums::{BLOCK_BYTES, block_is_right};

/// A chunk's file on its way through a plan: pinned for as long as the plan or its stream lives.
#[derive(Debug)]
pub(super) struct Pinned(pub Arc<ChunkFile>);

/// Opens the files that a plan has pinned, and no others.
pub(super) struct Readers;

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers")
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let Some(Pinned(chunk)) = file.extension::<Pinned>() else {
            return Err(DataFusionError::Internal(format!("{} is not a pinned file", file.path())));
        };
        let bytes = MetricBuilder::new(metrics).counter("bytes_read", partition);
        Ok(Box::new(Reader { chunk: Arc::clone(chunk), bytes }))
    }
}

struct Reader {
    chunk: Arc<ChunkFile>,
    /// Read from disk, whole blocks.
    bytes: Count,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let mut found = self.get_byte_ranges(vec![range]).await?;
            found.pop().ok_or_else(|| ParquetError::General("no bytes were read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let (chunk, bytes) = (Arc::clone(&self.chunk), self.bytes.clone());
        async move {
            let read = blocking("read chunk", move || read(&chunk, &ranges, &bytes)).await;
            let found = read.map_err(DiskError::from).and_then(|found| found);
            found.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let footer = self.chunk.footer.clone();
        async move { footer.ok_or_else(|| ParquetError::General("the chunk is held in memory".to_owned())) }
            .boxed()
    }
}

/// The bytes of each range, in the order asked.
fn read(chunk: &ChunkFile, ranges: &[Range<u64>], bytes: &Count) -> Result<Vec<Bytes>, DiskError> {
    let path = chunk.path();
    let failed = |error| DiskError::io("read", &path)(error);
    let mut file = chunk.place.io.open(&path).map_err(failed)?.content;
    let mut runs: Vec<(u64, Bytes)> = Vec::new();
    for blocks in runs_of(ranges) {
        let start = blocks.start * BLOCK_BYTES as u64;
        let length = (blocks.end * BLOCK_BYTES as u64).min(chunk.entry.bytes).saturating_sub(start);
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        file.by_ref().take(length).read_to_end(&mut content).map_err(failed)?;
        bytes.add(content.len());
        verify(chunk, blocks.start, &content, length)?;
        runs.push((start, content.into()));
    }
    ranges.iter().map(|range| part(&runs, range).ok_or_else(|| broken(chunk, "it ends too early"))).collect()
}

/// The blocks that the ranges touch, as few runs as there are gaps between them.
fn runs_of(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let block = BLOCK_BYTES as u64;
    let mut blocks: Vec<Range<u64>> =
        ranges.iter().map(|range| range.start / block..range.end.div_ceil(block)).collect();
    blocks.sort_unstable_by_key(|blocks| blocks.start);
    let mut runs: Vec<Range<u64>> = Vec::new();
    for next in blocks {
        match runs.last_mut() {
            Some(run) if next.start <= run.end => run.end = run.end.max(next.end),
            _ => runs.push(next),
        }
    }
    runs
}

fn verify(chunk: &ChunkFile, first: u64, content: &[u8], length: u64) -> Result<(), DiskError> {
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    let mut blocks = content.chunks(BLOCK_BYTES).enumerate();
    let whole = content.len() as u64 == length;
    match whole
        && blocks.all(|(at, block)| block_is_right(&chunk.entry.blocks, first.saturating_add(at), block))
    {
        true => Ok(()),
        false => {
            Err(broken(chunk, "its checksums are not those of the commit; restart to fall back or reload"))
        }
    }
}

fn broken(chunk: &ChunkFile, what: &str) -> DiskError {
    DiskError::Damaged(Damage { file: chunk.path(), what: what.to_owned() })
}

fn part(runs: &[(u64, Bytes)], range: &Range<u64>) -> Option<Bytes> {
    let (start, run) = runs.iter().rev().find(|(start, _)| *start <= range.start)?;
    let from = usize::try_from(range.start - start).ok()?;
    let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
    (from <= to && to <= run.len()).then(|| run.slice(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_share_blocks_and_keep_their_order() {
        let block = BLOCK_BYTES as u64;
        assert_eq!(runs_of(&[5 * block..5 * block + 1, 0..1, 1..block + 1]), [0..2, 5..6]);
        let runs = vec![(0, Bytes::from(vec![1; 10])), (block, Bytes::from(vec![2; 10]))];
        assert_eq!(part(&runs, &(block..block + 3)).unwrap(), vec![2; 3]);
        assert_eq!(part(&runs, &(8..10)).unwrap(), vec![1; 2]);
        assert_eq!(part(&runs, &(8..11)), None);
    }
}
