//! Entries by key, bounded in bytes; and what the metrics say of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::entry::Entry;
use super::key::Key;
use super::policy::Lifetime;
use crate::config::Eviction;

/// How long a result of an upstream stays beyond its time, for requests that take a stale one.
const STALE_KEPT: Duration = Duration::from_secs(600);
/// How often dead entries are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The entries.
pub(super) struct Store {
    entries: moka::sync::Cache<Key, Arc<Entry>>,
    swept: Mutex<Instant>,
}

/// Results of upstreams are dropped when nobody may ask for them any more; exact ones have no such time.
struct Expiry(Duration);

impl moka::Expiry<Key, Arc<Entry>> for Expiry {
    fn expire_after_create(&self, _key: &Key, entry: &Arc<Entry>, _at: Instant) -> Option<Duration> {
        entry.is_upstream.then_some(self.0)
    }

    fn expire_after_update(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, at)
    }
}

impl Store {
    /// Of at most `bytes_max`.
    pub fn new(bytes_max: usize, eviction: Eviction, lifetime: Lifetime) -> Self {
        let kept = lifetime.fresh.saturating_add(lifetime.stale).saturating_add(STALE_KEPT);
        let policy = match eviction {
            Eviction::Lru => EvictionPolicy::lru(),
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
        };
        let entries = moka::sync::Cache::builder()
            .max_capacity(bytes_max as u64)
            .weigher(|_: &Key, entry: &Arc<Entry>| u32::try_from(entry.bytes).unwrap_or(u32::MAX))
            .eviction_policy(policy)
            .expire_after(Expiry(kept))
            .eviction_listener(|_, _, cause| evicted(cause))
            .build();
        metrics::gauge!("results_cache_max_size_bytes").set(bytes_max as f64);
        Self { entries, swept: Mutex::new(Instant::now()) }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub fn insert(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
        self.sweep();
        self.settle();
    }

    /// Drops an entry that must not be answered any more, unless another has its place by now.
    pub fn invalidate(&self, key: &Key, dead: &Arc<Entry>) {
        if self.entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry, dead)) {
            self.entries.invalidate(key);
            self.settle();
        }
    }

    /// Drops what was computed from generations or tables that are gone.
    fn sweep(&self) {
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.elapsed() < SWEEP_INTERVAL {
                return;
            }
            *swept = Instant::now();
        }
        let dead = self.entries.iter().filter(|(_, entry)| !entry.basis.is_alive());
        dead.for_each(|(key, _)| self.entries.invalidate(key.as_ref()));
    }

    /// Lets the bound hold now, and tells the metrics.
    fn settle(&self) {
        self.entries.run_pending_tasks();
        metrics::gauge!("results_cache_items_count").set(self.entries.entry_count() as f64);
        metrics::gauge!("results_cache_size_bytes").set(self.entries.weighted_size() as f64);
    }

    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

fn evicted(cause: RemovalCause) {
    let reason = match cause {
        RemovalCause::Size => "size",
        RemovalCause::Expired => "expired",
        RemovalCause::Explicit => "invalidated",
        // Its newer self has its place.
        RemovalCause::Replaced => return,
    };
    metrics::counter!("results_cache_evictions", "reason" => reason).increment(1);
}
