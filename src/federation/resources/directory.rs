//! The directory of this process's temporary files: made at start, removed at exit.
//!
//! A process that is killed cannot remove its own. Each directory has a locked file inside, so that the next start
//! knows which ones belong to nobody and removes them: a loop of crashes does not fill the disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

/// Of every directory that is made here.
const PREFIX: &str = "sidewing-spill-";

/// Held locked by the process whose directory it is.
const LOCK_FILE: &str = "lock";

/// Younger directories are left alone: between making one and locking its file lies a moment.
const ABANDONED_AGE_MIN: Duration = Duration::from_secs(60);

/// A directory of this process alone.
#[derive(Debug)]
pub(super) struct Directory {
    directory: TempDir,
    /// Locked until it is dropped.
    _lock: File,
}

impl Directory {
    /// A new directory inside `parent`, which is made if it is not there.
    ///
    /// # Errors
    /// A parent that cannot be made or written.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        remove_abandoned(parent, ABANDONED_AGE_MIN);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::create_new(directory.path().join(LOCK_FILE))?;
        lock.lock()?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it with all that is in it; what cannot be removed is told to the log.
    pub(super) fn remove(&self) {
        match fs::remove_dir_all(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path().display(), %error, "temporary files are left");
            }
            _ => {}
        }
    }
}

/// Removes the directories of processes that are gone. Whatever cannot be looked at is left.
fn remove_abandoned(parent: &Path, age_min: Duration) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for path in ours.map(|entry| entry.path()).filter(|path| is_abandoned(path, age_min)) {
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an ended process left"),
            Err(error) => tracing::debug!(path = %path.display(), %error, "not removed"),
        }
    }
}

fn is_abandoned(path: &Path, age_min: Duration) -> bool {
    let age =
        fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
    let locked = |file: File| file.try_lock().is_err();
    age.is_some_and(|age| age >= age_min)
        && File::open(path.join(LOCK_FILE)).map_or(true, |file| !locked(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn it_is_made_with_its_parents_and_removed_with_its_files() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("a/b");
        let directory = Directory::create(&parent).unwrap();
        fs::write(directory.path().join("rows"), "x").unwrap();
        directory.remove();
        assert_eq!(names(&parent), 0);
        drop(directory);
        drop(Directory::create(&parent).unwrap());
        assert_eq!(names(&parent), 0);
    }

    #[test]
    fn a_file_is_no_parent() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(Directory::create(&file).is_err());
    }

    #[test]
    fn only_what_belongs_to_nobody_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let alive = Directory::create(root.path()).unwrap();
        let dead = root.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK_FILE), "").unwrap();
        fs::create_dir(root.path().join("others")).unwrap();
        remove_abandoned(root.path(), ABANDONED_AGE_MIN);
        assert_eq!(names(root.path()), 3, "too young to be judged");
        remove_abandoned(root.path(), Duration::ZERO);
        assert!(alive.path().exists() && !dead.exists());
        assert_eq!(names(root.path()), 2);
    }
}
