//! TLS with an upstream: certificates enter, a rustls client config leaves; and what a TLS failure means,
//! in words that name the param that fixes it.
//!
//! Never depends on a process-wide default provider.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::identity::{ClientIdentity, TlsSettings};
use super::verifier::PinnedVerifier;

/// HTTP/2, all that gRPC speaks.
const ALPN_H2: &[u8] = b"h2";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The CAs of the machine. A certificate among them that cannot be read is left out.
pub(super) fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "system certificate left out");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "system certificates loaded");
    roots
}

/// Trust in exactly these certificates.
pub(crate) fn root_store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// Whether the key can be used and belongs to the first certificate.
pub(super) fn check_identity(identity: &ClientIdentity) -> Result<(), rustls::Error> {
    rustls::sign::CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &provider())
        .map(|_| ())
}

/// The client config of one upstream: its private CA alone, or else the system's roots.
pub(super) fn client_config(
    settings: &TlsSettings,
    system: impl FnOnce() -> RootCertStore,
) -> Result<ClientConfig, String> {
    let roots = match &settings.private_ca {
        Some(certificates) => root_store(certificates).map_err(|error| error.to_string())?,
        None => system(),
    };
    if roots.is_empty() {
        return Err("no trusted certificate was found on this machine".to_owned());
    }
    let provider = provider();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| error.to_string())?;
    let pinned = settings.private_ca.clone().unwrap_or_default();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier::new(inner, pinned)));
    let mut config = match &settings.identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// What happened, and what to do.
pub(super) struct Explained {
    pub message: String,
    pub help: String,
}

/// A TLS failure in words; `prefix` is that of the params (`spiceai`, `flightsql`).
pub(super) fn explain(error: &rustls::Error, host: &str, prefix: &str) -> Explained {
    match error {
        rustls::Error::InvalidCertificate(error) => explain_certificate(error, host, prefix),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Explained {
            message: "the server does not speak TLS".to_owned(),
            help: "use http:// for an upstream without TLS, or check the port".to_owned(),
        },
        rustls::Error::AlertReceived(alert) => explain_alert(*alert, prefix),
        rustls::Error::PeerIncompatible(why) => Explained {
            message: format!("the server and this client have no TLS version or cipher in common: {why:?}"),
            help: "the upstream must offer TLS 1.2 or 1.3".to_owned(),
        },
        other => Explained {
            message: format!("the TLS handshake failed: {other}"),
            help:
                "check that the port is the upstream's Flight port and that nothing in between changes the \
                   traffic"
                    .to_owned(),
        },
    }
}

fn explain_certificate(error: &CertificateError, host: &str, prefix: &str) -> Explained {
    let (message, help) = match error {
        CertificateError::ExpiredContext { not_after, .. } => (
            format!("the server's certificate expired on {}", date(*not_after)),
            "renew the upstream's certificate, or check this machine's clock".to_owned(),
        ),
        CertificateError::NotValidYetContext { not_before, .. } => (
            format!("the server's certificate is not yet valid: it begins on {}", date(*not_before)),
            "check this machine's clock, or the upstream's certificate".to_owned(),
        ),
        CertificateError::NotValidForNameContext { presented, .. } => (
            format!("the server's certificate is not for `{host}`: it names {}", names(presented)),
            format!("use one of these names in `{prefix}_endpoint`, or issue a certificate for `{host}`"),
        ),
        CertificateError::UnknownIssuer => (
            "the server's certificate comes from an unknown issuer (UnknownIssuer)".to_owned(),
            format!("set `{prefix}_tls_ca_certificate_file` to the PEM file of the CA that signed it"),
        ),
        CertificateError::BadSignature => (
            "the server's certificate is not signed by the CA whose name it carries".to_owned(),
            format!("`{prefix}_tls_ca_certificate_file` holds an older or another CA of the same name"),
        ),
        CertificateError::Revoked => (
            "the server's certificate was revoked".to_owned(),
            "issue a new certificate for the upstream".to_owned(),
        ),
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "the server presents a CA certificate as its own (CaUsedAsEndEntity)".to_owned(),
            format!(
                "put exactly that certificate into `{prefix}_tls_ca_certificate_file` to pin it, or issue a \
                 server certificate"
            ),
        ),
        other => (
            format!("the server's certificate is refused: {other}"),
            format!("check the upstream's certificate and `{prefix}_tls_ca_certificate_file`"),
        ),
    };
    Explained { message, help }
}

fn explain_alert(alert: AlertDescription, prefix: &str) -> Explained {
    let identity = format!("`{prefix}_tls_client_certificate_file` and `{prefix}_tls_client_key_file`");
    let (message, help) = match alert {
        AlertDescription::CertificateRequired => (
            "the server requires a client certificate (mTLS) and got none".to_owned(),
            format!("set {identity}"),
        ),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => (
            format!("the server refuses the client certificate, or asks for one (TLS alert {alert:?})"),
            format!("check {identity}: a CA that the upstream trusts must have issued it"),
        ),
        AlertDescription::HandshakeFailure => (
            "the server ended the TLS handshake (HandshakeFailure): no common cipher, or a client \
             certificate is required"
                .to_owned(),
            format!("check the upstream's TLS settings; for mTLS set {identity}"),
        ),
        AlertDescription::NoApplicationProtocol => (
            "the server speaks TLS but not HTTP/2, which gRPC needs (NoApplicationProtocol)".to_owned(),
            "check that the port is the upstream's Flight port, not its HTTP port".to_owned(),
        ),
        AlertDescription::UnrecognisedName => (
            "the server does not serve this host name (UnrecognisedName)".to_owned(),
            format!("check the host in `{prefix}_endpoint`"),
        ),
        AlertDescription::ProtocolVersion => (
            "the server speaks only TLS versions that are too old (ProtocolVersion)".to_owned(),
            "the upstream must offer TLS 1.2 or 1.3".to_owned(),
        ),
        other => (
            format!("the server ended the TLS handshake with alert {other:?}"),
            "look into the upstream's log for the reason".to_owned(),
        ),
    };
    Explained { message, help }
}

/// The names of a certificate, at most a handful, without the Rust words of the verifier.
fn names(presented: &[String]) -> String {
    const SHOWN_MAX: usize = 8;
    if presented.is_empty() {
        return "no host at all (no subject alternative name)".to_owned();
    }
    let plain = presented.iter().take(SHOWN_MAX).map(|name| format!("`{}`", plain_name(name)));
    let mut text = plain.collect::<Vec<_>>().join(", ");
    if presented.len() > SHOWN_MAX {
        text.push_str(" and more");
    }
    text
}

/// `DnsName("a.b")` as `a.b`.
fn plain_name(name: &str) -> &str {
    match name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')) {
        Some(inner) => inner.trim_matches('"'),
        None => name,
    }
}

pub(super) fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match chrono::DateTime::from_timestamp(seconds, 0) {
        Some(time) => time.format("%Y-%m-%d %H:%M UTC").to_string(),
        None => "an unknown date".to_owned(),
    }
}
