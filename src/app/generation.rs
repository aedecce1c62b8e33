//! One configuration of the process, with what runs for it: a plan enters, an engine that answers leaves.
//!
//! A change of the configuration makes another generation beside the one that answers, and takes its place when it is
//! as ready. What both hold in the same way moves over with its rows.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::acceleration::Acceleration;
use crate::config::{Runtime, Spicepod};
use crate::federation::Federation;
use crate::name::DatasetName;
use crate::query::{DatasetState, DatasetStatus, Engine, Options, QueueOptions, ResultsCache};
use crate::settled::Fingerprint;
use crate::task::{Scope, cores};

use super::plan::Built;

/// How many datasets of one upstream are loaded at a time by default.
const LOAD_PARALLELISM: usize = 8;
/// How many queries run at a time for each core by default: most of them wait for an upstream.
const QUERIES_PER_CORE: usize = 4;
/// A dataset that fails for so long under other settings will not do by itself.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Hexadecimal digits of a version.
const VERSION_LEN: usize = 12;

/// See the module.
pub(super) struct Generation {
    pub spicepod: Spicepod,
    pub engine: Engine,
    pub version: Arc<str>,
    federation: Federation,
    acceleration: Acceleration,
    /// Owns what keeps the remote tables.
    tables: Scope,
}

/// What keeps a generation from taking the place of another.
enum Standing {
    Ready,
    Coming,
    /// For this reason.
    Failing(String),
}

impl Generation {
    /// The first one; its datasets are brought up from now on.
    pub fn begin(built: Built, process: &Scope) -> Self {
        let generation = Self::of(built, None, process);
        generation.bring_up(process, |_| true);
        generation
    }

    /// Another one beside `former`, which goes on answering. It is brought up, but for what has to wait until `former` lets
    /// its files go.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn beside(former: &Self, built: Built, process: &Scope) -> Result<Self, String> {
        let generation = Self::of(built, Some(&former.engine), process);
        generation.federation.begin_as(&former.federation);
        let shown = generation.acceleration.show_kept(&generation.federation).await;
        shown.map_err(|error| error.to_string())?;
        generation.federation.look_at_views().await;
        generation.bring_up(process, |name| !generation.waits(name, former));
        Ok(generation)
    }

    fn of(built: Built, former: Option<&Engine>, process: &Scope) -> Self {
        let Built { spicepod, federation, acceleration } = built;
        let version = version(&spicepod);
        let runtime = &spicepod.runtime;
        // Shared runs outlive the request that began them, and the configuration.
        let cache = ResultsCache::new(&runtime.results_cache, &federation.memory_pool(), process.clone());
        let mut engine = Engine::new(federation.clone(), options(runtime)).of_config(Arc::clone(&version));
        if let Some(former) = former {
            engine = engine.after(former);
        }
        let engine = engine.accelerated(acceleration.clone()).caching(cache);
        Self { spicepod, engine, version, federation, acceleration, tables: process.child() }
    }

    /// Starts what keeps the datasets, those of `which` among the accelerated ones.
    fn bring_up(&self, process: &Scope, which: impl Fn(&DatasetName) -> bool) {
        self.tables.spawn("stalled queries", self.engine.clone().end_stalled());
        let parallel = self.parallel();
        self.federation.start(&self.tables, process, parallel);
        self.acceleration.start(process, parallel, which);
    }

    pub fn acceleration(&self) -> &Acceleration {
        &self.acceleration
    }

    fn parallel(&self) -> usize {
        self.spicepod.runtime.dataset_load_parallelism.unwrap_or(LOAD_PARALLELISM)
    }

    fn waits(&self, name: &DatasetName, former: &Self) -> bool {
        self.acceleration.waits_for_folder_of(name, &former.acceleration)
    }

    /// Resolves when whatever `former` answers is answered here too.
    ///
    /// # Errors
    /// Which dataset is not, and why.
    pub async fn as_ready_as(&self, former: &Self) -> Result<(), String> {
        let mut failing: Option<Instant> = None;
        loop {
            match self.standing(former) {
                Standing::Ready => return Ok(()),
                Standing::Coming => failing = None,
                Standing::Failing(why) => {
                    if failing.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(why);
                    }
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn standing(&self, former: &Self) -> Standing {
        let answered = former.engine.datasets();
        let was_ready = |name: &DatasetName| {
            answered.iter().any(|known| known.name == *name && matches!(known.state, DatasetState::Ready))
        };
        let wanted = |dataset: &DatasetStatus| was_ready(&dataset.name) && !self.waits(&dataset.name, former);
        let mut standing = Standing::Ready;
        for dataset in self.engine.datasets().iter().filter(|dataset| wanted(dataset)) {
            match &dataset.state {
                DatasetState::Ready => {}
                DatasetState::Initializing => standing = Standing::Coming,
                DatasetState::Error { reason, .. } => {
                    return Standing::Failing(format!("dataset `{}`: {reason}", dataset.name));
                }
            }
        }
        standing
    }

    /// Takes the place of `former`: to be called once its requests come here.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn succeed(&self, former: &Self, process: &Scope) -> Result<(), String> {
        let moved = self.acceleration.succeed(&former.acceleration, &self.federation).await;
        former.tables.cancel();
        // Their files are free now, or will be when what runs has ended.
        self.acceleration.start(process, self.parallel(), |_| true);
        moved.map_err(|error| error.to_string())
    }

    /// Ends what runs for this one alone: it does not come to answer.
    pub fn abandon(self) {
        self.acceleration.abandon();
        self.tables.cancel();
    }
}

/// Names a configuration by what stands in it, views in files of their own with it; equal ones have equal names, in every
/// process.
fn version(spicepod: &Spicepod) -> Arc<str> {
    let views = spicepod.views.iter().map(|view| &view.sql);
    let hex = Fingerprint::of([&spicepod.source.text].into_iter().chain(views)).hex();
    hex[..VERSION_LEN].into()
}

fn options(runtime: &Runtime) -> Options {
    let cores = cores();
    let running_max = runtime.max_concurrent_queries.unwrap_or(cores.saturating_mul(QUERIES_PER_CORE));
    let default = QueueOptions::default();
    let queue = QueueOptions {
        running_max: NonZeroUsize::new(running_max),
        waiting_max: runtime.query_queue_max.unwrap_or(default.waiting_max),
        wait_max: runtime.query_queue_timeout.map_or(default.wait_max, |limit| limit.get()),
    };
    let default = Options::default();
    Options {
        timeout: runtime.query_timeout.map(|limit| limit.get()),
        queue,
        client_timeout: runtime.query_client_timeout.map_or(default.client_timeout, |limit| limit.get()),
    }
}
