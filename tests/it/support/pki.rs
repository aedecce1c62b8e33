//! Certificates made at run time: a private CA, what it issues, and the mistakes people make with both.
//!
//! Nothing is checked in and nothing outlives the test: PEM files live in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A certificate authority and the directory that holds what it issued.
pub struct Pki {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate is good.
#[derive(Debug, Clone, Copy)]
pub enum Validity {
    Current,
    /// Ended in 2021.
    Expired,
    /// Begins in the year 3000.
    NotYet,
}

/// A certificate with its private key, in memory and as files.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// What a TLS server needs: its own identity, and whom it trusts when it asks for client certificates.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub identity: Identity,
    pub client_ca_pem: Option<String>,
}

impl Pki {
    /// A fresh CA that nobody else trusts.
    pub fn new() -> Self {
        Self::named("sidewing test CA")
    }

    /// A fresh CA with a name of its own. Of two CAs with one name, TLS says "bad signature" where
    /// otherwise it says "unknown issuer".
    pub fn named(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory for certificates");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, new_key()).expect("a CA");
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).expect("ca.pem written");
        Self { dir, ca }
    }

    /// The CA certificate as a file: what `tls_ca_certificate_file` names.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Where everything lies; messages that name files hold this path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A server certificate that is in order; `name` is a DNS name or an IP address.
    pub fn server(&self, name: &str) -> ServerTls {
        self.server_with(name, Validity::Current)
    }

    /// A server certificate with chosen dates.
    pub fn server_with(&self, name: &str, validity: Validity) -> ServerTls {
        let params = params(name, validity, ExtendedKeyUsagePurpose::ServerAuth);
        let identity = self.issue(&format!("server-{name}-{validity:?}"), &params);
        ServerTls { identity, client_ca_pem: None }
    }

    /// A certificate that is its own issuer and says that it is a CA, as `openssl req -x509` makes it.
    /// Its file is what people pin.
    pub fn self_signed_ca(&self, name: &str, validity: Validity) -> ServerTls {
        let mut params = params(name, validity, ExtendedKeyUsagePurpose::ServerAuth);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.clear();
        let key = new_key();
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        let identity = self.write(&format!("self-{name}-{validity:?}"), certificate.pem(), &key);
        ServerTls { identity, client_ca_pem: None }
    }

    /// A client certificate for mutual TLS.
    pub fn client(&self, name: &str) -> Identity {
        let params = params(name, Validity::Current, ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(&format!("client-{name}"), &params)
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> Identity {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        self.write(file, certificate.pem(), &key)
    }

    fn write(&self, file: &str, certificate_pem: String, key: &KeyPair) -> Identity {
        let certificate_file = self.dir.path().join(format!("{file}.pem"));
        let key_file = self.dir.path().join(format!("{file}.key"));
        let key_pem = key.serialize_pem();
        std::fs::write(&certificate_file, &certificate_pem).expect("a certificate written");
        std::fs::write(&key_file, &key_pem).expect("a key written");
        Identity { certificate_pem, key_pem, certificate_file, key_file }
    }
}

impl ServerTls {
    /// The server asks for a client certificate of `pki` and refuses those who have none.
    pub fn require_client_of(mut self, pki: &Pki) -> Self {
        self.client_ca_pem = Some(pki.ca.pem());
        self
    }

    /// For a server that speaks HTTP/2 only.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("default protocol versions");
        let builder = match &self.client_ca_pem {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots(ca).into(), provider)
                        .build()
                        .expect("a client verifier");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates(&self.identity.certificate_pem);
        let key = PrivateKeyDer::from_pem_slice(self.identity.key_pem.as_bytes()).expect("a key in PEM");
        let mut config = builder.with_single_cert(chain, key).expect("a certificate that fits its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// The certificates of a PEM text as trust anchors.
pub fn roots(pem: &str) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(pem) {
        roots.add(certificate).expect("a usable trust anchor");
    }
    roots
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates in PEM")
}

fn params(name: &str, validity: Validity, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a subject name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = match validity {
        Validity::Current => (date_time_ymd(2020, 1, 1), date_time_ymd(2999, 1, 1)),
        Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        Validity::NotYet => (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1)),
    };
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}
