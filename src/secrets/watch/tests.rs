//! The keeper over stores whose every reading a test has written, on a clock that the test moves.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use proptest::prelude::*;

use super::super::load::Origin;
use super::super::secret::Secret;
use super::super::store::StoreParams;
use super::*;
use crate::config::{self, SourceFile};

/// Tells one reading after the other, the last one for ever; nothing is a reading that fails.
struct Told(Mutex<VecDeque<Option<u8>>>);

#[async_trait]
impl Store for Told {
    fn places(&self) -> Vec<String> {
        vec!["a test".to_owned()]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        vec![key.to_owned()]
    }

    async fn read(&self, _: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = if told.len() > 1 { told.pop_front() } else { told.front().copied() };
        now.flatten().map(reading).ok_or_else(|| StoreError::new("away", "wait"))
    }
}

fn reading(value: u8) -> Reading {
    Reading::of(HashMap::from([("KEY".to_owned(), Secret::new(value.to_string()))]))
}

/// The stores of a spicepod that asks one of this kind for `key`; it holds 0, and tells `told` from then on.
fn secrets(from: &str, key: &str, told: &[Option<u8>]) -> Arc<Secrets> {
    let text = format!(
        "version: v1\nkind: Spicepod\nname: t\nsecrets: [{{from: '{from}', name: s}}]\n\
         runtime: {{auth: {{api-key: {{keys: ['${{s:{key}}}']}}}}}}\n"
    );
    let pod = config::parse(SourceFile { path: PathBuf::from("spicepod.yaml"), text }).unwrap();
    let origin = Origin::of(&pod, Arc::new(|_| None), PathBuf::new());
    let entry = Entry {
        name: "s".into(),
        kind: pod.secrets[0].kind,
        params: Arc::new(StoreParams::default()),
        store: Arc::new(Told(Mutex::new(told.iter().copied().collect()))),
        reading: Arc::new(reading(0)),
        took: Duration::ZERO,
    };
    Arc::new(Secrets { shelf: Shelf(vec![entry]), origin: Arc::new(origin) })
}

/// Every value that is heard of within `limit`.
fn heard(secrets: &Arc<Secrets>, limit: Duration) -> Vec<u8> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut watch, keeper) = secrets.watch();
        let mut heard = Vec::new();
        let listening = async {
            while let Some(secrets) = watch.changed().await {
                let value = secrets.shelf.value("s", "KEY").unwrap();
                heard.push(value.expose().parse().unwrap());
            }
        };
        let both = futures::future::join(keeper.follow(), listening);
        let _ = tokio::time::timeout(limit, both).await;
        heard
    })
}

/// What counts: a value that a server tells, or that a file holds at two readings in a row.
fn expected(told: &[Option<u8>], times: usize) -> Vec<u8> {
    let last = told.last().copied().flatten();
    let told: Vec<Option<u8>> = told.iter().copied().chain([last, last]).collect();
    let (mut now, mut counts) = (0, Vec::new());
    for run in told.windows(times) {
        match run {
            [Some(value), rest @ ..] if *value != now && rest.iter().all(|other| *other == Some(*value)) => {
                now = *value;
                counts.push(now);
            }
            _ => {}
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_counts_is_heard_of_once(told in prop::collection::vec(prop::option::of(0u8..3), 1..12)) {
        let long = Duration::from_secs(3_600);
        prop_assert_eq!(heard(&secrets("files:x", "KEY", &told), long), expected(&told, 2));
        prop_assert_eq!(heard(&secrets("kubernetes:x", "KEY", &told), long), expected(&told, 1));
    }
}

#[test]
fn what_nobody_asks_for_is_not_heard_of() {
    assert!(heard(&secrets("files:x", "OTHER", &[Some(1)]), Duration::from_secs(60)).is_empty());
}

#[test]
fn stores_are_read_in_their_own_time() {
    let s = Duration::from_secs;
    assert_eq!(interval(StoreKind::Files, None, None, false), s(1));
    assert_eq!(interval(StoreKind::Vault, None, None, false), s(60));
    assert_eq!(interval(StoreKind::Vault, None, Some(s(20)), false), s(20));
    assert_eq!(interval(StoreKind::Vault, Some(s(5)), Some(s(20)), false), s(5));
    assert_eq!(interval(StoreKind::Vault, None, Some(Duration::ZERO), false), s(1));
    assert_eq!(interval(StoreKind::Aws, None, None, true), s(10));
    assert_eq!(interval(StoreKind::Aws, Some(s(3)), None, true), s(3));
}
