//! What lies in an open folder, and each step that changes it. All of it blocks.
//!
//! A chunk's file is written under a temporary name, made durable and renamed; when all are there a manifest that
//! names them follows in the same way. Only then do files go that neither the new manifest nor the one before names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;

use super::super::chunk_id::ChunkId;
use super::Commit;
use super::codec::difference;
use super::error::DiskError;
use super::files::{ChunkFile, Files, Name, Place};
use super::manifest::{self, Entry, Manifest};
use super::sums::Sums;

/// A manifest on disk and the files that it names, by number.
#[derive(Debug)]
pub(super) struct Kept {
    pub sequence: u64,
    pub files: Vec<u64>,
}

/// The state of an open folder.
#[derive(Debug)]
pub(super) struct Shelf {
    pub place: Arc<Place>,
    pub definition: String,
    /// The generation that was served or committed last.
    pub current: Option<Kept>,
    /// The one before, and manifests of which it is not known whether they are durable.
    pub others: Vec<Kept>,
    /// Every chunk file that is here, by number.
    pub files: HashMap<u64, Arc<ChunkFile>>,
    /// The chunks of `current`, and those written since, by the number of their file.
    pub ids: HashMap<ChunkId, u64>,
    pub next_manifest: u64,
    pub next_chunk: u64,
    /// What new scans read.
    pub served: Arc<ArcSwapOption<Files>>,
}

/// A chunk ready to be written.
#[derive(Debug)]
pub(super) struct Encoded {
    pub id: ChunkId,
    pub schema: SchemaRef,
    pub rows: u64,
    pub memory: u64,
    pub content: Bytes,
    pub sums: Sums,
    pub footer: Option<Arc<ParquetMetaData>>,
}

impl Shelf {
    pub fn holds(&self, id: ChunkId) -> bool {
        self.ids.contains_key(&id)
    }

    pub fn file(&self, id: ChunkId) -> Option<Arc<ChunkFile>> {
        self.ids.get(&id).and_then(|file| self.files.get(file)).cloned()
    }

    /// Knows a file that is here; answers its number.
    pub fn add(&mut self, entry: &Entry, schema: &SchemaRef, footer: Option<Arc<ParquetMetaData>>) -> u64 {
        let chunk = ChunkFile::new(Arc::clone(&self.place), entry.clone(), Arc::clone(schema), footer);
        self.files.insert(entry.file, chunk);
        entry.file
    }

    /// New scans read these files from now on.
    pub fn serve(&self, schema: &SchemaRef, files: &[u64]) {
        let chunks = files.iter().filter_map(|file| self.files.get(file)).cloned().collect();
        self.served.store(Some(Arc::new(Files { schema: Arc::clone(schema), chunks })));
    }

    /// The names of all files that are needed.
    pub fn names(&self) -> HashSet<Name> {
        let manifests = self.current.iter().chain(&self.others).map(|kept| Name::Manifest(kept.sequence));
        manifests.chain(self.files.keys().map(|file| Name::Chunk(*file))).collect()
    }

    /// The number of the next chunk's file. One that failed is not used again: what it left behind cannot be taken for
    /// something else.
    pub fn reserve(&mut self) -> u64 {
        let file = self.next_chunk;
        self.next_chunk += 1;
        file
    }

    /// Knows a chunk that was written to `file`; no manifest names it yet.
    pub fn stored(&mut self, file: u64, chunk: Encoded) {
        let entry = Entry {
            file,
            rows: chunk.rows,
            bytes: chunk.content.len() as u64,
            memory: chunk.memory,
            crc32: chunk.sums.whole,
            blocks: chunk.sums.blocks,
        };
        let file = self.add(&entry, &chunk.schema, chunk.footer);
        self.ids.insert(chunk.id, file);
    }

