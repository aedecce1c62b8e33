//! The few things that a folder asks of a file system, behind a trait so that tests can fail or kill at each.
//!
//! All of it blocks: callers stand on threads for that.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Held for as long as the folder belongs to this process.
pub(super) type Held = Box<dyn Send + Sync>;

/// A file being read, and its length in bytes.
pub(super) struct Opened {
    pub bytes: u64,
    pub content: Box<dyn Content>,
}

/// Bytes to read, from any place of a file.
pub(super) trait Content: Read + Seek + Send {}

impl<T: Read + Seek + Send> Content for T {}

/// A file system as far as a folder needs one.
pub(super) trait Io: fmt::Debug + Send + Sync {
    /// Makes the folder and its parents where they are missing, durably.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// None: somebody else holds it.
    fn lock(&self, file: &Path) -> io::Result<Option<Held>>;
    /// Names of files and folders inside, those that are not UTF-8 left out.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    fn open(&self, file: &Path) -> io::Result<Opened>;
    /// Writes a new file whole and waits until its content is durable; its name is not yet.
    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()>;
    /// Renames, replacing what had the name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until the names inside of the folder are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    fn remove(&self, file: &Path) -> io::Result<()>;
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct Machine;

impl Io for Machine {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let missing =
            folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).count();
        std::fs::create_dir_all(folder)?;
        // Each new name is durable only when the folder that holds it was synced.
        folder.ancestors().skip(1).take(missing).try_for_each(|parent| match parent.as_os_str().is_empty() {
            true => self.sync_folder(Path::new(".")),
            false => self.sync_folder(parent),
        })
    }

    fn lock(&self, file: &Path) -> io::Result<Option<Held>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, file: &Path) -> io::Result<Opened> {
        let file = File::open(file)?;
        Ok(Opened { bytes: file.metadata()?.len(), content: Box::new(file) })
    }

    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(file)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(folder)
    }
}
