//! API keys and their secrets: templates and stores enter, an [`Access`] leaves, and follows the stores from then on.
//!
//! Stores that do not have a key any more, or that hold what cannot be a key, change nothing: the keys that were good stay
//! good.

use super::access::{Access, ApiKey};
use crate::config::{self, Diagnostic, KeyRights};
use crate::query::Rights;
use crate::secrets::{ResolvedKey, Secrets, Watch};

/// The keys of a spicepod, and how it writes them.
pub struct ApiKeys {
    access: Access,
    now: Vec<ResolvedKey>,
    written: Vec<config::ApiKey>,
}

impl ApiKeys {
    /// # Errors
    /// Every key that no store has, that is none, or that is there twice.
    pub fn try_new(secrets: &Secrets, keys: &[config::ApiKey]) -> Result<Self, Vec<Diagnostic>> {
        let now = secrets.resolve_keys(keys)?;
        let access = Access::new(shown(&now));
        Ok(Self { access, now, written: keys.to_vec() })
    }

    /// The same keys, held from now on by `access`.
    #[must_use]
    pub fn into_access(self, access: &Access) -> Self {
        access.replace(shown(&self.now));
        Self { access: access.clone(), ..self }
    }

    /// What checks the credentials of requests; it follows the keys while [`ApiKeys::follow`] runs.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Takes every change of the stores, for as long as it is polled. Returns at once where no key has a reference.
    pub async fn follow(self, mut stores: Watch) {
        let Self { access, mut now, written } = self;
        if !written.iter().any(|key| key.value.references().next().is_some()) {
            return;
        }
        while let Some(secrets) = stores.changed().await {
            match secrets.resolve_keys(&written) {
                Ok(keys) if keys == now => {}
                Ok(keys) => {
                    access.replace(shown(&keys));
                    tracing::info!(keys = keys.len(), "api keys have changed");
                    now = keys;
                }
                Err(problems) => {
                    let why = words(&problems);
                    tracing::error!(why, "api keys cannot be read again, the former ones hold");
                }
            }
        }
    }
}

fn words(problems: &[Diagnostic]) -> String {
    problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
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
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use ::http::HeaderMap;

    use super::*;
    use crate::config::SourceFile;
    use crate::task::Scope;

    async fn keys(dir: &Path, list: &str) -> Result<(ApiKeys, Arc<Secrets>), Vec<Diagnostic>> {
        let text = format!(
            "version: v1\nkind: Spicepod\nname: t\nruntime: {{auth: {{api-key: {{keys: [{list}]}}}}}}\n"
        );
        let pod = config::parse(SourceFile { path: dir.join("spicepod.yaml"), text }).unwrap();
        let secrets = Arc::new(Secrets::load_with(&pod, |_| None, dir).await?);
        Ok((ApiKeys::try_new(&secrets, &pod.runtime.api_keys)?, secrets))
    }

    fn may(access: &Access, key: &str) -> Option<Rights> {
        let headers =
            HeaderMap::from_iter([(::http::HeaderName::from_static("x-api-key"), key.parse().unwrap())]);
        access.identify(&headers).ok().map(|identity| identity.caller.rights)
    }

    #[tokio::test]
    async fn a_suffix_stands_in_the_secret_or_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=a1:rw\nB=b1\nC=c1\n").unwrap();
        let list = "'${secrets:A}', '${env:B}:rw', 'pre-${secrets:C}'";
        let access = keys(dir.path(), list).await.unwrap().0.access();
        assert_eq!(may(&access, "a1"), Some(Rights::ReadWrite));
        assert_eq!(may(&access, "b1"), Some(Rights::ReadWrite));
        assert_eq!(may(&access, "pre-c1"), Some(Rights::Read));
        for unknown in ["a1:rw", "c1", ""] {
            assert_eq!(may(&access, unknown), None, "{unknown}");
        }
    }

    #[tokio::test]
    async fn all_that_is_wrong_is_said_without_a_key() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=hunter2\nB=hunter2:rw\nC=:rw\nD=hunter3:ro\n").unwrap();
        let list = "'${secrets:A}', '${secrets:B}', '${secrets:C}', '${secrets:D}:rw', '${secrets:NONE}'";
        let problems = keys(dir.path(), list).await.err().unwrap();
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

    #[tokio::test]
    async fn keys_follow_their_secret_and_hold_while_it_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        std::fs::write(&file, "A=one\n").unwrap();
        let (keys, secrets) = keys(dir.path(), "'${secrets:A}', 'fixed:rw'").await.unwrap();
        let (access, scope) = (keys.access(), Scope::new());
        let (mut watch, keeper) = secrets.watch();
        scope.spawn("secret stores", keeper.follow());
        scope.spawn("keys", keys.follow(watch.clone()));
        for gone in ["", "A=one\n", "A=\n", "A=fixed\n"] {
            std::fs::write(&file, gone).unwrap();
            watch.changed().await.unwrap();
            assert_eq!(may(&access, "one"), Some(Rights::Read), "{gone:?}");
        }
        std::fs::write(&file, "A=two:rw\n").unwrap();
        let started = Instant::now();
        while may(&access, "two").is_none() {
            assert!(started.elapsed() < Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((may(&access, "one"), may(&access, "two")), (None, Some(Rights::ReadWrite)));
        assert_eq!(may(&access, "fixed"), Some(Rights::ReadWrite));
    }
}
