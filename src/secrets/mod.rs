//! Secret references to secret values; the only room that sees secret material.
//!
//! [`Secret`] cannot be printed. Everything that a param holds after resolution is a `Secret`,
//! whether or not it came from a store. Stores are read as a whole (`load`) and then followed (`watch`); in between, a
//! [`Secrets`] is what they held at one moment, and asking it waits for nobody.

mod access;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod env;
mod files;
mod https;
mod kubernetes;
mod load;
mod secret;
mod spelling;
mod store;
mod vault;
mod wanted;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Dataset, Diagnostic, Span, Spicepod, Template, TemplatePart, connector_params};

pub use access::ResolvedKey;
use load::{Entry, Origin};
pub use secret::{Secret, redact};
pub use watch::{Keeper, Watch};

/// The store name that means all of them.
const ALL_STORES: &str = "secrets";

/// Names of a key that a message tells; there are more, for those who spell it otherwise.
const NAMES_SHOWN_MAX: usize = 2;

/// Reads one variable of the process environment, or of a test's.
type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The stores of a spicepod, with what they held at one moment: all that this spicepod may ask them for.
pub struct Secrets {
    shelf: Shelf,
    origin: Arc<Origin>,
}

/// Stores that were read, in the order in which they are searched.
#[derive(Default)]
struct Shelf(Vec<Entry>);

/// What became of a search.
enum Found {
    Value {
        /// Under which of its names the key was there.
        variable: String,
        value: Secret,
    },
    /// It is there, and empty.
    Empty {
        variable: String,
    },
    Nowhere,
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
    /// Loads the stores that the spicepod names (default: one `env` store). Waits for none of them longer than 10 s.
    ///
    /// # Errors
    /// Every store that cannot be read.
    pub async fn load(spicepod: &Spicepod) -> Result<Self, Vec<Diagnostic>> {
        let current = std::env::current_dir().unwrap_or_default();
        Self::load_with(spicepod, |name| std::env::var(name).ok(), &current).await
    }

    /// Loads the stores against a given environment and current directory.
    ///
    /// # Errors
    /// Every store that cannot be read.
    pub async fn load_with(
        spicepod: &Spicepod,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        current: &Path,
    ) -> Result<Self, Vec<Diagnostic>> {
        let origin = Origin::of(spicepod, Arc::new(environment), current.to_owned());
        Ok(Self { shelf: Shelf(origin.load().await?), origin: Arc::new(origin) })
    }

    /// Whether anything that the spicepod asks for has another value here.
    fn differs_from(&self, other: &Self) -> bool {
        let mut wanted = self.origin.wanted.iter();
        wanted.any(|(store, key)| self.shelf.value(store, key) != other.shelf.value(store, key))
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
            match self.shelf.text(&param.value, &Place { subject, within: &within, at: param.at }) {
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

    /// Looks for absent params that may come from a store without being written.
    fn autoload(&self, dataset: &Dataset, values: &mut BTreeMap<String, ResolvedParam>) {
        let connector = dataset.from.connector;
        for spec in connector_params(connector) {
            let Some(unless) = spec.autoload_unless else { continue };
            let given = |name: &&str| dataset.params.contains_key(*name) || values.contains_key(*name);
            if given(&spec.name) || unless.iter().any(given) {
                continue;
            }
            if let Found::Value { variable, value } = self.shelf.find(ALL_STORES, &spec.written(connector)) {
                values.insert(spec.name.to_owned(), ResolvedParam { key: variable, value, at: None });
            }
        }
    }
}

impl Shelf {
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

    /// The first value in the stores of that name; an empty one is remembered, and passed over.
    fn find(&self, store: &str, key: &str) -> Found {
        let mut best = Found::Nowhere;
        for entry in self.named(store) {
            match entry.find(key) {
                found @ Found::Value { .. } => return found,
                found @ Found::Empty { .. } => best = found,
                Found::Nowhere => {}
            }
        }
        best
    }

    fn value(&self, store: &str, key: &str) -> Option<Secret> {
        match self.find(store, key) {
            Found::Value { value, .. } => Some(value),
            Found::Empty { .. } | Found::Nowhere => None,
        }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| name == ALL_STORES || *entry.name == *name)
    }

    fn missing(&self, place: &Place<'_>, store: &str, key: &str, found: &Found) -> Diagnostic {
        let what = match found {
            Found::Empty { variable } => format!("is empty: `{variable}` is set to nothing"),
            _ => "was not found".to_owned(),
        };
        let Place { subject, within, at } = place;
        let message = format!("{subject}secret `{key}` {what} (`${{{store}:{key}}}` in {within})");
        let ways: Vec<String> = self.named(store).map(|entry| entry.way_to_set(key)).collect();
        Diagnostic::new("MissingSecret", message).at(*at).help(format!("set {}", ways.join("; or ")))
    }
}

impl Entry {
    fn find(&self, key: &str) -> Found {
        let mut best = Found::Nowhere;
        for variable in self.store.spellings(key) {
            match self.reading.values.get(&variable) {
                Some(value) if !value.is_empty() => return Found::Value { variable, value: value.clone() },
                Some(_) => best = Found::Empty { variable },
                None => {}
            }
        }
        best
    }

    /// "SPICE_KEY or KEY in the environment, or in .env"
    fn way_to_set(&self, key: &str) -> String {
        let names: Vec<String> = self.store.spellings(key).into_iter().take(NAMES_SHOWN_MAX).collect();
        let mut places = self.store.places();
        places.dedup();
        format!("{} in {}", names.join(" or "), places.join(", or in "))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.shelf.0.iter().map(|entry| &*entry.name).collect();
        f.debug_struct("Secrets").field("stores", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
