//! Where a dataset lives: its params enter, a checked [`Target`] or every broken rule leaves.
//!
//! Reads certificate files, opens no connection.

use crate::config::{ByteSize, Connector, Dataset, Diagnostic, Span};
use crate::name::EndpointUrl;
use crate::secrets::{ResolvedParam, ResolvedParams, Secret};

use super::error::{ErrorKind, Step, UpstreamError};
use super::identity::{CloudApp, TlsSettings, UpstreamId};
use super::pem::ClientTlsFiles;
use super::place::{self, Place};
use super::table::RemoteTableName;
use super::tls_files;

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

impl Flavor {
    /// What params begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Spice => "spiceai",
            Self::FlightSql { .. } => "flightsql",
        }
    }
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
    /// Asked in this order while those before them are away. They must hold the same data.
    pub standby: Vec<EndpointUrl>,
    pub flavor: Flavor,
    pub credentials: Credentials,
    pub table: RemoteTableName,
    pub max_message_size: Option<ByteSize>,
    pub tls: TlsSettings,
    /// Sent as `spiceai-org` and `spiceai-app`.
    pub app: Option<CloudApp>,
}

impl Target {
    /// Applies the endpoint and credential rules to one dataset.
    ///
    /// # Errors
    /// Every rule that is broken: `UnsupportedEndpointScheme`, `CloudEndpointRegionMismatch`,
    /// `MissingRequiredParameter`, `IncompleteClientIdentity` and so on.
    pub fn try_new(dataset: &Dataset, params: &ResolvedParams) -> Result<Self, Vec<Diagnostic>> {
        let mut rules = Rules { dataset, params, problems: Vec::new() };
        let flavor = rules.flavor();
        let place = place::find(&mut rules);
        let is_cloud = place.as_ref().is_some_and(|place| place.is_cloud);
        let credentials = rules.credentials(is_cloud);
        let max_message_size = rules.max_message_size();
        let is_tls = place.as_ref().is_some_and(|place| place.endpoint.is_tls());
        let tls = tls_files::read(&mut rules, is_tls);
        match (place, rules.problems.is_empty()) {
            (Some(Place { endpoint, standby, table: Some(table), app, .. }), true) => {
                Ok(Self { endpoint, standby, flavor, credentials, table, max_message_size, tls, app })
            }
            _ => {
                rules.problems.sort_by_key(|problem| problem.at);
                Err(rules.problems)
            }
        }
    }

    /// An endpoint without a table: what `sidewing sql` asks.
    ///
    /// # Errors
    /// A file of `tls` that cannot be used.
    pub fn for_endpoint(
        endpoint: EndpointUrl,
        api_key: Option<Secret>,
        tls: &ClientTlsFiles,
    ) -> Result<Self, UpstreamError> {
        let tls = tls.read().map_err(|message| UpstreamError {
            kind: ErrorKind::Tls,
            step: Step::Tls,
            endpoint: endpoint.to_string(),
            message,
            help: Some("name PEM files with CERTIFICATE and PRIVATE KEY blocks".to_owned()),
        })?;
        let credentials = match api_key {
            Some(password) => Credentials::Basic { username: String::new(), password },
            None => Credentials::Anonymous,
        };
        Ok(Self {
            endpoint,
            standby: Vec::new(),
            flavor: Flavor::Spice,
            credentials,
            table: RemoteTableName { parts: Vec::new() },
            max_message_size: None,
            tls,
            app: None,
        })
    }

    pub(super) fn id(&self) -> UpstreamId {
        UpstreamId {
            endpoint: self.endpoint.clone(),
            standby: self.standby.clone(),
            flavor: self.flavor,
            credentials: self.credentials.clone(),
            tls: self.tls.clone(),
            app: self.app.clone(),
        }
    }
}

/// One dataset under examination, and the problems found so far.
pub(super) struct Rules<'a> {
    pub dataset: &'a Dataset,
    params: &'a ResolvedParams,
    problems: Vec<Diagnostic>,
}

