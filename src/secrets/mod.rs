//! Secret references to secret values; the only room that sees secret material.
//!
//! [`Secret`] cannot be printed. Everything that a param holds after resolution is a `Secret`,
//! whether or not it came from a store.

use std::collections::BTreeMap;

use crate::config::{Dataset, Diagnostic, Span, Spicepod};

/// A value that cannot be printed, compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Secret(secrecy::SecretString);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value.into())
    }

    /// The bare value: for the wire, and for params that are not secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        use secrecy::ExposeSecret;
        self.0.expose_secret()
    }
}

/// The stores of a spicepod, loaded.
pub struct Secrets {}

/// The params of one dataset with every reference resolved; absent secret params already looked up.
#[derive(Clone)]
pub struct ResolvedParams {
    pub values: BTreeMap<String, ResolvedParam>,
}

/// One resolved param.
#[derive(Clone)]
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
}

impl Secrets {
    /// Loads the stores that the spicepod names (default: one `env` store).
    ///
    /// # Errors
    /// Every store that cannot be loaded.
    pub fn load(_spicepod: &Spicepod) -> Result<Self, Vec<Diagnostic>> {
        todo!()
    }

    /// Resolves the params of one dataset.
    ///
    /// # Errors
    /// Every reference that no store knows, named.
    pub fn resolve(&self, _dataset: &Dataset) -> Result<ResolvedParams, Vec<Diagnostic>> {
        todo!()
    }
}
