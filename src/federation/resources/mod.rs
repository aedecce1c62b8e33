//! What all queries and all accelerated data share: memory with a limit, and room on disk for what does not fit.
//!
//! The settings of `runtime.query` enter, DataFusion's runtime leaves. One pool counts sorts, joins, aggregates and
//! the rows of accelerated tables together, so that a limit is a limit of the process. Batches on their way from an
//! upstream to a client are not in it: back-pressure keeps them few.

mod directory;
mod machine;
mod pool;

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::config::SpillCompression as Compression;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;

use crate::config::{Diagnostic, QueryMemory, SpillCompression};

use directory::Directory;
use pool::SharedPool;

/// All spilled files together, in bytes.
const SPILL_BYTES_MAX: u64 = 100 << 30;

/// How many of the largest holders of memory the log names when memory is refused.
const HOLDERS_SHOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

/// A sort keeps memory aside to merge what it spilled, each partition for itself; all of them together take at most
/// this part of the limit.
const MERGE_SHARE: usize = 8;

/// Memory and temporary files of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resources {
    runtime: Arc<RuntimeEnv>,
    /// `None` where the system's own temporary directory cannot be written: nothing is spilled then.
    directory: Option<Arc<Directory>>,
    compression: Compression,
    limit: usize,
    warning: Option<Diagnostic>,
}

impl Resources {
    /// Finds the limit and makes the directory for temporary files.
    ///
    /// # Errors
    /// A `runtime.query.temp_directory` that cannot be written.
    pub fn try_new(wanted: &QueryMemory) -> Result<Self, Diagnostic> {
        let limit = wanted.limit.map_or_else(machine::memory_limit_default, |size| size.bytes());
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (directory, warning) = match &wanted.temp_directory {
            Some(named) => match Directory::create(&named.path) {
                Ok(directory) => (Some(Arc::new(directory)), None),
                Err(error) => return Err(unusable(&named.path, &error).at(named.at)),
            },
            None => system_directory(),
        };
        let mode = match &directory {
            Some(directory) => DiskManagerMode::Directories(vec![directory.path().to_owned()]),
            None => DiskManagerMode::Disabled,
        };
        let disk =
            DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(SPILL_BYTES_MAX);
        let pool = TrackConsumersPool::new(SharedPool::new(limit), HOLDERS_SHOWN);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| Diagnostic::new("UnusableTempDirectory", error.to_string()))?;
        let compression = match wanted.spill_compression {
            None | Some(SpillCompression::Uncompressed) => Compression::Uncompressed,
            Some(SpillCompression::Lz4Frame) => Compression::Lz4Frame,
            Some(SpillCompression::Zstd) => Compression::Zstd,
        };
        Ok(Self { runtime, directory, compression, limit, warning })
    }

    /// The pool that everything reserves in.
    #[must_use]
    pub fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.runtime.memory_pool
    }

    /// `runtime.query.memory_limit` or its default, in bytes.
    #[must_use]
    pub fn memory_limit(&self) -> usize {
        self.limit
    }

    /// What a person should know: that nothing can be spilled.
    #[must_use]
    pub fn warning(&self) -> Option<&Diagnostic> {
        self.warning.as_ref()
    }

    /// Removes what is left on disk; to be called when no query runs any more.
    pub fn remove_files(&self) {
        if let Some(directory) = &self.directory {
            directory.remove();
        }
    }

    pub(super) fn runtime(&self) -> Arc<RuntimeEnv> {
        Arc::clone(&self.runtime)
    }

    /// The settings of a session that spills here.
    pub(super) fn configure(&self, mut config: SessionConfig) -> SessionConfig {
        let execution = &mut config.options_mut().execution;
        execution.spill_compression = self.compression;
        let partitions = execution.target_partitions.max(1);
        let share = self.limit / MERGE_SHARE / partitions;
        execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(share);
        config
    }
}

/// In the system's temporary directory. A container may have none that can be written: it serves all the same.
fn system_directory() -> (Option<Arc<Directory>>, Option<Diagnostic>) {
    let parent = std::env::temp_dir();
    match Directory::create(&parent) {
        Ok(directory) => (Some(Arc::new(directory)), None),
        Err(error) => {
            let warning = Diagnostic::new(
                "NoTempDirectory",
                format!(
                    "{} cannot be written ({error}): a query that needs more memory than it may have is refused \
                 instead of going on with temporary files",
                    parent.display()
                ),
            );
            (None, Some(warning.help("name a writable directory as `runtime.query.temp_directory`")))
        }
    }
}

fn unusable(path: &std::path::Path, error: &std::io::Error) -> Diagnostic {
    let message = format!("`runtime.query.temp_directory`: {} cannot be written: {error}", path.display());
    Diagnostic::new("UnusableTempDirectory", message)
        .help("name a directory that sidewing may write, or remove the field for the system's own")
}

#[cfg(test)]
mod tests;
