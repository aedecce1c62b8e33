//! Stores as a spicepod describes them enter, stores that were read leave, or everything that is wrong with them.
//!
//! Stores of this machine come first: the params of the others may refer to them. Then all others are asked together,
//! each within [`READ_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Diagnostic, SecretStore, Spicepod, StoreKind};

use super::env::EnvStore;
use super::files::FilesStore;
use super::kubernetes::KubernetesStore;
use super::store::{Reading, Store, StoreError, StoreParams};
use super::vault::VaultStore;
use super::wanted::Wanted;
use super::{Environment, Place, Shelf};

/// How long a store may take to tell what it holds.
pub(super) const READ_MAX: Duration = Duration::from_secs(10);

/// From where stores are loaded, now and again.
pub(super) struct Origin {
    pub stores: Vec<SecretStore>,
    pub wanted: Wanted,
    pub environment: Environment,
    pub current: PathBuf,
    pub beside: PathBuf,
}

/// One store with what it held.
#[derive(Clone)]
pub(super) struct Entry {
    pub name: Arc<str>,
    pub kind: StoreKind,
    /// Resolved: with others, it is another store.
    pub params: Arc<StoreParams>,
    pub store: Arc<dyn Store>,
    pub reading: Arc<Reading>,
    /// How long the last reading took.
    pub took: Duration,
}

impl Origin {
    pub(super) fn of(spicepod: &Spicepod, environment: Environment, current: PathBuf) -> Self {
        let beside = spicepod.source.path.parent().map(PathBuf::from).unwrap_or_default();
        Self { stores: spicepod.secrets.clone(), wanted: Wanted::of(spicepod), environment, current, beside }
    }

    /// All that may be asked of a store.
    pub(super) fn keys(&self, store: &str) -> BTreeSet<String> {
        self.wanted.of_store(store)
    }

    /// Opens and reads every store, in the order in which they are searched.
    pub(super) async fn load(&self) -> Result<Vec<Entry>, Vec<Diagnostic>> {
        let here: Vec<&SecretStore> = self.stores.iter().filter(|store| store.kind.is_local()).collect();
        let there: Vec<&SecretStore> = self.stores.iter().filter(|store| !store.kind.is_local()).collect();
        let here = self.load_these(here, &Shelf::default()).await;
        let shelf = Shelf(here.iter().filter_map(|(_, loaded)| loaded.as_ref().ok().cloned()).collect());
        // Where the first could not be read, the others would only miss what stands there.
        let is_whole = shelf.0.len() == here.len();
        let there = match is_whole {
            true => self.load_these(there, &shelf).await,
            false => Vec::new(),
        };
        let mut loaded: BTreeMap<&str, Entry> = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, entry) in here.into_iter().chain(there) {
            match entry {
                Ok(entry) => drop(loaded.insert(name, entry)),
                Err(more) => problems.extend(more),
            }
        }
        match problems.is_empty() {
            true => Ok(self.stores.iter().filter_map(|store| loaded.remove(store.name.as_str())).collect()),
            false => Err(problems),
        }
    }

    async fn load_these<'a>(
        &self,
        stores: Vec<&'a SecretStore>,
        shelf: &Shelf,
    ) -> Vec<(&'a str, Result<Entry, Vec<Diagnostic>>)> {
        let loads =
            stores.into_iter().map(async |store| (store.name.as_str(), self.load_one(store, shelf).await));
        futures::future::join_all(loads).await
    }

    async fn load_one(&self, config: &SecretStore, shelf: &Shelf) -> Result<Entry, Vec<Diagnostic>> {
        let params = resolved_params(config, shelf)?;
        let told = |error: StoreError| vec![diagnostic(config, error)];
        let store = self.open(config, &params).map_err(told)?;
        let (reading, took) = timed_read(store.as_ref(), &self.keys(&config.name)).await;
        let (reading, name) = (Arc::new(reading.map_err(told)?), config.name.as_str().into());
        Ok(Entry { name, kind: config.kind, params: Arc::new(params), store, reading, took })
    }

    /// The store itself; asks nobody yet.
    pub(super) fn open(
        &self,
        config: &SecretStore,
        params: &StoreParams,
    ) -> Result<Arc<dyn Store>, StoreError> {
        let (object, environment) = (config.object.as_str(), &self.environment);
        Ok(match config.kind {
            StoreKind::Env => {
                Arc::new(EnvStore::new(params, Arc::clone(environment), &self.current, &self.beside))
            }
            StoreKind::Files => Arc::new(FilesStore::new(object, &self.current.join(&self.beside))),
            StoreKind::Kubernetes => Arc::new(KubernetesStore::new(object, params, environment)?),
            StoreKind::Vault => Arc::new(VaultStore::new(object, params, environment)?),
            #[cfg(feature = "aws")]
            StoreKind::Aws => Arc::new(super::aws::AwsStore::new(object, params)),
            #[cfg(not(feature = "aws"))]
            StoreKind::Aws => return Err(not_in_this_build(config.kind, "aws")),
            #[cfg(feature = "azure")]
            StoreKind::Azure => Arc::new(super::azure::AzureStore::new(object, params, environment)?),
            #[cfg(not(feature = "azure"))]
            StoreKind::Azure => return Err(not_in_this_build(config.kind, "azure")),
        })
    }
}

/// The params of a store, with what stores of this machine hold.
pub(super) fn resolved_params(config: &SecretStore, shelf: &Shelf) -> Result<StoreParams, Vec<Diagnostic>> {
    let (mut params, mut problems) = (StoreParams::default(), Vec::new());
    for (name, param) in &config.params {
        let within = format!("param `{name}`");
        let place =
            Place { subject: format!("secret store `{}`: ", config.name), within: &within, at: param.at };
        match shelf.text(&param.value, &place) {
            Ok(value) => drop(params.0.insert(name.clone(), value)),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(params) } else { Err(problems) }
}

/// What the store holds, within [`READ_MAX`], and how long that took.
pub(super) async fn timed_read(
    store: &dyn Store,
    keys: &BTreeSet<String>,
) -> (Result<Reading, StoreError>, Duration) {
    let begun = Instant::now();
    let late = || {
        let message = format!("{} did not answer within {} s", store.places().join(", "), READ_MAX.as_secs());
        StoreError::new(message, "check its address, and that this machine may reach it")
    };
    let read = tokio::time::timeout(READ_MAX, store.read(keys)).await.unwrap_or_else(|_| Err(late()));
    (read, begun.elapsed())
}

fn diagnostic(config: &SecretStore, error: StoreError) -> Diagnostic {
    let message = format!("secret store `{}`: {}", config.name, error.message);
    let mut problem = Diagnostic::new(error.code, message).help(error.help);
    // A store that nobody wrote has no place in the file.
    problem.at = (config.at.line > 0).then_some(config.at);
    problem
}

#[cfg(not(all(feature = "aws", feature = "azure")))]
fn not_in_this_build(kind: StoreKind, feature: &str) -> StoreError {
    let mut error = StoreError::new(
        format!("this build has no `{}`", kind.name()),
        format!("use the image, or build with `cargo build --release --features {feature}`"),
    );
    error.code = "SecretStoreNotInThisBuild";
    error
}
