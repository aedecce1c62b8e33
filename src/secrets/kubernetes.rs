//! The `kubernetes` store: one Secret of the Kubernetes API, read with the pod's own service account.
//!
//! Its one request is written here, and not left to `kube-client`: that one writes an answer that it cannot read into the
//! log, which here is the secret, reads answers of any size, and brings a YAML parser and all types of Kubernetes for a
//! single GET. Token and CA are read from their files each time: Kubernetes renews both while the pod runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;

use crate::config::file;
use crate::task;

use super::files::without_line_break;
use super::https::Https;
use super::secret::Secret;
use super::store::{BYTES_MAX, Reading, Store, StoreError, StoreParams};
use super::{Environment, spelling};

/// What Kubernetes puts into every pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const CA_PARAM: &str = "kubernetes_ca_certificate_file";

pub(super) struct KubernetesStore {
    secret: String,
    /// Where it is not said, it stands in a file of the service account.
    namespace: Option<String>,
    api_server: String,
    token_file: PathBuf,
    https: Https,
}

/// The part of a Secret that counts: values in base64.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl KubernetesStore {
    pub(super) fn new(
        secret: &str,
        params: &StoreParams,
        environment: &Environment,
    ) -> Result<Self, StoreError> {
        let account = |name: &str| PathBuf::from(SERVICE_ACCOUNT).join(name);
        let path = |param: &str, name: &str| params.get(param).map_or_else(|| account(name), PathBuf::from);
        let api_server = match params.owned("kubernetes_api_server") {
            Some(server) => server,
            None => in_cluster(environment)?,
        };
        Ok(Self {
            secret: secret.to_owned(),
            namespace: params.owned("kubernetes_namespace"),
            api_server: api_server.trim_end_matches('/').to_owned(),
            token_file: path("kubernetes_token_file", "token"),
            https: Https::new(Some(path(CA_PARAM, "ca.crt"))),
        })
    }

    async fn request(&self) -> Result<(Request<Bytes>, String), StoreError> {
        let token = read_file(self.token_file.clone()).await?;
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => read_file(PathBuf::from(SERVICE_ACCOUNT).join("namespace")).await?.expose().to_owned(),
        };
        let Self { api_server, secret, .. } = self;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| {
            StoreError::new(
                format!("{} holds no token", self.token_file.display()),
                "check `kubernetes_token_file`",
            )
        })?;
        bearer.set_sensitive(true);
        let request = Request::get(format!("{api_server}/api/v1/namespaces/{namespace}/secrets/{secret}"))
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, bearer)
            .body(Bytes::new());
        let bad = |_| StoreError::new("no request can be made of these names", "check namespace and address");
        request.map(|request| (request, namespace)).map_err(bad)
    }
}

#[async_trait]
impl Store for KubernetesStore {
    fn places(&self) -> Vec<String> {
        let namespace = self.namespace.as_ref().map(|name| format!(" of namespace `{name}`"));
        vec![format!("the Kubernetes secret `{}`{}", self.secret, namespace.unwrap_or_default())]
    }

    fn spellings(&self, key: &str) -> Vec<String> {
        spelling::of_fields(key)
    }

    async fn read(&self, _: &BTreeSet<String>) -> Result<Reading, StoreError> {
        let (request, namespace) = self.request().await?;
        let answer = self.https.send(request).await;
        let answer = answer.map_err(|error| StoreError::new(error.to_string(), error.help(CA_PARAM)))?;
        match answer.status() {
            StatusCode::OK => values(answer.body()).map(Reading::of),
            status => Err(refused(status, &self.secret, &namespace)),
        }
    }
}

fn in_cluster(environment: &Environment) -> Result<String, StoreError> {
    let variable = |name: &str| (environment)(name).filter(|value| !value.is_empty());
    match (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) if host.contains(':') => Ok(format!("https://[{host}]:{port}")),
        (Some(host), Some(port)) => Ok(format!("https://{host}:{port}")),
        _ => Err(StoreError::new(
            "this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set",
            "set `kubernetes_api_server`, `kubernetes_token_file` and `kubernetes_ca_certificate_file`, or run it in a pod",
        )),
    }
}

/// The text of a file of the service account, without blanks around it.
async fn read_file(path: PathBuf) -> Result<Secret, StoreError> {
    let shown = path.display().to_string();
    let read = task::blocking("service account", move || file::read(&path, BYTES_MAX)).await;
    let failed = |why: String| {
        let help = "mount the pod's service account (`automountServiceAccountToken`), or name the file in the params";
        StoreError::new(format!("cannot read {shown}: {why}"), help)
    };
    let text = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(Secret::new(text.trim().to_owned()))
}

/// The words of serde are not shown: they quote what they found.
fn values(body: &[u8]) -> Result<HashMap<String, Secret>, StoreError> {
    let unread = |what: &str| StoreError::new(what, "check that the address is that of the Kubernetes API");
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unread("the answer is not a Secret"))?;
    let mut values = HashMap::with_capacity(answer.data.len());
    for (name, coded) in answer.data {
        let text = STANDARD.decode(coded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Keys of other programs may be binary.
        if let Some(text) = text {
            values.insert(name, Secret::new(without_line_break(text)));
        }
    }
    Ok(values)
}

fn refused(status: StatusCode, secret: &str, namespace: &str) -> StoreError {
    let (message, help) = match status {
        StatusCode::UNAUTHORIZED => (
            "the Kubernetes API refuses the service account's token".to_owned(),
            "check `kubernetes_token_file`: the token must be of this cluster, and not expired".to_owned(),
        ),
        StatusCode::FORBIDDEN => (
            format!("the service account may not read the secret `{secret}` of namespace `{namespace}`"),
            format!(
                "give it a Role with apiGroups [\"\"], resources [\"secrets\"], resourceNames [\"{secret}\"], verbs [\"get\"]"
            ),
        ),
        StatusCode::NOT_FOUND => (
            format!("namespace `{namespace}` has no secret `{secret}`"),
            "create it, or set `kubernetes_namespace`".to_owned(),
        ),
        status => (
            format!("the Kubernetes API answers {status}"),
            "look into the API server's state; it is asked again".to_owned(),
        ),
    };
    StoreError::new(message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_base64_and_may_be_anything() {
        let body =
            br#"{"kind":"Secret","data":{"KEY":"b25lCg==","binary":"/w==","bad":"%"},"type":"Opaque"}"#;
        let values = values(body).unwrap();
        assert_eq!((values.len(), values["KEY"].expose()), (1, "one"));
        assert!(super::values(b"{}").unwrap().is_empty());
        let said = super::values(br#"{"data":"hunter2"}"#).map(|_| ()).unwrap_err();
        assert_eq!(said.message, "the answer is not a Secret");
    }

    #[test]
    fn a_pod_knows_its_api() {
        let environment = |host: &'static str| -> Environment {
            std::sync::Arc::new(move |name| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                _ => Some("443".to_owned()),
            })
        };
        assert_eq!(in_cluster(&environment("10.0.0.1")).unwrap(), "https://10.0.0.1:443");
        assert_eq!(in_cluster(&environment("fd00::1")).unwrap(), "https://[fd00::1]:443");
        assert!(in_cluster(&environment("")).is_err());
    }
}
