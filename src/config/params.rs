//! The params of each connector: one table for the check, the JSON Schema and the secrets room.

use super::types::Connector;

/// One param of a connector.
#[derive(Debug)]
pub struct ParamSpec {
    /// Without the connector's prefix.
    pub name: &'static str,
    /// Whether its value is a secret: never shown, and better not written in clear.
    pub secret: bool,
    /// `Some` when the stores are asked for it where it is not written; not when one of these is.
    pub autoload_unless: Option<&'static [&'static str]>,
    /// What it may hold.
    pub form: ParamForm,
    /// Whether it may be written without the prefix.
    pub bare: bool,
    pub doc: &'static str,
}

/// What a param may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamForm {
    Text,
    /// A [`super::ByteSize`] above zero.
    Size,
    /// A [`super::Duration`] above zero, without references: it is needed before secrets are.
    Duration,
    OneOf(&'static [&'static str]),
}

impl ParamSpec {
    const fn text(name: &'static str, doc: &'static str) -> Self {
        Self { name, secret: false, autoload_unless: None, form: ParamForm::Text, bare: false, doc }
    }

    const fn secret(name: &'static str, unless: &'static [&'static str], doc: &'static str) -> Self {
        Self { name, secret: true, autoload_unless: Some(unless), form: ParamForm::Text, bare: false, doc }
    }

    /// The param as users write it: `spiceai_api_key`.
    #[must_use]
    pub fn written(&self, connector: Connector) -> String {
        format!("{}{}", connector.param_prefix(), self.name)
    }
}

/// Every param that a connector knows.
#[must_use]
pub fn connector_params(connector: Connector) -> &'static [ParamSpec] {
    match connector {
        Connector::SpiceAi => SPICEAI,
        Connector::FlightSql => FLIGHTSQL,
    }
}

const CA_FILE: ParamSpec = ParamSpec::text(
    "tls_ca_certificate_file",
    "PEM file of the only CA that is trusted, instead of the system's; ignored for http://.",
);
const CERTIFICATE_FILE: ParamSpec =
    ParamSpec::text("tls_client_certificate_file", "PEM file of the client certificate, for mTLS.");
const KEY_FILE: ParamSpec =
    ParamSpec::text("tls_client_key_file", "PEM file of the client certificate's key.");
const CERTIFICATE: ParamSpec = ParamSpec::secret(
    "tls_client_certificate",
    &["tls_client_certificate_file", "tls_client_key_file"],
    "The client certificate itself, PEM.",
);
const KEY: ParamSpec = ParamSpec::secret(
    "tls_client_key",
    &["tls_client_certificate_file", "tls_client_key_file"],
    "The client certificate's key itself, PEM.",
);
const MAX_MESSAGE_SIZE: ParamSpec = ParamSpec {
    name: "max_message_size",
    secret: false,
    autoload_unless: None,
    form: ParamForm::Size,
    bare: true,
    doc: "Largest gRPC message taken from the upstream; default `4MB`.",
};

/// Canonical name of the param that says how far an append stream may be behind.
pub(super) const LAG_PARAM: &str = "append_stream_acceptable_lag";

static SPICEAI: &[ParamSpec] = &[
    ParamSpec::secret("api_key", &["token"], "API key of the upstream; Cloud needs one."),
    ParamSpec::secret("token", &["api_key"], "Legacy name of the API key."),
    ParamSpec::text("region", "Cloud region, e.g. `us-east-1`."),
    ParamSpec::text(
        "endpoint",
        "Flight endpoint: `https://`, `grpc+tls://` or `http://`, host and port; several with the same data, with commas between them, are asked in their order.",
    ),
    ParamSpec::text("flight_endpoint", "Legacy name of the endpoint."),
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    CERTIFICATE,
    KEY,
    MAX_MESSAGE_SIZE,
    ParamSpec {
        name: LAG_PARAM,
        secret: false,
        autoload_unless: None,
        form: ParamForm::Duration,
        bare: true,
        doc: "How far an append stream may be behind before the dataset is in error; default `60s`.",
    },
];

static FLIGHTSQL: &[ParamSpec] = &[
    ParamSpec::text(
        "endpoint",
        "Flight SQL endpoint: `https://`, `grpc+tls://` or `http://`, host and port; several with the same data, with commas between them, are asked in their order.",
    ),
    ParamSpec {
        name: "username",
        secret: false,
        autoload_unless: Some(&[]),
        form: ParamForm::Text,
        bare: false,
        doc: "User name for the handshake.",
    },
    ParamSpec::secret("password", &[], "Password for the handshake."),
    ParamSpec {
        name: "dialect",
        secret: false,
        autoload_unless: None,
        form: ParamForm::OneOf(&["generic", "datafusion"]),
        bare: false,
        doc: "`datafusion` when the server speaks DataFusion's SQL, so that whole statements are forwarded; \
              default `generic`.",
    },
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    CERTIFICATE,
    KEY,
    MAX_MESSAGE_SIZE,
];
