//! API keys and their secrets: templates and stores enter, an [`Access`] leaves, and follows the secrets from then on.
//!
//! A store that cannot be read, or that holds what cannot be a key, changes nothing: the keys that were good stay good.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, ApiKey};
use super::settled::{Next, Settled};
use crate::config::{self, Diagnostic, KeyRights};
use crate::query::Rights;
use crate::secrets::{ResolvedKey, Secrets};
use crate::task;

/// How often the stores are read; another key holds from the second reading on.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The keys of a spicepod, and where they come from.
pub struct ApiKeys {
    access: Access,
    now: Vec<ResolvedKey>,
    origin: Arc<Origin>,
}

struct Origin {
    secrets: Arc<Secrets>,
    keys: Vec<config::ApiKey>,
}

impl ApiKeys {
    /// # Errors
    /// Every key that no store has, that is none, or that is there twice.
    pub fn try_new(secrets: Arc<Secrets>, keys: &[config::ApiKey]) -> Result<Self, Vec<Diagnostic>> {
        let now = secrets.resolve_keys(keys)?;
        let access = Access::new(shown(&now));
        Ok(Self { access, now, origin: Arc::new(Origin { secrets, keys: keys.to_vec() }) })
    }

    /// What checks the credentials of requests; it follows the keys while [`ApiKeys::follow`] runs.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Reads the stores again and again, for as long as it is polled. Returns at once where no key has a reference.
    pub async fn follow(self) {
        let Self { access, now, origin } = self;
        if !origin.keys.iter().any(|key| key.value.references().next().is_some()) {
            return;
        }
        let mut settled = Settled::new(now);
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            let reading = Arc::clone(&origin);
            let Ok(read) = task::blocking("api keys", move || reading.read()).await else { return };
            match settled.read(read) {
                Next::Nothing => {}
                Next::Act(keys) => {
                    access.replace(shown(keys));
                    tracing::info!(keys = keys.len(), "api keys have changed");
                }
                Next::Tell(why) => {
                    tracing::error!(why, "api keys cannot be read again, the former ones hold")
                }
            }
        }
    }
}

impl Origin {
    fn read(&self) -> Result<Vec<ResolvedKey>, String> {
        let read = self.secrets.reload().and_then(|secrets| secrets.resolve_keys(&self.keys));
        read.map_err(|problems| {
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        })
    }
}

fn shown(keys: &[ResolvedKey]) -> Vec<ApiKey> {
    let key = |key: &ResolvedKey| ApiKey {
        secret: key.value.clone(),
        rights: match key.rights {
            KeyRights::Read => Rights::Read,
            KeyRights::ReadWrite => Rights::ReadWrite,
        },
    };
    keys.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::http::HeaderMap;

    use super::*;
    use crate::config::SourceFile;
    use crate::task::Scope;

    fn keys(dir: &Path, list: &str) -> Result<ApiKeys, Vec<Diagnostic>> {
        let text = format!(
            "version: v1\nkind: Spicepod\nname: t\nruntime: {{auth: {{api-key: {{keys: [{list}]}}}}}}\n"
        );
        let pod = config::parse(SourceFile { path: dir.join("spicepod.yaml"), text }).unwrap();
        let secrets = Secrets::load_with(&pod, |_| None, dir)?;
        ApiKeys::try_new(Arc::new(secrets), &pod.runtime.api_keys)
    }

    fn may(access: &Access, key: &str) -> Option<Rights> {
        let headers =
            HeaderMap::from_iter([(::http::HeaderName::from_static("x-api-key"), key.parse().unwrap())]);
        access.identify(&headers).ok().map(|identity| identity.caller.rights)
    }

    #[test]
    fn a_suffix_stands_in_the_secret_or_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=a1:rw\nB=b1\nC=c1\n").unwrap();
        let access = keys(dir.path(), "'${secrets:A}', '${env:B}:rw', 'pre-${secrets:C}'").unwrap().access();
        assert_eq!(may(&access, "a1"), Some(Rights::ReadWrite));
        assert_eq!(may(&access, "b1"), Some(Rights::ReadWrite));
        assert_eq!(may(&access, "pre-c1"), Some(Rights::Read));
        for unknown in ["a1:rw", "c1", ""] {
            assert_eq!(may(&access, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_without_a_key() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=hunter2\nB=hunter2:rw\nC=:rw\nD=hunter3:ro\n").unwrap();
        let list = "'${secrets:A}', '${secrets:B}', '${secrets:C}', '${secrets:D}:rw', '${secrets:NONE}'";
        let problems = keys(dir.path(), list).err().unwrap();
        let said: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            said,
            [
                "`runtime.auth.api-key.keys[2]`: the key is empty",
                "`runtime.auth.api-key.keys[3]`: the key has two suffixes that tell its rights",
                "secret `NONE` was not found (`${secrets:NONE}` in `runtime.auth.api-key.keys[4]`)",
                "`runtime.auth.api-key.keys[0]` and `runtime.auth.api-key.keys[1]` are the same key",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn keys_follow_their_secret_and_hold_while_it_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        std::fs::write(&file, "A=one\n").unwrap();
        let keys = keys(dir.path(), "'${secrets:A}', 'fixed:rw'").unwrap();
        let (access, scope) = (keys.access(), Scope::new());
        scope.spawn("keys", keys.follow());
        let passes = async || {
            for _ in 0..6 {
                tokio::time::sleep(READ_INTERVAL).await;
            }
        };
        for gone in ["", "A=\n", "A=fixed\n"] {
            std::fs::write(&file, gone).unwrap();
            passes().await;
            assert_eq!(may(&access, "one"), Some(Rights::Read), "{gone:?}");
        }
        std::fs::write(&file, "A=two:rw\n").unwrap();
        passes().await;
        assert_eq!((may(&access, "one"), may(&access, "two")), (None, Some(Rights::ReadWrite)));
        assert_eq!(may(&access, "fixed"), Some(Rights::ReadWrite));
    }
}