    /// Makes `ids`, all of them written, the table.
    pub fn seal(&mut self, commit: Commit, ids: &[ChunkId]) -> Result<(), DiskError> {
        let chunks = ids.iter().map(|id| self.chunk(*id, &commit.schema)).collect::<Result<Vec<_>, _>>()?;
        if ids.iter().collect::<HashSet<_>>().len() < ids.len() {
            let reason = "it would name a chunk twice".to_owned();
            return Err(DiskError::Manifest { folder: self.place.folder.clone(), reason });
        }
        let schema = Arc::clone(&commit.schema);
        let content = self.manifest(commit, &chunks)?;
        self.sync()?;
        let sequence = self.next_manifest;
        self.next_manifest += 1;
        put(&self.place, Name::Manifest(sequence), &content)?;
        // From here on a restart may find it: should this sync fail, neither it nor the one before may lose a file.
        let files: Vec<u64> = chunks.iter().map(|chunk| chunk.entry.file).collect();
        drop(chunks);
        self.others.push(Kept { sequence, files: files.clone() });
        self.sync()?;
        self.turn();
        self.serve(&schema, &files);
        let named = self.named();
        self.discard_all_but(&named);
        Ok(())
    }

    /// Forgets chunks that were written and that no manifest names.
    pub fn abandon(&mut self) {
        let named = self.named();
        self.ids.retain(|_, file| named.contains(file));
        self.discard_all_but(&named);
    }

    fn chunk(&self, id: ChunkId, schema: &SchemaRef) -> Result<Arc<ChunkFile>, DiskError> {
        let Some(chunk) = self.file(id) else {
            return Err(DiskError::Unwritten { folder: self.place.folder.clone(), chunk: id });
        };
        match chunk.schema.fields() == schema.fields() {
            true => Ok(chunk),
            false => Err(DiskError::Schema { difference: difference(schema, &chunk.schema) }),
        }
    }

    fn manifest(&self, commit: Commit, chunks: &[Arc<ChunkFile>]) -> Result<Vec<u8>, DiskError> {
        let manifest = Manifest {
            number: commit.number,
            definition: self.definition.clone(),
            schema: commit.schema,
            watermark: commit.watermark,
            resume: commit.resume,
            chunks: chunks.iter().map(|chunk| chunk.entry.clone()).collect(),
        };
        let folder = || self.place.folder.clone();
        let content = manifest.encode().map_err(|reason| DiskError::Manifest { folder: folder(), reason })?;
        match content.len() > manifest::BYTES_MAX {
            true => Err(DiskError::ManifestTooLarge {
                folder: folder(),
                bytes: content.len(),
                limit: manifest::BYTES_MAX,
            }),
            false => Ok(content),
        }
    }

    fn sync(&self) -> Result<(), DiskError> {
        let folder = &self.place.folder;
        self.place.io.sync_folder(folder).map_err(DiskError::io("sync folder", folder))
    }

    /// The manifest written last is the table's now; the one before is kept, whatever is older goes.
    fn turn(&mut self) {
        let sealed = self.others.pop();
        let before = std::mem::replace(&mut self.current, sealed);
        let mut old = std::mem::take(&mut self.others);
        // Where nothing was served before, the newest of what was not served is what is kept.
        let spare = before.or_else(|| old.pop());
        // A manifest that cannot be removed keeps its files: a restart could read it.
        old.retain(|kept| !self.place.clear(&self.place.path(Name::Manifest(kept.sequence))));
        self.others = old;
        self.others.extend(spare);
        let current: HashSet<u64> = self.current.iter().flat_map(|kept| kept.files.iter().copied()).collect();
        self.ids.retain(|_, file| current.contains(file));
    }

    /// The numbers of all files that a manifest here names.
    fn named(&self) -> HashSet<u64> {
        self.current.iter().chain(&self.others).flat_map(|kept| kept.files.iter().copied()).collect()
    }

    fn discard_all_but(&mut self, named: &HashSet<u64>) {
        for (_, chunk) in self.files.extract_if(|file, _| !named.contains(file)) {
            chunk.discard();
        }
    }
}

/// Writes a file aside, makes it durable and gives it its name; leaves nothing behind on failure. Blocks.
///
/// # Errors
/// What failed and at which file.
pub(super) fn put(place: &Place, name: Name, content: &[u8]) -> Result<(), DiskError> {
    let (aside, path) = (place.temporary(name), place.path(name));
    let io = &place.io;
    let done = io
        .write(&aside, content)
        .map_err(DiskError::io("write", &aside))
        .and_then(|()| io.rename(&aside, &path).map_err(DiskError::io("rename to", &path)));
    if done.is_err() {
        place.clear(&aside);
    }
    done
}
