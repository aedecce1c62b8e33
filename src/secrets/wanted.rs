//! A spicepod enters, every key that it may ask a store for leaves: what stores are asked, and what a change is.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{PemSource, Spicepod, Template, Tls, connector_params};

use super::ALL_STORES;

/// Keys by the store that references name; [`ALL_STORES`] is one of those names.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(BTreeMap<String, BTreeSet<String>>);

impl Wanted {
    pub(super) fn of(spicepod: &Spicepod) -> Self {
        let mut wanted = Self::default();
        for dataset in &spicepod.datasets {
            let connector = dataset.from.connector;
            dataset.params.values().for_each(|param| wanted.add(&param.value));
            for spec in connector_params(connector).iter().filter(|spec| spec.autoload_unless.is_some()) {
                wanted.add_key(ALL_STORES, &spec.written(connector));
            }
        }
        spicepod.runtime.api_keys.iter().for_each(|key| wanted.add(&key.value));
        let tls = [&spicepod.runtime.tls, &spicepod.runtime.metrics_tls];
        tls.into_iter().flatten().for_each(|tls| wanted.add_tls(tls));
        let exporter = spicepod.runtime.telemetry.exporter.iter();
        exporter.flat_map(|exporter| &exporter.headers).for_each(|header| wanted.add(&header.value));
        for param in spicepod.secrets.iter().flat_map(|store| store.params.values()) {
            wanted.add(&param.value);
        }
        wanted
    }

    /// All that may be asked of the store of that name.
    pub(super) fn of_store(&self, name: &str) -> BTreeSet<String> {
        let keys = [name, ALL_STORES].into_iter().filter_map(|name| self.0.get(name));
        keys.flatten().cloned().collect()
    }

    /// Every store name and key that is asked for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(store, keys)| keys.iter().map(move |key| (store.as_str(), key.as_str())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, template: &Template) {
        template.references().for_each(|(store, key)| self.add_key(store, key));
    }

    fn add_key(&mut self, store: &str, key: &str) {
        self.0.entry(store.to_owned()).or_default().insert(key.to_owned());
    }

    fn add_tls(&mut self, tls: &Tls) {
        let mut add = |source: &PemSource<Template>| {
            if let PemSource::Inline(template) = source {
                self.add(template);
            }
        };
        add(&tls.certificate.source);
        add(&tls.key.source);
        if let Some(pem) = tls.client_auth.ca() {
            add(&pem.source);
        }
    }
}
