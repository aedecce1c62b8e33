//! The `hashicorp_vault` store: one path of HashiCorp Vault or OpenBao, over its documented HTTP API.
//!
//! Written here, and not left to `vaultrs`: that one reads answers of any size into plain strings, puts whole error
//! bodies into its errors, and sends through a client whose TLS needs a provider that holds for the whole process.
//!
//! A token is renewed from half of its life on, and when that is refused the login is made again. Where the secret itself
//! is leased (`database/creds/...`), it is renewed likewise and asked for anew only when its lease cannot be made longer:
//! each reading of such a path makes other credentials.

mod api;
mod login;
mod term;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::api::{Api, Refused};
use self::login::Login;
use self::term::{Stage, Term};
use super::secret::Secret;
use super::store::{Reading, Store, StoreError, StoreParams};
use super::{Environment, spelling};

pub(super) struct VaultStore {
    api: Api,
    login: Login,
    /// As the KV engine's API has it: `secret/data/app`.
    path: String,
    version: Version,
    session: Mutex<Session>,
}

/// Of the KV engine; the first is what all other engines answer like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What is held between two readings.
#[derive(Default)]
struct Session {
    token: Option<Token>,
    lease: Option<Lease>,
}

struct Token {
    value: Secret,
    term: Term,
}

/// A leased secret.
struct Lease {
    id: String,
    term: Term,
    values: HashMap<String, Secret>,
}

impl VaultStore {
    pub(super) fn new(
        path: &str,
        params: &StoreParams,
        environment: &Environment,
    ) -> Result<Self, StoreError> {
        let version = match params.get("hashicorp_vault_kv_version") {
            Some("1") => Version::One,
            _ => Version::Two,
        };
        Ok(Self {
            api: Api::new(params, environment)?,
            login: Login::new(params)?,
            path: read_path(path, params.get("hashicorp_vault_mount"), version)?,
            version,
            session: Mutex::default(),
        })
    }

