//! What can go wrong on disk, in words that name the file and say what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::task::BlockingError;

use super::super::chunk_id::ChunkId;
use super::Damage;

/// A folder that cannot be opened or written. Whatever it says, the generation that was committed last stays valid.
#[derive(Debug, Error)]
pub(crate) enum DiskError {
    #[error(
        "folder {folder:?} is in use by another process, or by another dataset of this one: stop the other, or give \
         this dataset a folder of its own (acceleration.params.file_path)"
    )]
    Locked { folder: PathBuf },
    #[error("cannot {doing} {path:?}: {source}{}", help_for(.source))]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "column `{column}` has the type {data_type}, which cannot be kept on disk ({reason}): leave the column out \
         with refresh_sql, or use mode: memory"
    )]
    Type { column: String, data_type: String, reason: String },
    #[error("a table without columns cannot be kept on disk")]
    NoColumns,
    #[error("rows do not have the schema of their generation: {difference}")]
    Schema { difference: String },
    #[error("chunk {chunk} was never written to folder {folder:?}")]
    Unwritten { folder: PathBuf, chunk: ChunkId },
    #[error("the manifest of folder {folder:?} cannot be written: {reason}")]
    Manifest { folder: PathBuf, reason: String },
    #[error(
        "folder {folder:?} holds no generation of this dataset, and mode: file_update asks for one: {reason}; use \
         mode: file to begin empty"
    )]
    Absent { folder: PathBuf, reason: String },
    #[error(
        "folder {folder:?} holds rows that were written here and exist nowhere else, and they cannot be served: \
         {reason}; set the dataset back to what it was, or move the folder away to begin without them"
    )]
    SoleCopy { folder: PathBuf, reason: String },
    #[error(
        "the table in {folder:?} takes {needed} bytes of memory, above the limit of {limit}: raise \
         runtime.query.memory_limit, or set params.resident: false"
    )]
    Memory { folder: PathBuf, needed: u64, limit: u64 },
    #[error(
        "the manifest of folder {folder:?} would take {bytes} bytes, above {limit}: the table has too many chunks"
    )]
    ManifestTooLarge { folder: PathBuf, bytes: usize, limit: usize },
    #[error("{0}")]
    Damaged(Damage),
    #[error("rows cannot be written as Parquet: {0}")]
    Encode(#[source] parquet::errors::ParquetError),
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

impl DiskError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// What a person does about it, where there is something.
fn help_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there, or move the data with runtime.params.data_dir; what was committed is untouched"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable, or move the data with runtime.params.data_dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; acceleration.params.file_path names a folder, not a file"
        }
        _ => "",
    }
}
