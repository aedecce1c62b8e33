//! What all subjects stand on: the options, a place for files, the peers, and how sidecars and upstreams are started.

use std::cell::Cell;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::Result;
use crate::options::Options;
use crate::peers::Peers;
use crate::process::Process;
use crate::sidecar;

/// What is measured is the work, not its repetition.
pub const NO_CACHE: &str = "runtime:\n  caching:\n    sql_results: {enabled: false}\n";

pub struct Bench {
    pub options: Options,
    pub peers: Peers,
    directory: TempDir,
    homes: Cell<usize>,
}

impl Bench {
    pub fn new(options: Options) -> Result<Self> {
        let peers = if options.without_peers { Peers::without() } else { Peers::default() };
        Ok(Self { options, peers, directory: tempfile::tempdir()?, homes: Cell::new(0) })
    }

    pub fn wants(&self, row: &str) -> bool {
        self.options.wants(row)
    }

    /// `size`, divided as the options say.
    pub fn scaled(&self, size: usize) -> usize {
        (size / self.options.scale).max(1)
    }

    /// An empty directory of its own.
    pub fn home(&self) -> Result<PathBuf> {
        self.homes.set(self.homes.get() + 1);
        let home = self.directory.path().join(self.homes.get().to_string());
        std::fs::create_dir(&home)?;
        Ok(home)
    }

    /// This program as an upstream, in a process of its own.
    pub async fn upstream(&self, kind: &str) -> Result<Process> {
        Process::start(&std::env::current_exe()?, &[kind], &self.home()?, "flight").await
    }

    /// A sidecar whose datasets are all ready. `runtime` and `datasets` are parts of its spicepod.
    pub async fn sidecar(&self, runtime: &str, datasets: &str) -> Result<Process> {
        sidecar::start(&self.spicepod(runtime, datasets)?).await
    }

    /// A directory with that spicepod.
    pub fn spicepod(&self, runtime: &str, datasets: &str) -> Result<PathBuf> {
        let home = self.home()?;
        let list = if datasets.is_empty() { String::new() } else { format!("datasets:\n{datasets}") };
        let pod = format!("version: v1\nkind: Spicepod\nname: bench\n{runtime}{list}");
        std::fs::write(home.join("spicepod.yaml"), pod)?;
        Ok(home)
    }

    /// What stands above the table: who was measured, beside whom.
    pub fn head(&self) -> String {
        let program = sidecar::program();
        let profile = program.parent().and_then(|folder| folder.file_name());
        let profile = profile.map_or_else(|| "unknown".into(), |name| name.to_string_lossy().into_owned());
        let scale = match self.options.scale {
            1 => String::new(),
            by => format!(" Sizes divided by {by}: the goals are not meant for these."),
        };
        format!(
            "Binary of the profile {profile}. Peers: {}.{scale} Median of the rounds, in brackets the least and the \
             most; rows that miss their goal stay",
            self.peers.versions()
        )
    }
}

/// A dataset whose upstream has it under the same name, as an entry of a spicepod; `more` are further fields.
pub fn dataset(upstream: &str, name: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("    {more}\n") };
    format!("  - from: spice.ai:http://{upstream}/{name}\n    name: {name}\n{more}")
}
