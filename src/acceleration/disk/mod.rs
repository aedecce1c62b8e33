//! Generations of accelerated tables on disk, so that a restart serves the last one at once.
//!
//! Chunks of rows enter with a schema, a watermark and whatever the maker wants to find again; after a restart, a
//! kill or a full disk the last whole generation leaves, verified byte by byte, or words that say what is damaged.
//! It never serves half a generation, never changes a file in place, and never touches a file that is not its own.
//!
//! ```text
//! <folder>/lock               held while this process uses the folder
//! <folder>/manifest-<n>       one generation: schema, watermark, list of chunks, CRC-32; the highest whole one counts
//! <folder>/chunk-<n>.parquet  one chunk, shared by all generations that hold it
//! <folder>/damaged-<n>/       what was found damaged, for a person; the last two
//! ```
//!
//! The manifest before the last one and its files stay until the next commit: they are served when the last one turns
//! out damaged.

mod codec;
mod error;
mod files;
mod folder;
mod io;
mod manifest;
mod open;
mod pinned;
mod place;
mod reader;
mod shelf;
mod sums;
mod table;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::chunk_id::ChunkId;

pub(crate) use error::DiskError;
pub(crate) use folder::{Folder, KnownChunk, Lazy};
pub(crate) use pinned::PinnedChunk;
pub(crate) use place::{Roots, folder_of};
pub(crate) use table::DiskTable;

/// What happens to the generation that a folder holds when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `file`: served; without one the table begins empty.
    File,
    /// `file_create`: dropped; the table always begins empty.
    FileCreate,
    /// `file_update`: served; where `file` would begin empty, this is an error and the folder stays as it is.
    FileUpdate,
}

/// Where rows are while they are queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residence {
    /// In memory; the files are for restarts.
    Memory,
    /// In the files alone (`params.resident: false`).
    Files,
}

/// A definition that begins so is of rows that exist nowhere else. They are served, or the folder is not opened: with a
/// generation of such a definition in it, nothing is begun anew for another one, nor where it is damaged.
pub(crate) const SOLE_COPY: &str = "written here: ";

/// How a folder is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub folder: PathBuf,
    pub mode: Mode,
    pub residence: Residence,
    /// What makes the rows what they are (`from`, `refresh_sql`, keys, ...): a generation made for another definition
    /// is not served.
    pub definition: String,
    /// Another definition whose generation is served too. The next commit makes it one of `definition`.
    pub adopts: Option<String>,
    /// A generation that takes more bytes in memory is refused before it is read; only for [`Residence::Memory`].
    pub memory_bytes_max: Option<u64>,
}

/// An open folder and what it held.
#[derive(Debug)]
pub(crate) struct Opened {
    pub folder: Folder,
    pub restored: Option<Restored>,
    pub findings: Findings,
}

/// The last whole generation.
#[derive(Debug)]
pub(crate) struct Restored {
    pub number: u64,
    pub schema: SchemaRef,
    /// Nanoseconds since the epoch.
    pub watermark: Option<i64>,
    /// As it was committed.
    pub resume: Option<Bytes>,
    pub rows: u64,
    pub chunks: Chunks,
}

/// Chunks of a restored generation under new ids, in the order of the table.
#[derive(Debug)]
pub(crate) enum Chunks {
    Memory(Vec<(ChunkId, RecordBatch)>),
    Files(Vec<ChunkId>),
}

/// What is said of a generation when it is committed.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub number: u64,
    pub schema: SchemaRef,
    /// Nanoseconds since the epoch.
    pub watermark: Option<i64>,
    /// What the rows continue; opaque here.
    pub resume: Option<Bytes>,
}

/// What was not as it should be when a folder was opened. Its text is for the dataset's state.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Findings {
    pub damage: Vec<Damage>,
    /// Where the damaged files are now.
    pub evidence: Option<PathBuf>,
    /// A generation made for another definition lies there; the next commit replaces it.
    pub other_definition: bool,
}

/// A file that is not what it was when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub file: PathBuf,
    pub what: String,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.damage.is_empty() && !self.other_definition
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.damage.iter().map(ToString::to_string).collect();
        if let Some(evidence) = &self.evidence {
            parts.push(format!("the damaged files are in {evidence:?}: look at the disk, then delete them"));
        }
        if self.other_definition {
            parts.push("what is stored was made for another definition of the dataset".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is damaged: {}", self.file, self.what)
    }
}
