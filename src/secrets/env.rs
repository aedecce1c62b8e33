//! The `env` store: the process environment, then `.env.local`, then `.env`, or one file instead of
//! these two. The process environment is never changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::config::file::{self, ReadError};
use crate::config::{Diagnostic, SecretStore};

use super::Environment;
use super::secret::Secret;

/// Bytes of a dotenv file.
const BYTES_MAX: u64 = 1 << 20;

/// The files that are read when the store names none; the first one wins.
const FILE_NAMES: &[&str] = &[".env.local", ".env"];

/// What precedes a key in the name that is tried first.
const PREFIX: &str = "SPICE_";

/// One `env` store, its files read.
pub(super) struct EnvStore {
    name: String,
    environment: Environment,
    /// In the order in which they are searched.
    files: Vec<DotEnv>,
    /// Every file that was or would have been read.
    looked_for: Vec<PathBuf>,
}

/// The variables of one file.
struct DotEnv {
    values: HashMap<String, Secret>,
}

/// What became of a search.
pub(super) enum Found {
    Value {
        /// The variable's name.
        variable: String,
        value: Secret,
    },
    /// It is there, and empty.
    Empty {
        variable: String,
    },
    Nowhere,
}

impl EnvStore {
    /// Reads the store's files.
    pub(super) fn load(
        store: &SecretStore,
        environment: Environment,
        current: &Path,
        beside: &Path,
    ) -> Result<Self, Box<Diagnostic>> {
        // A path of the spicepod is relative to the current directory as well.
        let beside = current.join(beside);
        let candidates = match &store.file_path {
            Some(path) => candidates(&[path], current, &beside),
            None => candidates(FILE_NAMES, current, &beside),
        };
        let mut files = Vec::new();
        for path in &candidates {
            match file::read(path, BYTES_MAX) {
                Ok(text) => files.push(DotEnv::parse(&text).map_err(|line| malformed(store, path, line))?),
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(unreadable(store, path, &error)),
            }
            if store.file_path.is_some() {
                break;
            }
        }
        if files.is_empty() && store.file_path.is_some() {
            return Err(not_found(store, &candidates));
        }
        Ok(Self { name: store.name.clone(), environment, files, looked_for: candidates })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The variables that hold `key`, in the order in which they are tried.
    pub(super) fn variables(key: &str) -> [String; 2] {
        let key = key.to_uppercase();
        [format!("{PREFIX}{key}"), key]
    }

    /// Where this store looks, in words.
    pub(super) fn places(&self) -> Vec<String> {
        let files = self.looked_for.iter().map(|path| path.display().to_string());
        std::iter::once("the environment".to_owned()).chain(files).collect()
    }

    pub(super) fn find(&self, key: &str) -> Found {
        let mut best = Found::Nowhere;
        for variable in Self::variables(key) {
            match self.variable(&variable) {
                Some(value) if !value.is_empty() => return Found::Value { variable, value },
                Some(_) => best = Found::Empty { variable },
                None => {}
            }
        }
        best
    }

    /// The environment wins over the files, an earlier file over a later one.
    fn variable(&self, name: &str) -> Option<Secret> {
        let from_files = || self.files.iter().find_map(|file| file.values.get(name).cloned());
        (self.environment)(name).map(Secret::new).or_else(from_files)
    }
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

fn problem(store: &SecretStore, message: String, help: &str) -> Box<Diagnostic> {
    let mut problem = Diagnostic::new("UnreadableSecretStore", message).help(help);
    // A store that nobody wrote has no place in the file.
    problem.at = (store.at.line > 0).then_some(store.at);
    Box::new(problem)
}

/// Names the line only: what stands in it may be a secret.
fn malformed(store: &SecretStore, path: &Path, line: usize) -> Box<Diagnostic> {
    let message = format!("secret store `{}`: {} is malformed in line {line}", store.name, path.display());
    problem(store, message, "each line is NAME=value; put values with blanks, `#` or `$` in single quotes")
}

fn unreadable(store: &SecretStore, path: &Path, error: &ReadError) -> Box<Diagnostic> {
    let message = format!("secret store `{}`: cannot read {}: {error}", store.name, path.display());
    problem(store, message, "give this user the right to read it, or remove it")
}

fn not_found(store: &SecretStore, looked_for: &[PathBuf]) -> Box<Diagnostic> {
    let paths: Vec<String> = looked_for.iter().map(|path| path.display().to_string()).collect();
    let message =
        format!("secret store `{}`: `file_path` not found: looked for {}", store.name, paths.join(" and "));
    problem(store, message, "name a dotenv file, or remove `file_path`")
}
