//! The async door to a folder: files are read and written on threads for blocking work.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::Statistics;
use futures::StreamExt;

use crate::task::{blocking, cores};

use super::super::chunk_id::ChunkId;
use super::files::{Files, Name};
use super::io::{Io, Machine};
use super::shelf::{Encoded, Shelf, put};
use super::sums::Sums;
use super::{Commit, DiskError, DiskTable, Opened, PinnedChunk, Residence, Settings, codec, open};

/// Chunks that are compressed or verified at a time, at most.
const WORKERS_MAX: usize = 4;
/// Chunks that are written at a time, at most.
const WRITES_MAX: usize = 8;

/// A chunk on disk.
#[derive(Debug, Clone)]
pub(crate) struct KnownChunk {
    pub rows: u64,
    /// Of the file.
    pub bytes: u64,
    /// Least and greatest values and null counts, where the file's footer is held and sure of them.
    pub statistics: Arc<Statistics>,
}

/// The rows of a chunk, put together only where they have to be written.
pub(crate) struct Lazy(Box<dyn FnOnce() -> Result<RecordBatch, ArrowError> + Send>);

impl Lazy {
    pub(crate) fn new(rows: impl FnOnce() -> Result<RecordBatch, ArrowError> + Send + 'static) -> Self {
        Self(Box::new(rows))
    }
}

impl From<RecordBatch> for Lazy {
    fn from(batch: RecordBatch) -> Self {
        Self::new(|| Ok(batch))
    }
}

/// One dataset's folder, held by a lock until it is dropped and the last scan on its files has ended.
pub(crate) struct Folder {
    shelf: Arc<Mutex<Shelf>>,
    residence: Residence,
    served: Arc<ArcSwapOption<Files>>,
}

impl Folder {
    /// Takes the folder, verifies what it holds, sweeps what was left behind, and hands out the last whole generation.
    ///
    /// Where that one is damaged the generation before is handed out, and where both are none is; the findings say
    /// so, and the damaged files are set aside.
    ///
    /// # Errors
    /// The folder is in use, the disk fails, or what is there must not be used (see [`DiskError`]); the folder is
    /// then as it was.
    pub async fn open(settings: Settings) -> Result<Opened, DiskError> {
        Self::open_on(Arc::new(Machine), settings).await
    }

    pub(super) async fn open_on(io: Arc<dyn Io>, settings: Settings) -> Result<Opened, DiskError> {
        let residence = settings.residence;
        let (shelf, restored, findings) = open::open(io, settings).await?;
        let served = Arc::clone(&shelf.served);
        let folder = Self { shelf: Arc::new(Mutex::new(shelf)), residence, served };
        Ok(Opened { folder, restored, findings })
    }

    /// Says whether rows of `schema` can be kept on disk.
    ///
    /// # Errors
    /// [`DiskError::Type`] with the first column that cannot.
    pub async fn check(schema: &SchemaRef) -> Result<(), DiskError> {
        let schema = Arc::clone(schema);
        blocking("check schema", move || codec::check(&schema)).await?
    }

    /// The table of this folder for [`Residence::Files`]: each scan reads what was committed last. It answers for
    /// `schema` alone; a changed one needs a new table.
    pub fn table(&self, schema: SchemaRef) -> DiskTable {
        DiskTable::new(schema, Arc::clone(&self.served))
    }

    /// The chunks of the generation that was served or committed last, in the order of the table, pinned. None before
    /// there is one.
    pub fn pinned(&self) -> Option<Vec<PinnedChunk>> {
        self.served.load().as_ref().map(|files| files.chunks.iter().map(PinnedChunk::new).collect())
    }

    /// What is known of a chunk that was written, without reading it.
    pub fn known(&self, id: ChunkId) -> Option<KnownChunk> {
        let file = self.lock().file(id)?;
        Some(KnownChunk { rows: file.entry.rows, bytes: file.entry.bytes, statistics: file.statistics() })
    }

    /// The rows of a chunk that was written, verified.
    ///
    /// # Errors
    /// [`DiskError::Unwritten`], [`DiskError::Damaged`], or the disk's failure.
    pub async fn read(&self, id: ChunkId) -> Result<RecordBatch, DiskError> {
        let file = {
            let shelf = self.lock();
            let unwritten = || DiskError::Unwritten { folder: shelf.place.folder.clone(), chunk: id };
            shelf.file(id).ok_or_else(unwritten)?
        };
        blocking("read chunk", move || open::rows_of(&file)).await?
    }

