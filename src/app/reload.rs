//! The configuration while it is used: changes of the spicepod, of what it names, and of secrets enter, another generation
//! takes the place of the one that answers.
//!
//! What cannot be used changes nothing, and is told. A change is looked for every second and counts once it was read
//! twice, however the file was replaced; SIGHUP has everything read at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::config::{self, Diagnostics, Spicepod, TemplatePart};
use crate::secrets::Watch;
use crate::serve::{ConfigStatus, Door};
use crate::settled::{Fingerprint, Next, Settled};
use crate::task::{self, Scope};
use crate::telemetry;

use super::fixed::Fixed;
use super::generation::Generation;
use super::live::Live;
use super::plan::{Basis, Guarding, Plan};
use super::protection::Guards;

/// How often files are read.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// When what should have been taken is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// More of a file is not read, in bytes: no spicepod, view or certificate has so much.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// See the module.
pub(super) struct Reloader {
    pub path: PathBuf,
    /// What the process began with.
    pub begun: Fixed,
    pub generation: Generation,
    pub live: Live,
    pub basis: Basis,
    pub guards: Guards,
    /// Owns the keepers of the process.
    pub process: Scope,
    /// Owns what follows secrets and certificates for this generation.
    pub guarding: Scope,
    pub secrets: Watch,
}

/// Why the configuration is looked at.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Files,
    Secrets,
    Signal,
    Retry,
}

/// What tells of changes.
struct Ears {
    files: Arc<Files>,
    read: Settled<Fingerprint>,
    hangup: Option<Signal>,
    retry_at: Option<Instant>,
}

/// The files that make a configuration, those of secret stores left out. They are read every second, and parsed when they
/// have changed.
struct Files {
    /// The spicepod, and the SQL of views that stands in files of its own.
    texts: Vec<PathBuf>,
    /// The certificates and keys that datasets name. A path from a secret store is followed with the store.
    certificates: Vec<PathBuf>,
}

impl Reloader {
    /// Follows the configuration for as long as it is polled.
    pub(super) async fn follow(mut self) {
        let hangup = signal(SignalKind::hangup());
        let hangup = hangup.inspect_err(|error| tracing::warn!(%error, "SIGHUP is not heard")).ok();
        let mut ears = Ears::of(&self.generation.spicepod, hangup);
        loop {
            let cause = ears.next(&mut self.secrets).await;
            tracing::debug!(?cause, "the configuration is read");
            ears.retry_at = None;
            let prepared = tokio::select! {
                prepared = self.prepare() => prepared,
                // Another change comes before this one was taken: what was begun for it ends.
                () = ears.other() => Err(Refused::Overtaken),
            };
            match prepared {
                Ok((next, guarding)) => {
                    self.change_to(next, guarding).await;
                    ears = Ears::of(&self.generation.spicepod, ears.hangup);
                }
                Err(Refused::Overtaken) => ears.retry_at = Some(Instant::now()),
                Err(Refused::Because(why)) => {
                    self.reject(&why);
                    ears.retry_at = Some(Instant::now() + RETRY_INTERVAL);
                }
            }
        }
    }

    /// Reads the configuration, and brings it up beside the one that answers until it is as ready.
    async fn prepare(&self) -> Result<(Candidate, Guarding), Refused> {
        let path = self.path.clone();
        let read = task::blocking("spicepod", move || config::load(&path)).await;
        let unusable = |problems: Diagnostics| Refused::Because(problems.to_string());
        let spicepod = read.map_err(|error| Refused::Because(error.to_string()))?.map_err(unusable)?;
        let plan = Plan::after(spicepod, &self.basis, self.generation.acceleration()).await;
        let (built, guarding, _) = plan.map_err(unusable)?.parts();
        let next = Generation::beside(&self.generation, built, &self.process).await;
        let next = Candidate(Some(next.map_err(Refused::Because)?));
        if let Some(generation) = &next.0 {
            generation.as_ready_as(&self.generation).await.map_err(Refused::Because)?;
        }
        Ok((next, guarding))
    }

