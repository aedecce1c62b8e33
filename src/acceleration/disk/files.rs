//! The files of a folder as objects: where they lie, who still reads them, and when they go.
//!
//! A chunk's file lives as long as somebody holds its [`ChunkFile`], even when no manifest names it any more; the
//! last holder's drop removes it. The folder's lock lives as long as any of them, so that no other process takes
//! files from under a scan.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use parquet::file::metadata::ParquetMetaData;

use crate::task::blocking_detached;

use super::codec;
use super::io::{Held, Io};
use super::manifest::Entry;

const TEMPORARY: &str = ".tmp";
const MANIFEST: &str = "manifest-";
const CHUNK: &str = "chunk-";
const CHUNK_END: &str = ".parquet";
const EVIDENCE: &str = "damaged-";

/// What a name in the folder stands for. Names that are none of these belong to somebody else and are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Lock,
    Manifest(u64),
    Chunk(u64),
    /// A folder of damaged files, kept for a person.
    Evidence(u64),
}

/// A name found in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Whole(Name),
    /// Was being written.
    Temporary(Name),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("lock"),
            Self::Manifest(number) => write!(f, "{MANIFEST}{number}"),
            Self::Chunk(number) => write!(f, "{CHUNK}{number}{CHUNK_END}"),
            Self::Evidence(number) => write!(f, "{EVIDENCE}{number}"),
        }
    }
}

impl Found {
    /// What `text` stands for, if it is exactly as this room writes it.
    pub fn read(text: &str) -> Option<Self> {
        let (name, found): (_, fn(Name) -> Self) = match text.strip_suffix(TEMPORARY) {
            Some(name) => (name, Self::Temporary),
            None => (text, Self::Whole),
        };
        let number = |text: &str| text.parse::<u64>().ok();
        let read = if name == "lock" {
            Name::Lock
        } else if let Some(rest) = name.strip_prefix(MANIFEST) {
            Name::Manifest(number(rest)?)
        } else if let Some(rest) = name.strip_prefix(CHUNK) {
            Name::Chunk(number(rest.strip_suffix(CHUNK_END)?)?)
        } else {
            Name::Evidence(number(name.strip_prefix(EVIDENCE)?)?)
        };
        // `chunk-007.parquet` or `chunk-+7.parquet` are not ours.
        (read.to_string() == name).then(|| found(read))
    }
}

/// A locked folder.
pub(super) struct Place {
    pub folder: PathBuf,
    pub io: Arc<dyn Io>,
    _lock: Held,
}

impl Place {
    pub fn new(folder: PathBuf, io: Arc<dyn Io>, lock: Held) -> Arc<Self> {
        Arc::new(Self { folder, io, _lock: lock })
    }

    pub fn path(&self, name: Name) -> PathBuf {
        self.folder.join(name.to_string())
    }

    pub fn temporary(&self, name: Name) -> PathBuf {
        self.folder.join(format!("{name}{TEMPORARY}"))
    }

    /// Removes what nobody needs. A file that stays is only space, which the next open sweeps: it is not an error.
    pub fn clear(&self, path: &Path) -> bool {
        match self.io.remove(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot remove an old file of an acceleration");
                false
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({:?})", self.folder)
    }
}

/// One chunk's file. Whoever holds it has it pinned.
#[derive(Debug)]
pub(super) struct ChunkFile {
    pub place: Arc<Place>,
    pub entry: Entry,
    pub schema: SchemaRef,
    /// Where rows are read from the file and not held in memory.
    pub footer: Option<Arc<ParquetMetaData>>,
    /// Made from the footer at the first scan.
    statistics: OnceLock<Arc<Statistics>>,
    /// Set when no manifest names it any more.
    unwanted: AtomicBool,
}

impl ChunkFile {
    pub fn new(
        place: Arc<Place>,
        entry: Entry,
        schema: SchemaRef,
        footer: Option<Arc<ParquetMetaData>>,
    ) -> Arc<Self> {
        let (statistics, unwanted) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(Self { place, entry, schema, footer, statistics, unwanted })
    }

    pub fn path(&self) -> PathBuf {
        self.place.path(Name::Chunk(self.entry.file))
    }

    /// Exact row count; of the columns what the footer is sure of.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(self.statistics.get_or_init(|| {
            Arc::new(match &self.footer {
                Some(footer) => codec::statistics(footer, &self.schema),
                None => Statistics::new_unknown(&self.schema),
            })
        }))
    }

    /// Gives up a holder's share of a file that no manifest names: it is removed here, or by the last scan on it.
    /// Blocks.
    pub fn discard(self: Arc<Self>) {
        self.unwanted.store(true, Ordering::Release);
        if let Some(mut last) = Arc::into_inner(self) {
            *last.unwanted.get_mut() = false;
            last.place.clear(&last.path());
        }
    }
}

impl Drop for ChunkFile {
    fn drop(&mut self) {
        if *self.unwanted.get_mut() {
            let (place, path) = (Arc::clone(&self.place), self.path());
            blocking_detached("remove chunk", move || {
                place.clear(&path);
            });
        }
    }
}

/// The files of one generation, pinned together.
#[derive(Debug)]
pub(super) struct Files {
    pub schema: SchemaRef,
    pub chunks: Vec<Arc<ChunkFile>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_read_as_ours() {
        for name in [Name::Lock, Name::Manifest(0), Name::Chunk(u64::MAX), Name::Evidence(3)] {
            assert_eq!(Found::read(&name.to_string()), Some(Found::Whole(name)));
            assert_eq!(Found::read(&format!("{name}.tmp")), Some(Found::Temporary(name)));
        }
        for text in
            ["", "chunk-", "chunk-1", "chunk-01.parquet", "chunk-+1.parquet", "manifest-1.bak", "x.parquet"]
        {
            assert_eq!(Found::read(text), None, "{text}");
        }
    }
}
