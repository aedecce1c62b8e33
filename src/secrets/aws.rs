//! The `aws_secrets_manager` store: one secret of AWS Secrets Manager, a JSON object of texts, by AWS's own client.
//!
//! The client signs, finds credentials and region (environment, profile, web identity, container, instance) and renews
//! them; what it sends goes through our door.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Credentials;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::https::{CALL_MAX, Https, HttpsError};
use super::secret::Secret;
use super::spelling;
use super::store::{Reading, Store, StoreError, StoreParams};

const CA_PARAM: &str = "aws_ca_certificate_file";

/// The first try and one more.
const ATTEMPTS_MAX: u32 = 2;

pub(super) struct AwsStore {
    /// Name or ARN.
    secret: String,
    params: StoreParams,
    /// Made at the first reading, which looks for region and credentials.
    client: OnceCell<Client>,
}

impl AwsStore {
    pub(super) fn new(secret: &str, params: &StoreParams) -> Self {
        Self { secret: secret.to_owned(), params: params.clone(), client: OnceCell::new() }
    }

    async fn config(&self) -> SdkConfig {
        let param = |name: &str| self.params.owned(name);
        let door = Door { https: Https::new(param(CA_PARAM).map(PathBuf::from)) };
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(door)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(CALL_MAX).build());
        if let Some(region) = param("aws_region") {
            loader = loader.region(Region::new(region));
        }
        if let Some(url) = param("aws_endpoint_url") {
            loader = loader.endpoint_url(url);
        }
        if let (Some(id), Some(key)) = (param("aws_access_key_id"), param("aws_secret_access_key")) {
            let credentials = Credentials::new(id, key, param("aws_session_token"), None, "spicepod");
            loader = loader.credentials_provider(credentials);
        }
        loader.load().await
    }
}

#[async_trait]
impl Store for AwsStore {
    fn places(&self) -> Vec<String> {
        vec![format!("the AWS secret `{}`", self.secret)]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_fields(key)
    }

    async fn read(&self, _: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let client = self.client.get_or_init(|| async { Client::new(&self.config().await) }).await;
        let answer = client.get_secret_value().secret_id(&self.secret).send().await;
        let answer = answer.map_err(|error| explained(&error, &self.secret))?;
        values(answer.secret_string().unwrap_or_default(), &self.secret).map(Reading::of)
    }
}

/// The words of serde are not shown: they quote what they found.
fn values(text: &str, secret: &str) -> Result<HashMap<String, Secret>, StoreError> {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        let message = format!("the AWS secret `{secret}` is no JSON object");
        return Err(StoreError::new(message, "store key/value pairs: {\"KEY\": \"value\"}"));
    };
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name, Secret::new(text(value)?)))).collect())
}

/// AWS's error by its code; its own words only where they cannot hold more than names.
fn explained<E, R>(error: &SdkError<E, R>, secret: &str) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    let (message, help) = match code {
        Some("ResourceNotFoundException") => (
            format!("AWS Secrets Manager has no secret `{secret}` in this region, or none with a value"),
            "check the name and `aws_region`",
        ),
        Some("AccessDeniedException") => (
            format!("these AWS credentials may not read the secret `{secret}`"),
            "allow secretsmanager:GetSecretValue for it (and kms:Decrypt for a key of your own)",
        ),
        Some(
            code @ ("UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"),
        ) => (
            format!("AWS refuses the credentials: {code}"),
            "check `aws_access_key_id` and what belongs to it, or where the AWS SDK finds its own",
        ),
        Some(code) => (format!("AWS Secrets Manager answers {code}"), "it is asked again"),
        None => (
            format!("AWS Secrets Manager cannot be asked: {}", chain(error)),
            "check `aws_region`, credentials, and that this machine may reach the endpoint",
        ),
    };
    StoreError::new(message, help)
}

/// The causes of an error that has no answer of AWS in it, the outermost first.
fn chain(error: &dyn Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if words.last().is_none_or(|last| !last.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

/// [`Https`] as AWS's clients want it.
#[derive(Clone)]
struct Door {
    https: Https,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl HttpClient for Door {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // Instance metadata is given a second, so that machines elsewhere do not wait for it.
        let limits = [settings.connect_timeout(), settings.read_timeout()];
        let limit = limits.into_iter().flatten().fold(Duration::ZERO, |sum, limit| sum + limit);
        let limit = if limit.is_zero() { CALL_MAX } else { limit };
        SharedHttpConnector::new(Connector { https: self.https.clone(), limit })
    }
}

struct Connector {
    https: Https,
    limit: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { https, limit } = self;
        let (https, limit) = (https.clone(), *limit);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            // Requests of these clients are texts, never streams.
            let request = request.map(|body| Bytes::copy_from_slice(body.bytes().unwrap_or_default()));
            let answer = https.send_within(request, limit).await.map_err(|error| match error {
                HttpsError::TimedOut { .. } => ConnectorError::timeout(error.into()),
                error => ConnectorError::io(error.into()),
            })?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::user(error.into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_an_object_of_texts() {
        let values = values(r#"{"KEY": "one", "PORT": 1, "deep": {"a": "b"}}"#, "app").unwrap();
        assert_eq!((values.len(), values["KEY"].expose(), values["PORT"].expose()), (2, "one", "1"));
        for text in ["hunter2", "[\"hunter2\"]", ""] {
            let said = super::values(text, "app").map(|_| ()).unwrap_err();
            assert_eq!(said.message, "the AWS secret `app` is no JSON object");
        }
    }
}
