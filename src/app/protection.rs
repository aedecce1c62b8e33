//! Who may ask and what is encrypted: the spicepod's sections and its secrets enter, what the front ends need leaves,
//! with the keepers that let it follow its files.

use crate::config::{Diagnostic, Runtime, Tls};
use crate::secrets::{Secrets, Watch};
use crate::serve::{Access, ApiKeys, ServerTls, TlsFiles};
use crate::task::Scope;

/// Keys and certificates, read and checked.
pub(super) struct Protection {
    keys: ApiKeys,
    tls: Option<TlsFiles>,
    metrics_tls: Option<TlsFiles>,
}

/// What the listeners are given.
#[derive(Clone)]
pub(super) struct Guards {
    pub(super) access: Access,
    /// Of the HTTP and Flight listeners.
    pub(super) tls: Option<ServerTls>,
    pub(super) metrics_tls: Option<ServerTls>,
}

impl Protection {
    /// # Errors
    /// Everything that is wrong with keys, certificates and their secrets.
    pub(super) fn try_new(runtime: &Runtime, secrets: &Secrets) -> Result<Self, Vec<Diagnostic>> {
        let tls = load(runtime.tls.as_ref(), secrets);
        let metrics_tls = load(runtime.metrics_tls.as_ref(), secrets);
        let keys = ApiKeys::try_new(secrets, &runtime.api_keys);
        match (keys, tls, metrics_tls) {
            (Ok(keys), Ok(tls), Ok(metrics_tls)) => Ok(Self { keys, tls, metrics_tls }),
            (keys, tls, metrics_tls) => {
                let problems = keys.err().into_iter().chain(tls.err()).chain(metrics_tls.err());
                Err(problems.flatten().collect())
            }
        }
    }

    /// What listeners are given.
    pub(super) fn guards(&self) -> Guards {
        let handle = |files: &Option<TlsFiles>| files.as_ref().map(TlsFiles::tls);
        Guards { access: self.keys.access(), tls: handle(&self.tls), metrics_tls: handle(&self.metrics_tls) }
    }

    /// Lets what listeners have been given say what this says, and keys follow the secret stores and certificates their
    /// files, for as long as `keepers` lives.
    pub(super) fn guard(self, guards: &Guards, stores: &Watch, keepers: &Scope) {
        let Self { keys, tls, metrics_tls } = self;
        keepers.spawn("api keys", keys.into_access(&guards.access).follow(stores.clone()));
        for (files, handle) in [(tls, &guards.tls), (metrics_tls, &guards.metrics_tls)] {
            if let (Some(files), Some(handle)) = (files, handle) {
                keepers.spawn("tls files", files.into_tls(handle).follow());
            }
        }
    }
}

fn load(tls: Option<&Tls>, secrets: &Secrets) -> Result<Option<TlsFiles>, Vec<Diagnostic>> {
    tls.map(|tls| secrets.resolve_tls(tls).and_then(TlsFiles::try_new)).transpose()
}