    /// The point from which requests are answered by `next`.
    async fn change_to(&mut self, next: Candidate, guarding: Guarding) {
        let Some(next) = next.taken() else { return };
        let former = std::mem::replace(&mut self.generation, next);
        let next = &self.generation;
        let needs_restart = self.begun.changed(&next.spicepod);
        let mut status = ConfigStatus::now(Arc::clone(&next.version));
        status.needs_restart.clone_from(&needs_restart);
        self.live.replace(next.engine.clone(), status);
        if let Err(error) = next.succeed(&former, &self.process).await {
            tracing::error!(error, "a table did not move to the changed configuration");
        }
        self.guarding.cancel();
        self.guarding = self.process.child();
        let Guarding { secrets, protection, .. } = guarding;
        let (secrets, keeper) = secrets.watch();
        self.guarding.spawn("secret stores", keeper.follow());
        protection.guard(&self.guards, &secrets, &self.guarding);
        self.secrets = secrets;
        if former.spicepod.runtime.output_level != next.spicepod.runtime.output_level {
            telemetry::set_verbosity(super::verbosity(&next.spicepod));
        }
        counted("taken");
        for warning in &next.spicepod.warnings {
            tracing::warn!(code = warning.code, help = warning.help, "{}", warning.message);
        }
        let datasets = next.spicepod.datasets.len();
        tracing::info!(version = %next.version, datasets, "the configuration has changed");
        if !needs_restart.is_empty() {
            let settings = needs_restart.join(", ");
            tracing::warn!(settings, "settings have changed that hold from the next start on");
        }
    }

    /// Tells why the configuration that is there is not the one that answers.
    fn reject(&self, why: &str) {
        // It is tried again and again, and told once.
        if self.live.config().rejected.as_deref() == Some(why) {
            return;
        }
        counted("rejected");
        self.live.tell(|config| config.rejected = Some(why.to_owned()));
        let version = &self.generation.version;
        tracing::error!(%version, why, "the configuration cannot be changed, the former one holds");
    }
}

/// Why a configuration is not taken.
enum Refused {
    /// It is wrong, or not as ready; what it needs may come later.
    Because(String),
    Overtaken,
}

/// A generation that may never come to answer.
struct Candidate(Option<Generation>);

impl Candidate {
    fn taken(mut self) -> Option<Generation> {
        self.0.take()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(generation) = self.0.take() {
            generation.abandon();
        }
    }
}

impl Ears {
    /// For what differs from `spicepod`, and what stands beside it now.
    fn of(spicepod: &Spicepod, hangup: Option<Signal>) -> Self {
        let (files, fingerprint) = Files::of(spicepod);
        Self { files: Arc::new(files), read: Settled::new(fingerprint), hangup, retry_at: None }
    }

    /// The next reason to look.
    async fn next(&mut self, secrets: &mut Watch) -> Cause {
        loop {
            tokio::select! {
                () = hung_up(&mut self.hangup) => return Cause::Signal,
                Some(_) = secrets.changed() => return Cause::Secrets,
                () = task::at(self.retry_at) => return Cause::Retry,
                read = read_again(&self.files) => if self.have_changed(read) {
                    return Cause::Files;
                },
            }
        }
    }

    /// Resolves when the files have changed once more.
    async fn other(&mut self) {
        loop {
            tokio::select! {
                () = hung_up(&mut self.hangup) => return,
                read = read_again(&self.files) => if self.have_changed(read) {
                    return;
                },
            }
        }
    }

    /// A reading that was given up, with the process, says nothing.
    fn have_changed(&mut self, read: Option<Fingerprint>) -> bool {
        read.is_some_and(|read| matches!(self.read.read(Ok(read)), Next::Act(_)))
    }
}

impl Files {
    /// Those of `spicepod`, and the fingerprint of what was read for it.
    fn of(spicepod: &Spicepod) -> (Self, Fingerprint) {
        let views = || spicepod.views.iter().filter_map(|view| Some((view.file.clone()?, &view.sql)));
        let params = spicepod.datasets.iter().flat_map(|dataset| &dataset.params);
        let params = params.filter(|(name, _)| name.ends_with("_file"));
        let certificates = params.filter_map(|(_, param)| match param.value.parts.as_slice() {
            [TemplatePart::Text(path)] => Some(PathBuf::from(path)),
            _ => None,
        });
        let files = Self {
            texts: [spicepod.source.path.clone()].into_iter().chain(views().map(|(file, _)| file)).collect(),
            certificates: certificates.collect(),
        };
        let loaded = [&spicepod.source.text].into_iter().chain(views().map(|(_, sql)| sql)).cloned();
        let fingerprint = Fingerprint::of(loaded.chain(files.certificates.iter().map(|file| content(file))));
        (files, fingerprint)
    }

    fn read(&self) -> Fingerprint {
        Fingerprint::of(self.texts.iter().chain(&self.certificates).map(|file| content(file)))
    }
}

/// What stands in a file, or why that cannot be read, which is a change as well.
fn content(file: &Path) -> String {
    config::file::read(file, FILE_BYTES_MAX).unwrap_or_else(|error| error.to_string())
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn read_again(files: &Arc<Files>) -> Option<Fingerprint> {
    sleep(READ_INTERVAL).await;
    let files = Arc::clone(files);
    task::blocking("configuration files", move || files.read()).await.ok()
}

fn counted(outcome: &'static str) {
    metrics::counter!("config_reloads", "outcome" => outcome).increment(1);
}
