//! The configuration while it is used: changes of the spicepod, of what it names, and of secrets enter, another generation
//! takes the place of the one that answers.
//!
//! What cannot be used changes nothing, and is told. A change is looked for every second and counts once it was read
//! twice, however the file was replaced; SIGHUP has everything read at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::config::{self, Diagnostics, Spicepod, TemplatePart};
use crate::secrets::Watch;
use crate::serve::{ConfigStatus, Door};
use crate::settled::{Next, Settled};
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
/// Files of certificates that datasets name are read up to this size, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

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

/// SHA-256 of all that makes a configuration, secrets left out.
#[derive(Clone, PartialEq, Eq)]
struct Fingerprint(Vec<u8>);

/// What was read of the configuration, or why it cannot be.
type Read = Result<Fingerprint, String>;

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
    path: PathBuf,
    files: Settled<Fingerprint>,
    hangup: Option<Signal>,
    retry_at: Option<Instant>,
}

impl Reloader {
    /// Follows the configuration for as long as it is polled.
    pub(super) async fn follow(mut self) {
        let current = fingerprint(&self.generation.spicepod);
        let hangup = signal(SignalKind::hangup());
        let hangup = hangup.inspect_err(|error| tracing::warn!(%error, "SIGHUP is not heard")).ok();
        let mut ears = Ears { path: self.path.clone(), files: Settled::new(current), hangup, retry_at: None };
        loop {
            let cause = match ears.next(&mut self.secrets).await {
                Ok(cause) => cause,
                Err(why) => {
                    self.reject(&why);
                    continue;
                }
            };
            tracing::debug!(?cause, "the configuration is read");
            ears.retry_at = None;
            let prepared = tokio::select! {
                prepared = self.prepare() => prepared,
                // Another change comes before this one was taken: what was begun for it ends.
                () = ears.other() => Err(Refused::Overtaken),
            };
            match prepared {
                Ok((next, guarding)) => self.change_to(next, guarding).await,
                Err(Refused::Overtaken) => ears.retry_at = Some(Instant::now()),
                Err(Refused::Unusable(why)) => self.reject(&why),
                Err(Refused::NotReady(why)) => {
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
        let unusable = |problems: Diagnostics| Refused::Unusable(problems.to_string());
        let spicepod = read.map_err(|error| Refused::Unusable(error.to_string()))?.map_err(unusable)?;
        let plan = Plan::after(spicepod, &self.basis, self.generation.acceleration()).await;
        let (built, guarding, _) = plan.map_err(unusable)?.parts();
        let next = Generation::beside(&self.generation, built, &self.process).await;
        let next = Candidate(Some(next.map_err(Refused::Unusable)?));
        if let Some(generation) = &next.0 {
            generation.as_ready_as(&self.generation).await.map_err(Refused::NotReady)?;
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
        eprint!("{}", next.spicepod.shown_warnings());
        let datasets = next.spicepod.datasets.len();
        tracing::info!(version = %next.version, datasets, "the configuration has changed");
        if !needs_restart.is_empty() {
            let settings = needs_restart.join(", ");
            tracing::warn!(settings, "settings have changed that hold from the next start on");
        }
    }

    /// Tells why the configuration that is there is not the one that answers.
    fn reject(&self, why: &str) {
        counted("rejected");
        let is_news = self.live.config().rejected.as_deref() != Some(why);
        self.live.tell(|config| config.rejected = Some(why.to_owned()));
        if is_news {
            let version = &self.generation.version;
            tracing::error!(%version, why, "the configuration cannot be changed, the former one holds");
        }
    }
}

/// Why a configuration is not taken.
enum Refused {
    /// It is wrong; another one may not be.
    Unusable(String),
    /// It may be tried again.
    NotReady(String),
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
    /// The next reason to look.
    ///
    /// # Errors
    /// Files that have changed and cannot be read, for a reason that was not told yet.
    async fn next(&mut self, secrets: &mut Watch) -> Result<Cause, String> {
        loop {
            tokio::select! {
                () = hung_up(&mut self.hangup) => return Ok(Cause::Signal),
                Some(_) = secrets.changed() => return Ok(Cause::Secrets),
                () = task::at(self.retry_at) => return Ok(Cause::Retry),
                read = read_again(&self.path) => match self.files.read(read) {
                    Next::Act(_) => return Ok(Cause::Files),
                    Next::Tell(why) => return Err(why),
                    Next::Nothing => {}
                },
            }
        }
    }

    /// Resolves when the files have changed once more.
    async fn other(&mut self) {
        loop {
            tokio::select! {
                () = hung_up(&mut self.hangup) => return,
                read = read_again(&self.path) => {
                    if let Next::Act(_) = self.files.read(read) {
                        return;
                    }
                }
            }
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn read_again(path: &Path) -> Read {
    sleep(READ_INTERVAL).await;
    let path = path.to_owned();
    let read = task::blocking("spicepod", move || {
        config::load(&path).map(|spicepod| fingerprint(&spicepod)).map_err(|problems| problems.to_string())
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Of the spicepod, the SQL of its views, and the certificates that its datasets name.
fn fingerprint(spicepod: &Spicepod) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |text: &[u8]| context.update(digest::digest(&digest::SHA256, text).as_ref());
    add(spicepod.source.text.as_bytes());
    spicepod.views.iter().for_each(|view| add(view.sql.as_bytes()));
    let params = spicepod.datasets.iter().flat_map(|dataset| &dataset.params);
    for (_, param) in params.filter(|(name, _)| name.ends_with("_file")) {
        // A path from a secret store is followed with the store.
        if let [TemplatePart::Text(path)] = param.value.parts.as_slice() {
            add(config::file::read(Path::new(path), FILE_BYTES_MAX).unwrap_or_default().as_bytes());
        }
    }
    Fingerprint(context.finish().as_ref().to_vec())
}

fn counted(outcome: &'static str) {
    metrics::counter!("config_reloads", "outcome" => outcome).increment(1);
}
