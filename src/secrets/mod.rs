//! Secret references to secret values; the only room that sees secret material.
//!
//! [`Secret`] cannot be printed. Everything that a param holds after resolution is a `Secret`,
//! whether or not it came from a store.

mod access;
mod env;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{
    Dataset, Diagnostic, SecretStore, Span, Spicepod, Template, TemplatePart, connector_params,
};

pub use access::ResolvedKey;
use env::{EnvStore, Found};
pub use secret::{Secret, redact};

/// The store name that means all of them.
const ALL_STORES: &str = "secrets";

/// Reads one variable of the process environment, or of a test's.
type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The stores of a spicepod, loaded.
pub struct Secrets {
    /// In the order in which they are searched.
    stores: Vec<EnvStore>,
    origin: Origin,
}

/// From where stores are loaded, now and again.
#[derive(Clone)]
struct Origin {
    stores: Vec<SecretStore>,
    environment: Environment,
    current: PathBuf,
    beside: PathBuf,
}

/// Where a template stands, for messages.
struct Place<'a> {
    /// How a message begins: nothing, or "dataset `orders`: ".
    subject: String,
    /// "param `spiceai_api_key`".
    within: &'a str,
    at: Span,
}

/// The params of one dataset with every reference resolved; absent secret params already looked up.
#[derive(Debug, Clone)]
pub struct ResolvedParams {
    pub values: BTreeMap<String, ResolvedParam>,
}

/// One resolved param.
#[derive(Debug, Clone)]
pub struct ResolvedParam {
    /// As written in the spicepod, or the name under which a store had it.
    pub key: String,
    pub value: Secret,
    /// `None` when it was found in a store without being written in the spicepod.
    pub at: Option<Span>,
}

impl ResolvedParams {
    /// By canonical name, e.g. `api_key`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ResolvedParam> {
        self.values.get(name)
    }

    /// Every resolved value, for [`redact`].
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.values.values().map(|param| &param.value)
    }
}

impl Secrets {
    /// Loads the stores that the spicepod names (default: one `env` store).
    ///
    /// # Errors
    /// Every store that cannot be loaded.
    pub fn load(spicepod: &Spicepod) -> Result<Self, Vec<Diagnostic>> {
        let current = std::env::current_dir().unwrap_or_default();
        Self::load_with(spicepod, |name| std::env::var(name).ok(), &current)
    }

    /// Loads the stores against a given environment and current directory.
    ///
    /// # Errors
    /// Every store that cannot be loaded.
    pub fn load_with(
        spicepod: &Spicepod,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        current: &Path,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::of(Origin {
            stores: spicepod.secrets.clone(),
            environment: Arc::new(environment),
            current: current.to_owned(),
            beside: spicepod.source.path.parent().unwrap_or(Path::new("")).to_owned(),
        })
    }

    /// The same stores as they are now: their files may have changed.
    ///
    /// # Errors
    /// Every store that cannot be loaded.
    pub fn reload(&self) -> Result<Self, Vec<Diagnostic>> {
        Self::of(self.origin.clone())
    }

    fn of(origin: Origin) -> Result<Self, Vec<Diagnostic>> {
        let (mut stores, mut problems) = (Vec::new(), Vec::new());
        for store in &origin.stores {
            match EnvStore::load(store, Arc::clone(&origin.environment), &origin.current, &origin.beside) {
                Ok(store) => stores.push(store),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() { Ok(Self { stores, origin }) } else { Err(problems) }
    }

    /// Resolves the params of one dataset.
    ///
    /// # Errors
    /// Every reference that no store knows, named.
    pub fn resolve(&self, dataset: &Dataset) -> Result<ResolvedParams, Vec<Diagnostic>> {
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, param) in &dataset.params {
            let within = format!("param `{}`", param.key);
            let subject = format!("dataset `{}`: ", dataset.name);
            match self.text(&param.value, &Place { subject, within: &within, at: param.at }) {
                Ok(value) => {
                    let resolved = ResolvedParam { key: param.key.clone(), value, at: Some(param.at) };
                    values.insert(name.clone(), resolved);
                }
                Err(found) => problems.extend(found),
            }
        }
        self.autoload(dataset, &mut values);
        if problems.is_empty() { Ok(ResolvedParams { values }) } else { Err(problems) }
    }

    /// A template with every reference replaced.
    fn text(&self, template: &Template, place: &Place<'_>) -> Result<Secret, Vec<Diagnostic>> {
        let (mut text, mut problems) = (String::new(), Vec::new());
        for part in &template.parts {
            match part {
                TemplatePart::Text(part) => text.push_str(part),
                TemplatePart::Reference { store, key } => match self.find(store, key) {
                    Found::Value { value, .. } => text.push_str(value.expose()),
                    other => problems.push(self.missing(place, store, key, &other)),
                },
            }
        }
        // From here on the text is only ever held by the secret.
        let value = Secret::new(text);
        if problems.is_empty() { Ok(value) } else { Err(problems) }
    }

    /// Looks for absent params that may come from a store without being written.
    fn autoload(&self, dataset: &Dataset, values: &mut BTreeMap<String, ResolvedParam>) {
        let connector = dataset.from.connector;
        for spec in connector_params(connector) {
            let Some(unless) = spec.autoload_unless else { continue };
            let given = |name: &&str| dataset.params.contains_key(*name) || values.contains_key(*name);
            if given(&spec.name) || unless.iter().any(given) {
                continue;
            }
            if let Found::Value { variable, value } = self.find(ALL_STORES, &spec.written(connector)) {
                values.insert(spec.name.to_owned(), ResolvedParam { key: variable, value, at: None });
            }
        }
    }

    /// The first value in the stores of that name; an empty one is remembered, and passed over.
    fn find(&self, store: &str, key: &str) -> Found {
        let mut best = Found::Nowhere;
        for store in self.named(store) {
            match store.find(key) {
                found @ Found::Value { .. } => return found,
                found @ Found::Empty { .. } => best = found,
                Found::Nowhere => {}
            }
        }
        best
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &EnvStore> {
        self.stores.iter().filter(move |store| name == ALL_STORES || store.name() == name)
    }

    fn missing(&self, place: &Place<'_>, store: &str, key: &str, found: &Found) -> Diagnostic {
        let what = match found {
            Found::Empty { variable } => format!("is empty: `{variable}` is set to nothing"),
            _ => "was not found".to_owned(),
        };
        let Place { subject, within, at } = place;
        let message = format!("{subject}secret `{key}` {what} (`${{{store}:{key}}}` in {within})");
        let mut places: Vec<String> = self.named(store).flat_map(EnvStore::places).collect();
        places.dedup();
        let [first, second] = EnvStore::variables(key);
        let help = format!("set {first} or {second} in {}", places.join(", or in "));
        Diagnostic::new("MissingSecret", message).at(*at).help(help)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl fmt::Debug for EnvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvStore({})", self.name())
    }
}

#[cfg(test)]
mod tests;
