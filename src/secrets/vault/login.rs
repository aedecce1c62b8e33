//! Ways into Vault: what the spicepod gives enters, a token with its term leaves.

use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::file;
use crate::task;

use super::super::secret::Secret;
use super::super::store::{BYTES_MAX, StoreError, StoreParams};
use super::Token;
use super::api::{Api, Refused};
use super::term::Term;

/// What Kubernetes puts into every pod, and Vault's `kubernetes` method verifies.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

pub(super) enum Login {
    Token(Secret),
    /// A token that somebody else renews, such as an agent.
    TokenFile(PathBuf),
    AppRole {
        mount: String,
        role_id: Secret,
        secret_id: Secret,
    },
    /// `kubernetes` and `jwt`, which are asked alike.
    Jwt {
        mount: String,
        role: String,
        file: PathBuf,
    },
}

impl Login {
    /// The checked spicepod has what each method needs; a secret that is empty is found here.
    pub(super) fn new(params: &StoreParams) -> Result<Self, StoreError> {
        let param = |name: &str| format!("hashicorp_vault_{name}");
        let needed = |name: &str| {
            let name = param(name);
            params.secret(&name).ok_or_else(|| {
                StoreError::new(
                    format!("`{name}` is empty"),
                    "write a value, or set the secret that it refers to",
                )
            })
        };
        let method = params.get(&param("auth_method")).unwrap_or("token");
        let mount = params.get(&param("auth_mount")).unwrap_or(method).trim_matches('/').to_owned();
        Ok(match (method, params.get(&param("token_file"))) {
            ("approle", _) => {
                Self::AppRole { mount, role_id: needed("role_id")?, secret_id: needed("secret_id")? }
            }
            ("kubernetes" | "jwt", _) => {
                let file = params.get(&param("jwt_file")).unwrap_or(SERVICE_ACCOUNT_TOKEN).into();
                Self::Jwt { mount, role: needed("role")?.expose().to_owned(), file }
            }
            (_, Some(file)) => Self::TokenFile(file.into()),
            _ => Self::Token(needed("token")?),
        })
    }

    /// Whether `token` is another one than the file holds by now.
    pub(super) async fn is_outdated(&self, token: &Secret) -> bool {
        match self {
            Self::TokenFile(path) => read(path).await.is_ok_and(|now| now != *token),
            _ => false,
        }
    }

    pub(super) async fn login(&self, api: &Api) -> Result<Token, StoreError> {
        match self {
            Self::Token(token) => looked_up(api, token.clone()).await,
            Self::TokenFile(path) => looked_up(api, read(path).await?).await,
            Self::AppRole { mount, role_id, secret_id } => {
                let body = json!({"role_id": role_id.expose(), "secret_id": secret_id.expose()});
                granted(api, mount, &body).await
            }
            Self::Jwt { mount, role, file } => {
                let body = json!({"role": role, "jwt": read(file).await?.expose()});
                granted(api, mount, &body).await
            }
        }
    }
}

/// Asks for a token.
async fn granted(api: &Api, mount: &str, body: &Value) -> Result<Token, StoreError> {
    let answer = api.call(Method::POST, &format!("auth/{mount}/login"), None, Some(body)).await;
    let answer = answer.map_err(|refused| said("cannot log in", refused))?;
    let token = answer["auth"]["client_token"].as_str().map(|token| Secret::new(token.to_owned()));
    match (token, Term::of_auth(&answer)) {
        (Some(value), Some(term)) => Ok(Token { value, term }),
        _ => Err(StoreError::new("Vault's login gave no token", "check `hashicorp_vault_auth_mount`")),
    }
}

/// How long a given token holds. One that may not ask that is taken to hold, and refused in time if it does not.
async fn looked_up(api: &Api, value: Secret) -> Result<Token, StoreError> {
    let for_ever = Term::new(Instant::now(), 0, false);
    let term = match api.call(Method::GET, "auth/token/lookup-self", Some(&value), None).await {
        Ok(answer) => {
            let data = &answer["data"];
            let (ttl, renewable) = (data["ttl"].as_u64(), data["renewable"].as_bool());
            Term::new(Instant::now(), ttl.unwrap_or(0), renewable.unwrap_or(false))
        }
        Err(Refused { status: Some(_), .. }) => for_ever,
        Err(refused) => return Err(refused.error),
    };
    Ok(Token { value, term })
}

fn said(what: &str, refused: Refused) -> StoreError {
    let StoreError { code, message, help } = refused.error;
    StoreError { code, message: format!("{what}: {message}"), help }
}

async fn read(path: &std::path::Path) -> Result<Secret, StoreError> {
    let (shown, path) = (path.display().to_string(), path.to_owned());
    let read = task::blocking("a token file", move || file::read(&path, BYTES_MAX)).await;
    let failed = |why: String| {
        StoreError::new(
            format!("cannot read {shown}: {why}"),
            "mount the file, and give this user the right to read it",
        )
    };
    let text = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(Secret::new(text.trim().to_owned()))
}
