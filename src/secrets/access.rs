//! The secrets of the front ends: templates of keys and of PEM text enter, keys with their rights and PEM text leave.

use std::collections::HashMap;

use crate::config::{ApiKey, Diagnostic, KeyRights, OtelHeader, Pem, PemSource, Tls};

use super::secret::Secret;
use super::{Place, Secrets};

/// An API key, apart from its suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedKey {
    pub value: Secret,
    pub rights: KeyRights,
}

impl Secrets {
    /// Resolves keys, in their order.
    ///
    /// # Errors
    /// Every reference that no store knows, every value that cannot be a key, and keys that are equal.
    pub fn resolve_keys(&self, keys: &[ApiKey]) -> Result<Vec<ResolvedKey>, Vec<Diagnostic>> {
        let (mut resolved, mut problems) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match self.resolve_key(key) {
                Ok(value) => resolved.push((key, value)),
                Err(more) => problems.extend(more),
            }
        }
        problems.extend(duplicates(&resolved));
        match problems.is_empty() {
            true => Ok(resolved.into_iter().map(|(_, key)| key).collect()),
            false => Err(problems),
        }
    }

    fn resolve_key(&self, key: &ApiKey) -> Result<ResolvedKey, Vec<Diagnostic>> {
        let within = format!("`{}`", key.name);
        let text =
            self.shelf.text(&key.value, &Place { subject: String::new(), within: &within, at: key.at })?;
        match KeyRights::split(text.expose()) {
            Ok((value, rights)) => Ok(ResolvedKey { value: Secret::new(value.to_owned()), rights }),
            Err(fault) => {
                let message = format!("{within}: {fault}");
                Err(vec![Diagnostic::new("InvalidApiKey", message).at(key.at).help(fault.help())])
            }
        }
    }

    /// Resolves the headers of a collector, in their order.
    ///
    /// # Errors
    /// Every reference that no store knows.
    pub fn resolve_headers(&self, headers: &[OtelHeader]) -> Result<Vec<Secret>, Vec<Diagnostic>> {
        let (mut values, mut problems) = (Vec::with_capacity(headers.len()), Vec::new());
        for header in headers {
            let within = format!("header `{}`", header.name);
            let subject = "runtime.telemetry.otel_exporter: ".to_owned();
            match self.shelf.text(&header.value, &Place { subject, within: &within, at: header.at }) {
                Ok(value) => values.push(value),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(problems) }
    }

    /// Resolves the PEM text that stands in a spicepod or in a store; files stay paths.
    ///
    /// # Errors
    /// Every reference that no store knows.
    pub fn resolve_tls(&self, tls: &Tls) -> Result<Tls<Secret>, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut read = |pem: &Pem| self.pem(pem).map_err(|more| problems.extend(more)).ok();
        let (certificate, key) = (read(&tls.certificate), read(&tls.key));
        match (certificate, key, tls.client_auth.filter_map(read)) {
            (Some(certificate), Some(key), Some(client_auth)) => Ok(Tls { certificate, key, client_auth }),
            _ => Err(problems),
        }
    }

    fn pem(&self, pem: &Pem) -> Result<Pem<Secret>, Vec<Diagnostic>> {
        let Pem { name, source, at } = pem;
        let source = match source {
            PemSource::File(path) => PemSource::File(path.clone()),
            PemSource::Inline(template) => {
                let within = format!("`{name}`");
                let place = Place { subject: String::new(), within: &within, at: *at };
                PemSource::Inline(self.shelf.text(template, &place)?)
            }
        };
        Ok(Pem { name: name.clone(), source, at: *at })
    }
}

/// A problem for each key that is another one before it.
fn duplicates(keys: &[(&ApiKey, ResolvedKey)]) -> Vec<Diagnostic> {
    let mut seen: HashMap<&str, &ApiKey> = HashMap::new();
    let twice = keys.iter().filter_map(|(key, resolved)| {
        let first = seen.insert(resolved.value.expose(), key)?;
        let message = format!("`{}` and `{}` are the same key", first.name, key.name);
        let help = "remove one: a key has one principal and one set of rights";
        Some(Diagnostic::new("DuplicateApiKey", message).at(key.at).help(help))
    });
    twice.collect()
}