impl<'a> Rules<'a> {
    /// A param that has a value.
    pub fn get(&self, name: &str) -> Option<&'a ResolvedParam> {
        self.params.get(name).filter(|param| !param.value.expose().trim().is_empty())
    }

    /// The trimmed text of a param that is not secret.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).map(|param| param.value.expose().trim())
    }

    /// A problem with the param `name`, or with `from:` where that is not written.
    pub fn wrong(&mut self, code: &'static str, name: &str, message: String, help: String) {
        let at = self.params.get(name).and_then(|param| param.at).unwrap_or(self.dataset.from.at);
        self.wrong_at(code, at, message, help);
    }

    pub fn wrong_from(&mut self, code: &'static str, message: String, help: String) {
        self.wrong_at(code, self.dataset.from.at, message, help);
    }

    fn wrong_at(&mut self, code: &'static str, at: Span, message: String, help: String) {
        let message = format!("dataset `{}`: {message}", self.dataset.name);
        self.problems.push(Diagnostic { code: Some(code), message, at: Some(at), help: Some(help) });
    }

    pub fn missing(&mut self, what: &str, help: String) {
        self.wrong_from("MissingRequiredParameter", format!("missing required parameter: {what}"), help);
    }

    /// `spiceai_<name>` or `flightsql_<name>`.
    pub fn key(&self, name: &str) -> String {
        match self.params.get(name).filter(|param| param.at.is_some()) {
            Some(param) => param.key.clone(),
            None => format!("{}_{name}", self.prefix()),
        }
    }

    fn prefix(&self) -> &'static str {
        match self.dataset.from.connector {
            Connector::SpiceAi => "spiceai",
            Connector::FlightSql => "flightsql",
        }
    }

    fn flavor(&mut self) -> Flavor {
        if self.dataset.from.connector == Connector::SpiceAi {
            return Flavor::Spice;
        }
        let datafusion = match self.text("dialect").map(str::to_ascii_lowercase).as_deref() {
            None | Some("generic") => false,
            Some("datafusion") => true,
            Some(other) => {
                let message = format!("`{}: {other}` is not a dialect", self.key("dialect"));
                let help = "use `datafusion` where the upstream runs DataFusion (statements are forwarded \
                            whole), or leave it out"
                    .to_owned();
                self.wrong("InvalidParameterValue", "dialect", message, help);
                false
            }
        };
        Flavor::FlightSql { datafusion }
    }

    fn credentials(&mut self, is_cloud: bool) -> Credentials {
        match self.dataset.from.connector {
            Connector::SpiceAi => self.api_key(is_cloud),
            Connector::FlightSql => self.username_and_password(),
        }
    }

    fn api_key(&mut self, is_cloud: bool) -> Credentials {
        match self.get("api_key").or_else(|| self.get("token")) {
            Some(key) => Credentials::Basic { username: String::new(), password: key.value.clone() },
            None => {
                if is_cloud {
                    let help = "Spice.ai Cloud asks everybody for a key: set `spiceai_api_key: \
                                ${secrets:SPICEAI_API_KEY}`";
                    self.missing("api_key or token", help.to_owned());
                }
                Credentials::Anonymous
            }
        }
    }

    fn username_and_password(&mut self) -> Credentials {
        match (self.get("username"), self.get("password")) {
            (None, None) => Credentials::Anonymous,
            (Some(username), Some(password)) => Credentials::Basic {
                username: username.value.expose().trim().to_owned(),
                password: password.value.clone(),
            },
            (username, _) => {
                let missing = if username.is_some() { "password" } else { "username" };
                let (missing, both) = (self.key(missing), "set both, or none for an anonymous upstream");
                self.missing(&missing, both.to_owned());
                Credentials::Anonymous
            }
        }
    }

    fn max_message_size(&mut self) -> Option<ByteSize> {
        let text = self.text("max_message_size")?;
        let parsed = text.parse::<ByteSize>().map_err(|error| error.to_string());
        match parsed {
            Ok(size) if size.bytes() > 0 => Some(size),
            other => {
                let why = other.err().unwrap_or_else(|| "a message of no bytes holds nothing".to_owned());
                let message = format!("`{}: {text}`: {why}", self.key("max_message_size"));
                let help = "write a size such as `16MiB` or `64MB`".to_owned();
                self.wrong("InvalidParameterValue", "max_message_size", message, help);
                None
            }
        }
    }
}
