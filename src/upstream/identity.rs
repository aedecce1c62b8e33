//! What makes two datasets one upstream: endpoints, flavor, credentials, TLS identity, org and app.
//!
//! Holds secrets only as [`Secret`]s, compares them in constant time and never prints them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use subtle::ConstantTimeEq;

use crate::name::EndpointUrl;
use crate::secrets::Secret;

use super::target::{Credentials, Flavor};

/// The organisation and application of a Spice.ai Cloud dataset; sent as request metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CloudApp {
    pub org: String,
    pub app: String,
}

/// A client certificate with its chain, and its key.
pub struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        let keys = self.key.secret_der().ct_eq(other.key.secret_der());
        self.chain == other.chain && bool::from(keys)
    }
}

impl Eq for ClientIdentity {}

/// How TLS is done with an upstream; both `None` for system roots and no client certificate.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The only certificates that are trusted, where a CA file is given.
    pub private_ca: Option<Arc<Vec<CertificateDer<'static>>>>,
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Equal for datasets that one statement may join: same endpoints in the same order, credentials, TLS identity, org and app.
/// Credentials are compared in constant time; neither `Hash` nor `Debug` touch them.
#[derive(Clone)]
pub struct UpstreamId {
    pub(super) endpoint: EndpointUrl,
    /// Further endpoints with the same data, in their order.
    pub(super) standby: Vec<EndpointUrl>,
    pub(super) flavor: Flavor,
    pub(super) credentials: Credentials,
    pub(super) tls: TlsSettings,
    pub(super) app: Option<CloudApp>,
}

impl PartialEq for UpstreamId {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
            && self.standby == other.standby
            && self.flavor == other.flavor
            && self.app == other.app
            && self.tls == other.tls
            && same_credentials(&self.credentials, &other.credentials)
    }
}

impl Eq for UpstreamId {}

impl Hash for UpstreamId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
        self.standby.hash(state);
        self.flavor.hash(state);
        self.app.hash(state);
    }
}

impl fmt::Debug for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamId")
            .field("endpoint", &self.endpoint.to_string())
            .field("standby", &self.standby.iter().map(ToString::to_string).collect::<Vec<_>>())
            .field("flavor", &self.flavor)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

fn same_credentials(left: &Credentials, right: &Credentials) -> bool {
    match (left, right) {
        (Credentials::Anonymous, Credentials::Anonymous) => true,
        (
            Credentials::Basic { username: left_name, password: left },
            Credentials::Basic { username: right_name, password: right },
        ) => left_name == right_name && same_secret(left, right),
        _ => false,
    }
}

fn same_secret(left: &Secret, right: &Secret) -> bool {
    left.expose().as_bytes().ct_eq(right.expose().as_bytes()).into()
}
