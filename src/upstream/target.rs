//! Where a dataset lives: the endpoint rules, credentials and TLS identity of its params. No network.

use std::fmt;

use crate::config::{ByteSize, Dataset, Diagnostic};
use crate::name::EndpointUrl;
use crate::secrets::{ResolvedParams, Secret};

/// Which dialect of the Flight protocol an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// Raw SQL bytes as commands: Spice.ai runtimes and sidewing.
    Spice,
    /// Flight SQL commands.
    FlightSql {
        /// `flightsql_dialect: datafusion`: whole statements may be forwarded.
        datafusion: bool,
    },
}

/// The table on the upstream: one to three parts, as they are spelled there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteTableName {
    pub parts: Vec<String>,
}

/// How the upstream is told who asks.
#[derive(Clone)]
pub enum Credentials {
    Anonymous,
    Basic { username: String, password: Secret },
}

/// Everything that is needed to reach one dataset; checked, not connected.
#[derive(Clone)]
pub struct Target {
    pub endpoint: EndpointUrl,
    pub flavor: Flavor,
    pub credentials: Credentials,
    pub table: RemoteTableName,
    pub max_message_size: Option<ByteSize>,
}

/// Equal for datasets that one statement may join: same endpoint, credentials, TLS identity, org and app.
/// Holds no secret: credentials are a keyed digest that only equals itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UpstreamId {}

impl fmt::Debug for UpstreamId {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl Target {
    /// Applies the endpoint and credential rules to one dataset.
    ///
    /// # Errors
    /// Every rule that is broken: `UnsupportedEndpointScheme`, `CloudEndpointRegionMismatch`,
    /// `MissingRequiredParameter`, `IncompleteClientIdentity` and so on.
    pub fn try_new(_dataset: &Dataset, _params: &ResolvedParams) -> Result<Self, Vec<Diagnostic>> {
        todo!()
    }

    /// A plain endpoint without a table: what `sidewing sql` asks. Built by upstream.
    ///
    /// # Errors
    /// A CA file that cannot be read.
    pub fn for_endpoint(
        _endpoint: EndpointUrl,
        _api_key: Option<Secret>,
        _ca_file: Option<std::path::PathBuf>,
    ) -> Result<Self, crate::upstream::UpstreamError> {
        todo!()
    }
}