    /// The session, which nobody else has meanwhile: another reader would log in for itself.
    fn take(&self) -> Session {
        std::mem::take(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn read_with(&self, session: &mut Session) -> Result<Reading, StoreError> {
        if let Some(reading) =
            session.lease.as_ref().filter(|lease| lease.stage() == Stage::Fresh).map(Lease::reading)
        {
            self.token(session).await?;
            return Ok(reading);
        }
        let token = self.token(session).await?;
        if let Some(lease) = self.renewed(session.lease.take(), &token).await {
            let reading = lease.reading();
            session.lease = Some(lease);
            return Ok(reading);
        }
        let answer = match self.get(&token).await {
            // The token was taken back, or has another policy by now: one login more.
            Err(refused) if refused.status == Some(StatusCode::FORBIDDEN) => {
                session.token = None;
                let token = self.token(session).await?;
                self.get(&token).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|refused| self.unread(refused))?;
        let (values, lease) = self.values(&answer)?;
        session.lease = lease;
        Ok(session.lease.as_ref().map_or_else(|| Reading::of(values), Lease::reading))
    }

    async fn get(&self, token: &Secret) -> Result<Value, Refused> {
        self.api.call(Method::GET, &self.path, Some(token), None).await
    }

    /// A token with life in it.
    async fn token(&self, session: &mut Session) -> Result<Secret, StoreError> {
        let held = match session.token.take() {
            Some(token) => self.kept(token).await,
            None => None,
        };
        let token = match held {
            Some(token) => token,
            None => self.login.login(&self.api).await?,
        };
        Ok(session.token.insert(token).value.clone())
    }

    /// The token, renewed where it is time for that; nothing where there has to be another one.
    async fn kept(&self, token: Token) -> Option<Token> {
        if self.login.is_outdated(&token.value).await {
            return None;
        }
        match token.term.stage(Instant::now()) {
            Stage::Fresh => Some(token),
            Stage::Over => None,
            Stage::Renew => {
                let path = "auth/token/renew-self";
                let answer = self.api.call(Method::POST, path, Some(&token.value), Some(&json!({}))).await;
                // Where it cannot be made longer, the login is made again while it still holds.
                let term = answer.ok().and_then(|answer| Term::of_auth(&answer))?;
                Some(Token { value: token.value, term })
            }
        }
    }

    async fn renewed(&self, lease: Option<Lease>, token: &Secret) -> Option<Lease> {
        let lease = lease.filter(|lease| lease.stage() == Stage::Renew)?;
        let body = json!({"lease_id": lease.id});
        let answer = self.api.call(Method::PUT, "sys/leases/renew", Some(token), Some(&body)).await.ok()?;
        let term = Term::of_lease(&answer)?;
        // At the end of what the engine allows, a lease is made longer by ever less.
        term.is_as_long_as(&lease.term).then_some(Lease { term, ..lease })
    }

    fn values(&self, answer: &Value) -> Result<(HashMap<String, Secret>, Option<Lease>), StoreError> {
        let data = match self.version {
            Version::One => &answer["data"],
            Version::Two => &answer["data"]["data"],
        };
        let Value::Object(fields) = data else { return Err(self.wrong_version()) };
        let values = texts(fields);
        let id = answer["lease_id"].as_str().unwrap_or_default();
        let lease = match (id, Term::of_lease(answer)) {
            ("", _) | (_, None) => None,
            (id, Some(term)) => Some(Lease { id: id.to_owned(), term, values: values.clone() }),
        };
        Ok((values, lease))
    }

    fn unread(&self, refused: Refused) -> StoreError {
        let path = &self.path;
        match refused.status {
            Some(StatusCode::NOT_FOUND) => {
                let message = format!("Vault has nothing at `{path}`");
                StoreError::new(
                    message,
                    "check the path, `hashicorp_vault_mount` and `hashicorp_vault_kv_version`",
                )
            }
            Some(StatusCode::FORBIDDEN) => {
                let message = format!("Vault does not let this login read `{path}`");
                StoreError::new(
                    message,
                    format!("give it a policy: path \"{path}\" {{ capabilities = [\"read\"] }}"),
                )
            }
            _ => refused.error,
        }
    }

    fn wrong_version(&self) -> StoreError {
        let message = format!("Vault's answer for `{}` is not that of the KV engine's version", self.path);
        StoreError::new(message, "set `hashicorp_vault_kv_version` to `1` or `2`, as the engine is")
    }
}

impl Lease {
    fn stage(&self) -> Stage {
        self.term.stage(Instant::now())
    }

    fn reading(&self) -> Reading {
        let again_within = self.term.renew_in(Instant::now());
        Reading { values: self.values.clone(), again_within }
    }
}

#[async_trait]
impl Store for VaultStore {
    fn places(&self) -> Vec<String> {
        vec![format!("Vault's `{}`", self.path)]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_fields(key)
    }

    async fn read(&self, _: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let mut session = self.take();
        let reading = self.read_with(&mut session).await;
        let token_due = session.token.as_ref().and_then(|token| token.term.renew_in(Instant::now()));
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        let mut reading = reading?;
        let earliest = |one: Duration, other: Option<Duration>| other.map_or(one, |other| one.min(other));
        reading.again_within = match token_due {
            Some(due) => Some(earliest(due, reading.again_within)),
            None => reading.again_within,
        };
        Ok(reading)
    }
}

/// The path to read: version 2 of the KV engine has its values below `data`.
fn read_path(path: &str, mount: Option<&str>, version: Version) -> Result<String, StoreError> {
    let path = path.trim_matches('/');
    let mount = mount.map(|mount| mount.trim_matches('/'));
    if version == Version::One {
        return Ok(match mount.filter(|mount| !path.starts_with(&format!("{mount}/"))) {
            Some(mount) => format!("{mount}/{path}"),
            None => path.to_owned(),
        });
    }
    let within = mount.map(|mount| (mount, path.strip_prefix(&format!("{mount}/")).unwrap_or(path)));
    let Some((mount, rest)) = within.or_else(|| path.split_once('/')) else {
        let message = format!("`hashicorp_vault:{path}` names a mount and nothing in it");
        return Err(StoreError::new(
            message,
            "write `hashicorp_vault:<mount>/<path>`, or set `hashicorp_vault_mount`",
        ));
    };
    Ok(format!("{mount}/data/{}", rest.strip_prefix("data/").unwrap_or(rest)))
}

/// Fields that are text, or that read as text.
fn texts(fields: &Map<String, Value>) -> HashMap<String, Secret> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    fields.iter().filter_map(|(name, value)| Some((name.clone(), Secret::new(text(value)?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_engine() {
        let path = |path: &str, mount: Option<&str>, version| read_path(path, mount, version).unwrap();
        assert_eq!(path("secret/app/db", None, Version::Two), "secret/data/app/db");
        assert_eq!(path("/secret/data/app", None, Version::Two), "secret/data/app");
        assert_eq!(path("app", Some("teams/kv/"), Version::Two), "teams/kv/data/app");
        assert_eq!(path("teams/kv/app", Some("teams/kv"), Version::Two), "teams/kv/data/app");
        assert_eq!(path("database/creds/app", None, Version::One), "database/creds/app");
        assert_eq!(path("app", Some("kv"), Version::One), "kv/app");
        assert!(read_path("secret", None, Version::Two).is_err());
    }

    #[test]
    fn fields_that_read_as_text_are_values() {
        let Value::Object(fields) = json!({"a": "x", "b": 1, "c": true, "d": null, "e": {"f": "g"}}) else {
            panic!("an object")
        };
        let mut shown: Vec<String> =
            texts(&fields).iter().map(|(k, v)| format!("{k}={}", v.expose())).collect();
        shown.sort();
        assert_eq!(shown, ["a=x", "b=1", "c=true"]);
    }
}
