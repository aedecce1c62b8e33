//! The `env` store: the process environment, then `.env.local`, then `.env`, or one file instead of
//! these two. The process environment is never changed.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::config::file::{self, ReadError};
use crate::task;

use super::secret::Secret;
use super::store::{BYTES_MAX, Reading, Store, StoreError, StoreParams};
use super::{Environment, spelling};

/// The files that are read when the store names none; the first one wins.
const FILE_NAMES: &[&str] = &[".env.local", ".env"];

/// One `env` store.
pub(super) struct EnvStore {
    environment: Environment,
    /// In the order in which they are searched; of a store that names its file, the first that is there counts.
    candidates: Vec<PathBuf>,
    is_named: bool,
}

/// The variables of one file.
struct DotEnv {
    values: HashMap<String, Secret>,
}

impl EnvStore {
    pub(super) fn new(params: &StoreParams, environment: Environment, current: &Path, beside: &Path) -> Self {
        // A path of the spicepod is relative to the current directory as well.
        let beside = current.join(beside);
        let candidates = match params.get("file_path") {
            Some(path) => candidates(&[path], current, &beside),
            None => candidates(FILE_NAMES, current, &beside),
        };
        Self { environment, candidates, is_named: params.get("file_path").is_some() }
    }
}

#[async_trait]
impl Store for EnvStore {
    fn places(&self) -> Vec<String> {
        let files = self.candidates.iter().map(|path| path.display().to_string());
        std::iter::once("the environment".to_owned()).chain(files).collect()
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_variables(key)
    }

    async fn read(&self, keys: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let (paths, is_named) = (self.candidates.clone(), self.is_named);
        let read = task::blocking("dotenv files", move || read_files(&paths, is_named)).await;
        let mut values = read.map_err(|error| StoreError::new(error.to_string(), "start again"))??;
        // The environment wins over the files.
        for name in keys.iter().flat_map(|key| self.spellings(key)) {
            if let Some(value) = (self.environment)(&name) {
                values.insert(name, Secret::new(value));
            }
        }
        Ok(Reading::of(values))
    }
}

/// The variables of all files, an earlier file winning over a later one.
fn read_files(candidates: &[PathBuf], is_named: bool) -> Result<HashMap<String, Secret>, StoreError> {
    let (mut values, mut found) = (HashMap::new(), 0);
    for path in candidates {
        match file::read(path, BYTES_MAX) {
            Ok(text) => {
                let file = DotEnv::parse(&text).map_err(|line| malformed(path, line))?;
                for (name, value) in file.values {
                    values.entry(name).or_insert(value);
                }
            }
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(unreadable(path, &error)),
        }
        found += 1;
        if is_named {
            break;
        }
    }
    if found == 0 && is_named { Err(not_found(candidates)) } else { Ok(values) }
}

impl DotEnv {
    /// The variables of a dotenv text, the first of a name; or the line that is malformed.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut values = HashMap::new();
        for entry in dotenvy::from_read_iter(text.as_bytes()) {
            match entry {
                Ok((name, value)) => {
                    values.entry(name).or_insert_with(|| Secret::new(value));
                }
                Err(dotenvy::Error::LineParse(line, _)) => {
                    let first = line.lines().next().unwrap_or_default().trim_end();
                    let at = text.lines().position(|line| line.trim_end() == first);
                    return Err(at.unwrap_or(0) + 1);
                }
                Err(_) => return Err(1),
            }
        }
        Ok(Self { values })
    }
}

/// Each file in the current directory and, where that is another one, beside the spicepod.
fn candidates(names: &[impl AsRef<Path>], current: &Path, beside: &Path) -> Vec<PathBuf> {
    let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directories = match same(current) == same(beside) {
        true => vec![current],
        false => vec![current, beside],
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for directory in directories {
        for name in names {
            let path = directory.join(name);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

/// Names the line only: what stands in it may be a secret.
fn malformed(path: &Path, line: usize) -> StoreError {
    let message = format!("{} is malformed in line {line}", path.display());
    StoreError::new(message, "each line is NAME=value; put values with blanks, `#` or `$` in single quotes")
}

fn unreadable(path: &Path, error: &ReadError) -> StoreError {
    let message = format!("cannot read {}: {error}", path.display());
    StoreError::new(message, "give this user the right to read it, or remove it")
}

fn not_found(looked_for: &[PathBuf]) -> StoreError {
    let paths: Vec<String> = looked_for.iter().map(|path| path.display().to_string()).collect();
    let message = format!("`file_path` not found: looked for {}", paths.join(" and "));
    StoreError::new(message, "name a dotenv file, or remove `file_path`")
}
