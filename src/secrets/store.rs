//! What every kind of store is to this room: something that is asked again and again what it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::secret::Secret;

/// Bytes of a value, of a file that holds some, and of an answer.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// Where secrets are.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// Every place where it looks, in words.
    fn places(&self) -> Vec<String>;

    /// The names under which it may have `key`, in the order in which they are tried.
    fn spellings(&self, key: &str) -> Vec<String>;

    /// What it holds now. `keys` are all that will be looked for.
    async fn read(&self, keys: &BTreeSet<String>) -> Result<Reading, StoreError>;
}

/// What a store held when it was read.
#[derive(Clone, Default)]
pub(super) struct Reading {
    pub values: HashMap<String, Secret>,
    /// When it has to be read again at the latest: it is leased.
    pub again_within: Option<Duration>,
}

impl Reading {
    pub(super) fn of(values: HashMap<String, Secret>) -> Self {
        Self { values, again_within: None }
    }
}

/// By its values alone.
impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

/// Why a store gave nothing: what happened, and what to do. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoreError {
    pub code: &'static str,
    pub message: String,
    pub help: String,
}

impl StoreError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: "UnreadableSecretStore", message: message.into(), help: help.into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The params of a store, resolved.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct StoreParams(pub BTreeMap<String, Secret>);

impl StoreParams {
    /// What stands there, without blanks around it; nothing where that is nothing.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.expose().trim()).filter(|text| !text.is_empty())
    }

    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(|text| Secret::new(text.to_owned()))
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }
}
