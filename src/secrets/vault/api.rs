//! Vault's HTTP API: a call with its token enters, JSON or a refusal leaves.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request, StatusCode};
use serde_json::Value;
use std::path::PathBuf;

use super::super::Environment;
use super::super::https::Https;
use super::super::secret::{Secret, redact};
use super::super::store::{StoreError, StoreParams};

const CA_PARAM: &str = "hashicorp_vault_ca_certificate_file";

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Tells Vault that no web page has sent this.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Characters of Vault's own words that are told on.
const WORDS_MAX: usize = 200;

pub(super) struct Api {
    address: String,
    namespace: Option<HeaderValue>,
    https: Https,
}

/// A call that gave nothing.
pub(super) struct Refused {
    /// What Vault answered, where it did.
    pub status: Option<StatusCode>,
    pub error: StoreError,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self { status: None, error }
    }
}

impl Api {
    pub(super) fn new(params: &StoreParams, environment: &Environment) -> Result<Self, StoreError> {
        let address = params.owned("hashicorp_vault_address").or_else(|| (environment)("VAULT_ADDR"));
        let address = address.filter(|address| !address.is_empty()).ok_or_else(|| {
            StoreError::new("no address of Vault is given", "set `hashicorp_vault_address`, or VAULT_ADDR")
        })?;
        let namespace = params.get("hashicorp_vault_namespace").map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(|_| {
            StoreError::new(
                "`hashicorp_vault_namespace` is no name",
                "write the namespace's path, such as `team/`",
            )
        })?;
        let address = address.trim_end_matches('/').to_owned();
        Ok(Self { address, namespace, https: Https::new(params.get(CA_PARAM).map(PathBuf::from)) })
    }

    /// One call of `/v1/{path}`.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let request = self.request(method, path, token, body)?;
        let answer = self.https.send(request).await;
        let answer = answer.map_err(|error| StoreError::new(error.to_string(), error.help(CA_PARAM)))?;
        let (status, body) = (answer.status(), answer.body());
        if !status.is_success() {
            return Err(Refused { status: Some(status), error: refused(status, body, token) });
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        // The words of serde are not shown: they quote what they found.
        let unread = |_| StoreError::new("Vault's answer is not JSON", "check that the address is Vault's");
        Ok(serde_json::from_slice(body).map_err(unread)?)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<Request<Bytes>, StoreError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header(REQUEST, "true")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let bad =
                |_| StoreError::new("the token for Vault is no token", "it is one word, without line breaks");
            let mut value = HeaderValue::from_str(token.expose()).map_err(bad)?;
            value.set_sensitive(true);
            request = request.header(TOKEN, value);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let bad = |_| {
            StoreError::new(format!("`{}/v1/{path}` is no address", self.address), "check address and path")
        };
        request.body(body).map_err(bad)
    }
}

/// Vault's status and its first words, which say what is wrong and hold no secret but perhaps ours.
fn refused(status: StatusCode, body: &[u8], token: Option<&Secret>) -> StoreError {
    let help = match status {
        StatusCode::SERVICE_UNAVAILABLE => "unseal Vault, or wait for its leader: it is asked again",
        status if status.is_redirection() => {
            "name the active node in `hashicorp_vault_address`: redirects are not followed"
        }
        status if status.is_server_error() => "look into Vault's log: it is asked again",
        _ => "check `hashicorp_vault_auth_method`, its mount, and what it logs in with",
    };
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let words = answer.as_ref().and_then(|answer| answer["errors"][0].as_str()).unwrap_or_default();
    let words: String = words.trim().chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    let words = redact(&words, &token.into_iter().collect::<Vec<_>>());
    let message = match words.is_empty() {
        true => format!("Vault answers {status}"),
        false => format!("Vault answers {status}: {words}"),
    };
    StoreError::new(message, help)
}
