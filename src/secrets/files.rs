//! The `files` store: a directory with a file for each secret, as Kubernetes and Docker mount them.
//!
//! Kubernetes swaps a whole directory at once, by a link named `..data`: a reading opens that directory once and takes
//! all of its files from there, so that it never holds the old value of one key beside the new one of another. One line
//! break at the end of a file is the editor's, and not the secret's.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::config::file::{self, ReadError};
use crate::task;

use super::secret::Secret;
use super::spelling;
use super::store::{BYTES_MAX, Reading, Store, StoreError};

/// What Kubernetes names the link to the directory of the moment.
const DATA: &str = "..data";

/// Of one directory; more is a mistake, such as the root directory.
const FILES_MAX: usize = 1_000;

pub(super) struct FilesStore {
    directory: PathBuf,
}

impl FilesStore {
    /// `directory` is relative to that of the spicepod.
    pub(super) fn new(directory: &str, beside: &Path) -> Self {
        Self { directory: beside.join(directory) }
    }
}

#[async_trait]
impl Store for FilesStore {
    fn places(&self) -> Vec<String> {
        vec![self.directory.display().to_string()]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_files(key)
    }

    async fn read(&self, _: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let directory = self.directory.clone();
        let read = task::blocking("secret files", move || read_directory(&directory)).await;
        read.map_err(|error| StoreError::new(error.to_string(), "start again"))?.map(Reading::of)
    }
}

fn read_directory(directory: &Path) -> Result<HashMap<String, Secret>, StoreError> {
    let failed = |error: io::Error| {
        let message = format!("cannot read the directory {}: {error}", directory.display());
        StoreError::new(message, "mount the secret there, and give this user the right to read it")
    };
    // The directory that the link names now; a later swap does not change what is read here.
    let data = fs::canonicalize(directory.join(DATA));
    let now = data.or_else(|_| fs::canonicalize(directory)).map_err(failed)?;
    let mut values = HashMap::new();
    for entry in fs::read_dir(&now).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if values.len() == FILES_MAX {
            let message = format!("{} holds more than {FILES_MAX} files", directory.display());
            return Err(StoreError::new(message, "name a directory that holds nothing but secrets"));
        }
        match file::read(&entry.path(), BYTES_MAX) {
            Ok(text) => values.insert(name, Secret::new(without_line_break(text))),
            // A directory beside the files, or a file that went away meanwhile.
            Err(ReadError::NotAFile) => continue,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(unreadable(&entry.path(), &error)),
        };
    }
    Ok(values)
}

pub(super) fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn unreadable(path: &Path, error: &ReadError) -> StoreError {
    let message = format!("cannot read {}: {error}", path.display());
    StoreError::new(message, "give this user the right to read it, or remove it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_secret_is_read_from_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        for (moment, value) in [("..1", "one\n"), ("..2", "two\r\n")] {
            fs::create_dir(dir.path().join(moment)).unwrap();
            fs::write(dir.path().join(moment).join("api-key"), value).unwrap();
        }
        let link = |moment: &str| {
            let _ = fs::remove_file(dir.path().join(DATA));
            std::os::unix::fs::symlink(moment, dir.path().join(DATA)).unwrap();
        };
        link("..1");
        std::os::unix::fs::symlink("..data/api-key", dir.path().join("api-key")).unwrap();
        let read = || read_directory(dir.path()).unwrap()["api-key"].expose().to_owned();
        assert_eq!(read(), "one");
        link("..2");
        assert_eq!(read(), "two");
    }

    #[test]
    fn plain_files_are_read_and_what_is_none_is_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("KEY"), "a\nb\n\n").unwrap();
        fs::write(dir.path().join(".hidden"), "no").unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let values = read_directory(dir.path()).unwrap();
        assert_eq!(values.len(), 1);
        assert_eq!(values["KEY"].expose(), "a\nb\n");
        fs::write(dir.path().join("BAD"), b"\xff").unwrap();
        let said = read_directory(dir.path()).map(|_| ()).unwrap_err().message;
        assert!(said.ends_with("BAD: it is not UTF-8 text (line 1)"), "{said}");
    }
}
