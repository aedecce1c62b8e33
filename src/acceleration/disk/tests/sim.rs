//! A file system in memory that fails or dies where a test says so, and after a crash keeps only what it promised.
//!
//! Content is durable when it was written whole; a name when its folder was synced. Of what was not, a crash keeps
//! any part.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::io::{Held, Io, Opened};
use super::super::{self as disk, DiskError, Folder, Settings};

/// Linux's number for a full disk.
pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The step fails, the process lives.
    Fail(i32),
    /// Nothing works from this step on; it had no effect, or a partial one.
    KillBefore,
    /// Nothing works after this step.
    KillAfter,
}

#[derive(Debug, Clone)]
enum Change {
    Create(PathBuf, Vec<u8>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    /// What a process sees.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What stays whatever happens.
    durable: BTreeMap<PathBuf, Vec<u8>>,
    pending: Vec<Change>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    dead: bool,
}

#[derive(Debug, Default)]
pub struct Sim(Mutex<State>);

impl Sim {
    /// Opens a table's folder on this machine.
    pub async fn open_folder(self: &Arc<Self>, settings: Settings) -> Result<disk::Opened, DiskError> {
        Folder::open_on(Arc::<Self>::clone(self) as _, settings).await
    }

    /// A machine with these files.
    pub fn with_files(files: BTreeMap<PathBuf, Vec<u8>>) -> Arc<Self> {
        let state = State { durable: files.clone(), files, ..State::default() };
        Arc::new(Self(Mutex::new(state)))
    }

    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.0.lock().unwrap().files.clone()
    }

    /// Changes a file under the feet of the process.
    pub fn put(&self, path: &Path, content: Vec<u8>) {
        self.0.lock().unwrap().files.insert(path.to_owned(), content);
    }

    pub fn names(&self) -> Vec<String> {
        self.files().keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// The step with this number, counted from now on, goes wrong.
    pub fn fault_at(&self, step: usize, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.steps = 0;
        state.fault = Some((step, fault));
    }

    /// True once a kill has happened.
    pub fn is_dead(&self) -> bool {
        self.0.lock().unwrap().dead
    }

    /// True once the fault has happened.
    pub fn faulted(&self) -> bool {
        self.0.lock().unwrap().fault.is_none()
    }

    /// The machine after a power cut: of changes that were not synced, any may be there.
    pub fn crashed(&self, seed: u64) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.0.lock().unwrap();
        let mut files = state.durable.clone();
        for change in &state.pending {
            if random.random() {
                apply(&mut files, change);
            }
        }
        Self::with_files(files)
    }

    /// Runs one step that changes something; `partial` is what is left when the process dies or fails in it.
    fn step(&self, change: Option<Change>, partial: Option<Change>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.check()?;
        let fault = state.fault.filter(|(at, _)| *at == state.steps).map(|(_, fault)| fault);
        state.steps += 1;
        if let Some(fault) = fault {
            state.fault = None;
            state.dead = !matches!(fault, Fault::Fail(_));
            if let Fault::Fail(code) = fault {
                state.make(partial);
                return Err(io::Error::from_raw_os_error(code));
            }
            if fault == Fault::KillBefore {
                state.make(partial);
                return state.check();
            }
        }
        state.make(change);
        Ok(())
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("killed")) } else { Ok(()) }
    }

    fn make(&mut self, change: Option<Change>) {
        if let Some(change) = change {
            apply(&mut self.files, &change);
            self.pending.push(change);
        }
    }
}

fn apply(files: &mut BTreeMap<PathBuf, Vec<u8>>, change: &Change) {
    match change {
        Change::Create(path, content) => {
            files.insert(path.clone(), content.clone());
        }
        // Where the creation was lost there is nothing to rename.
        Change::Rename(from, to) => {
            if let Some(content) = files.remove(from) {
                files.insert(to.clone(), content);
            }
        }
        Change::Remove(path) => {
            files.remove(path);
        }
    }
}

impl Io for Sim {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        self.0.lock().unwrap().check()
    }

    fn lock(&self, _file: &Path) -> io::Result<Option<Held>> {
        self.0.lock().unwrap().check().map(|()| Some(Box::new(()) as Held))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock().unwrap();
        state.check()?;
        let inside = state.files.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let mut names: Vec<String> =
            inside.filter_map(|path| Some(path.iter().next()?.to_string_lossy().into_owned())).collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, file: &Path) -> io::Result<Opened> {
        let state = self.0.lock().unwrap();
        state.check()?;
        let content = state.files.get(file).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Opened { bytes: content.len() as u64, content: Box::new(Cursor::new(content)) })
    }

    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let create = |content: &[u8]| Some(Change::Create(file.to_owned(), content.to_owned()));
        self.step(create(content), create(&content[..content.len() / 2]))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Some(Change::Rename(from.to_owned(), to.to_owned())), None)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.step(None, None)?;
        let mut state = self.0.lock().unwrap();
        state.pending.clear();
        state.durable = state.files.clone();
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.step(Some(Change::Remove(file.to_owned())), None)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let inside: Vec<PathBuf> = self.files().into_keys().filter(|path| path.starts_with(folder)).collect();
        inside.into_iter().try_for_each(|path| self.step(Some(Change::Remove(path)), None))
    }
}
