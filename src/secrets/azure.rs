//! The `azure_keyvault` store: the secrets of one Azure Key Vault, by Azure's own client.
//!
//! A vault gives one secret for each request, so each name that a key may have is asked for. The client answers the
//! vault's challenge, logs in and keeps its tokens fresh; what it sends goes through our door.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::https::Https;
use super::secret::Secret;
use super::store::{Reading, Store, StoreError, StoreParams};
use super::{Environment, spelling};

const CA_PARAM: &str = "azure_ca_certificate_file";

/// Where Azure's workload identity puts its token.
const FEDERATED_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// Names that are asked for at a time.
const PARALLEL: usize = 8;

pub(super) struct AzureStore {
    vault: String,
    client: SecretClient,
}

impl AzureStore {
    /// `vault` is a name, or the URL of a vault in another cloud.
    pub(super) fn new(
        vault: &str,
        params: &StoreParams,
        environment: &Environment,
    ) -> Result<Self, StoreError> {
        let url = match vault.contains("://") {
            true => vault.to_owned(),
            false => format!("https://{vault}.vault.azure.net"),
        };
        let failed = |error: azure_core::Error| {
            StoreError::new(
                format!("Azure's client cannot be made: {error}"),
                "check `azure_tenant_id`, `azure_client_id` and the vault's name",
            )
        };
        let credential = credential(params, environment).map_err(failed)?;
        let options = SecretClientOptions { client_options: client_options(params), ..Default::default() };
        let client = SecretClient::new(&url, credential, Some(options)).map_err(failed)?;
        Ok(Self { vault: vault.to_owned(), client })
    }

    /// One secret; nothing where the vault has none of that name.
    async fn secret(&self, name: String) -> Result<Option<(String, Secret)>, StoreError> {
        let answer = match self.client.get_secret(&name, None).await {
            Ok(answer) => answer,
            Err(error) if error.http_status() == Some(StatusCode::NotFound) => return Ok(None),
            Err(error) => return Err(self.explained(&error)),
        };
        // The words of serde are not shown: they quote what they found.
        let secret = answer.into_model().map_err(|_| {
            StoreError::new(
                "the vault's answer is not a secret",
                "check that the address is that of a Key Vault",
            )
        })?;
        Ok(secret.value.map(|value| (name, Secret::new(value))))
    }

    fn explained(&self, error: &azure_core::Error) -> StoreError {
        let vault = &self.vault;
        let (message, help) = match (error.http_status(), error.kind()) {
            (Some(StatusCode::Forbidden), _) => (
                format!("this identity may not read secrets of the vault `{vault}`"),
                "give it the role `Key Vault Secrets User`, and let this network reach the vault",
            ),
            (Some(StatusCode::Unauthorized), _) | (_, ErrorKind::Credential) => (
                format!("cannot log in for the vault `{vault}`: {}", first_line(error)),
                "check `azure_tenant_id`, `azure_client_id` and `azure_client_secret`, or the pod's workload identity",
            ),
            (Some(status), _) => (format!("the vault `{vault}` answers {status}"), "it is asked again"),
            (None, _) => (
                format!("the vault `{vault}` cannot be asked: {}", first_line(error)),
                "check the vault's name, and that this machine may reach it",
            ),
        };
        StoreError::new(message, help)
    }
}

#[async_trait]
impl Store for AzureStore {
    fn places(&self) -> Vec<String> {
        vec![format!("the Azure vault `{}`", self.vault)]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_hyphens(key)
    }

    async fn read(&self, keys: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let names: BTreeSet<String> = keys.iter().flat_map(|key| self.spellings(key)).collect();
        // What cannot be a name in a vault is in none.
        let names =
            names.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        let found = futures::stream::iter(names.map(|name| self.secret(name))).buffer_unordered(PARALLEL);
        let found: Vec<Option<(String, Secret)>> = found.try_collect().await?;
        Ok(Reading::of(found.into_iter().flatten().collect::<HashMap<_, _>>()))
    }
}

/// By client secret, by the pod's workload identity, or by that of the machine.
fn credential(
    params: &StoreParams,
    environment: &Environment,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let (tenant_id, client_id) = (params.owned("azure_tenant_id"), params.owned("azure_client_id"));
    let client_options = client_options(params);
    if let Some(secret) = params.owned("azure_client_secret") {
        let options = ClientSecretCredentialOptions { client_options };
        let (tenant, client) = (tenant_id.unwrap_or_default(), client_id.unwrap_or_default());
        return Ok(ClientSecretCredential::new(&tenant, client, AzureSecret::new(secret), Some(options))?);
    }
    if (environment)(FEDERATED_TOKEN_FILE).is_some() {
        let credential_options = ClientAssertionCredentialOptions { client_options };
        let options = WorkloadIdentityCredentialOptions {
            credential_options,
            client_id,
            tenant_id,
            ..Default::default()
        };
        return Ok(WorkloadIdentityCredential::new(Some(options))?);
    }
    let user_assigned_id = client_id.map(UserAssignedId::ClientId);
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
    Ok(ManagedIdentityCredential::new(Some(options))?)
}

fn client_options(params: &StoreParams) -> ClientOptions {
    let door = Door(Https::new(params.get(CA_PARAM).map(PathBuf::from)));
    let cloud = params.owned("azure_authority_host").map(|host| {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = host;
        Arc::new(CloudConfiguration::from(custom))
    });
    // Stores are asked again by their keeper, in their own time.
    let (transport, retry) = (Some(Transport::new(Arc::new(door))), RetryOptions::none());
    ClientOptions { transport, retry, cloud, ..Default::default() }
}

fn first_line(error: &azure_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// [`Https`] as Azure's clients want it.
struct Door(Https);

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

#[async_trait]
impl HttpClient for Door {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let failed = |error: String| azure_core::Error::with_message(ErrorKind::Io, error);
        let body = match request.body() {
            Body::Bytes(bytes) => bytes.clone(),
            // Requests of these clients are texts, never streams.
            Body::SeekableStream(_) => Bytes::new(),
        };
        let mut sent = http::Request::builder().method(request.method().as_str()).uri(request.url().as_str());
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        let sent = sent.body(body).map_err(|error| failed(error.to_string()))?;
        let answer = self.0.send(sent).await.map_err(|error| failed(error.to_string()))?;
        let (parts, body) = answer.into_parts();
        let mut headers = Headers::new();
        for (name, value) in &parts.headers {
            if let Ok(value) = value.to_str() {
                headers
                    .insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value.to_owned()));
            }
        }
        Ok(AsyncRawResponse::from_bytes(parts.status.as_u16().into(), headers, body))
    }
}