    /// Makes `chunks` the generation that a restart finds: writes those whose id is not there yet, then names all.
    ///
    /// # Errors
    /// What failed and at which file. The generation before stays valid, nothing of this one stays on disk, and the
    /// next commit may succeed.
    pub async fn commit(
        &mut self,
        commit: Commit,
        chunks: Vec<(ChunkId, impl Into<Lazy>)>,
    ) -> Result<(), DiskError> {
        let ids = chunks.iter().map(|(id, _)| *id).collect();
        match self.write_missing(chunks.into_iter().map(|(id, rows)| (id, rows.into()))).await {
            Ok(()) => self.seal(commit, ids).await,
            Err(error) => {
                self.abandon().await?;
                Err(error)
            }
        }
    }

    /// Writes one chunk ahead of the [`Folder::seal`] that will name it; a chunk that is there already is not written
    /// again. For tables that are never in memory as a whole.
    ///
    /// # Errors
    /// What failed and at which file; what was written before stays until [`Folder::seal`] or [`Folder::abandon`].
    pub async fn write(&mut self, id: ChunkId, batch: RecordBatch) -> Result<(), DiskError> {
        self.write_missing([(id, batch.into())]).await
    }

    /// Makes chunks that are on disk the generation that a restart finds, and that new scans read. Every other chunk
    /// that was written is removed.
    ///
    /// # Errors
    /// As for [`Folder::commit`].
    pub async fn seal(&mut self, commit: Commit, ids: Vec<ChunkId>) -> Result<(), DiskError> {
        self.on_shelf("commit generation", move |shelf| {
            let sealed = shelf.seal(commit, &ids);
            if sealed.is_err() {
                shelf.abandon();
            }
            sealed
        })
        .await?
    }

    /// Removes what was written since the last commit.
    ///
    /// # Errors
    /// The process is ending.
    pub async fn abandon(&mut self) -> Result<(), DiskError> {
        self.on_shelf("abandon generation", Shelf::abandon).await
    }

    async fn write_missing(
        &mut self,
        chunks: impl IntoIterator<Item = (ChunkId, Lazy)>,
    ) -> Result<(), DiskError> {
        let mut seen = HashSet::new();
        let (place, missing) = {
            let shelf = self.lock();
            let missing = chunks.into_iter().filter(|(id, _)| !shelf.holds(*id) && seen.insert(*id));
            (Arc::clone(&shelf.place), missing.collect::<Vec<_>>())
        };
        let (residence, has_failed) = (self.residence, AtomicBool::new(false));
        let goes_on = |_: &(ChunkId, Lazy)| std::future::ready(!has_failed.load(Ordering::Relaxed));
        let encoded = futures::stream::iter(missing)
            .take_while(goes_on)
            .map(|(id, rows)| async move {
                blocking("compress chunk", move || {
                    let batch = (rows.0)().map_err(|error| DiskError::Encode(error.into()))?;
                    encode(id, &batch, residence)
                })
                .await?
            })
            .buffered(workers());
        // A disk makes several files durable in the time of one.
        let mut written = encoded
            .map(|chunk| {
                let (place, file) = (Arc::clone(&place), self.lock().reserve());
                async move {
                    let chunk: Encoded = chunk?;
                    blocking("write chunk", move || {
                        put(&place, Name::Chunk(file), &chunk.content).map(|()| (file, chunk))
                    })
                    .await?
                }
            })
            .buffered(WRITES_MAX);
        let mut done = Ok(());
        // After a failure the others end too, so that every file that is there is known.
        while let Some(chunk) = written.next().await {
            match chunk {
                Ok((file, chunk)) => self.lock().stored(file, chunk),
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    done = done.and(Err(error));
                }
            }
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_shelf<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Shelf) -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let shelf = Arc::clone(&self.shelf);
        let done =
            blocking(name, move || work(&mut shelf.lock().unwrap_or_else(PoisonError::into_inner))).await;
        Ok(done?)
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("residence", &self.residence).finish_non_exhaustive()
    }
}

/// How many chunks are worked on at a time.
pub(super) fn workers() -> usize {
    cores().min(WORKERS_MAX)
}

fn encode(id: ChunkId, batch: &RecordBatch, residence: Residence) -> Result<Encoded, DiskError> {
    let content = codec::encode(batch).map_err(DiskError::Encode)?;
    let rows = batch.num_rows() as u64;
    let footer = match residence {
        Residence::Memory => None,
        Residence::Files => Some(codec::footer(&content, &batch.schema(), rows).map_err(DiskError::Encode)?),
    };
    Ok(Encoded {
        id,
        schema: batch.schema(),
        rows,
        memory: batch.get_array_memory_size() as u64,
        sums: Sums::of(&content),
        content: content.into(),
        footer,
    })
}
