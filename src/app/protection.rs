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

    /// Lets keys follow the secret stores and certificates their files, for as long as `keepers` lives.
    pub(super) fn start(self, stores: &Watch, keepers: &Scope) -> Guards {
        let Self { keys, tls, metrics_tls } = self;
        let handle = |files: &Option<TlsFiles>| files.as_ref().map(TlsFiles::tls);
        let guards = Guards { access: keys.access(), tls: handle(&tls), metrics_tls: handle(&metrics_tls) };
        keepers.spawn("api keys", keys.follow(stores.clone()));
        for files in [tls, metrics_tls].into_iter().flatten() {
            keepers.spawn("tls files", files.follow());
        }
        guards
    }
}

fn load(tls: Option<&Tls>, secrets: &Secrets) -> Result<Option<TlsFiles>, Vec<Diagnostic>> {
    tls.map(|tls| secrets.resolve_tls(tls).and_then(TlsFiles::try_new)).transpose()
}
