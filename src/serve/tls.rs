//! TLS of listeners: certificates, keys and the CA of clients enter as PEM text, rustls configs leave, and others
//! whenever the files change.
//!
//! A new connection gets the config of its moment; those that are open keep theirs. Files that cannot be used, or do
//! not go together, change nothing: the certificate that was good stays.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::listen::Protocol;
use crate::config::{ClientAuth, Diagnostic, Pem, PemSource, Tls};
use crate::secrets::Secret;
use crate::settled::{Fingerprint, Next, Settled};
use crate::task;
use crate::upstream;

/// How often files are read; what has changed holds from the second reading on.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// What is offered in the handshake, the best first.
const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
const ALPN_GRPC: &[&[u8]] = &[b"h2"];

/// TLS of a listener, as it is now. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<ArcSwap<Configs>>);

/// One config for each protocol.
struct Configs {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since the epoch; none where that is not known.
    ends: Option<i64>,
}

/// The files behind a [`ServerTls`].
pub struct TlsFiles {
    tls: ServerTls,
    now: Fingerprint,
    origin: Arc<Tls<Secret>>,
}

/// PEM text of each kind.
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A config from elsewhere, with the ALPN of each protocol.
impl From<ServerConfig> for ServerTls {
    fn from(config: ServerConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Configs::new(config))))
    }
}

impl ServerTls {
    pub(super) fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        let configs = self.0.load();
        TlsAcceptor::from(Arc::clone(match protocol {
            Protocol::Http => &configs.http,
            Protocol::Grpc => &configs.grpc,
        }))
    }
}

impl Configs {
    fn new(config: ServerConfig) -> Self {
        let offering = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Self { http: offering(ALPN_HTTP), grpc: offering(ALPN_GRPC), ends: None }
    }
}

impl TlsFiles {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every file that cannot be read, every text that is not what it should be, and a key of another certificate.
    pub fn try_new(tls: Tls<Secret>) -> Result<Self, Vec<Diagnostic>> {
        let texts = Texts::read(&tls)?;
        let now = texts.fingerprint();
        let configs = configs(&tls, &texts)?;
        let origin = Arc::new(tls);
        Ok(Self { tls: ServerTls(Arc::new(ArcSwap::from_pointee(configs))), now, origin })
    }

    /// The same files, spoken with from now on by who has `tls`.
    #[must_use]
    pub fn into_tls(self, tls: &ServerTls) -> Self {
        tls.speak(&self.origin, self.tls.0.load_full());
        Self { tls: tls.clone(), ..self }
    }

    /// What listeners speak TLS with; it follows the files while [`TlsFiles::follow`] runs.
    #[must_use]
    pub fn tls(&self) -> ServerTls {
        self.tls.clone()
    }

    /// Reads the files again and again, for as long as it is polled. Returns at once where there are none.
    pub async fn follow(self) {
        let Self { tls, now, origin } = self;
        if !has_files(&origin) {
            return;
        }
        let mut settled = Settled::new(now);
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            let reading = Arc::clone(&origin);
            let Ok(read) = task::blocking("tls files", move || Texts::read(&reading)).await else { return };
            let (fingerprint, texts) = match read {
                Ok(texts) => (Ok(texts.fingerprint()), Some(texts)),
                Err(problems) => (Err(words(problems)), None),
            };
            match (settled.read(fingerprint), texts) {
                (Next::Act(_), Some(texts)) => tls.change(&origin, &texts),
                (Next::Tell(why), _) => {
                    tracing::error!(why, "tls files cannot be read again, the former ones hold");
                }
                _ => {}
            }
        }
    }
}

impl ServerTls {
    /// New connections speak with these, and the metrics tell when their certificate ends.
    fn speak(&self, origin: &Tls<Secret>, configs: Arc<Configs>) {
        if let Some(ends) = configs.ends {
            let section =
                origin.certificate.name.rsplit_once('.').map_or("runtime.tls", |(section, _)| section);
            metrics::gauge!("tls_certificate_not_after_seconds", "section" => section.to_owned())
                .set(ends as f64);
        }
        self.0.store(configs);
    }

    fn change(&self, origin: &Tls<Secret>, texts: &Texts) {
        let certificate = &origin.certificate.name;
        match configs(origin, texts) {
            Ok(configs) => {
                self.speak(origin, Arc::new(configs));
                tracing::info!(certificate, "tls files have changed, new connections use them");
            }
            Err(problems) => {
                let why = words(problems);
                tracing::error!(why, "tls files have changed and cannot be used, the former ones hold");
            }
        }
    }
}

fn has_files(tls: &Tls<Secret>) -> bool {
    let is_file = |pem: &Pem<Secret>| matches!(pem.source, PemSource::File(_));
    is_file(&tls.certificate) || is_file(&tls.key) || tls.client_auth.ca().is_some_and(is_file)
}

fn words(problems: Vec<Diagnostic>) -> String {
    problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
}

impl Texts {
    fn read(tls: &Tls<Secret>) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut text =
            |pem: &Pem<Secret>| text(pem).map_err(|problem| problems.push(problem)).unwrap_or_default();
        let (certificate, key) = (text(&tls.certificate), text(&tls.key));
        let client_ca = tls.client_auth.ca().map(text);
        if problems.is_empty() { Ok(Self { certificate, key, client_ca }) } else { Err(problems) }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([&self.certificate, &self.key].into_iter().chain(&self.client_ca))
    }
}

fn text(pem: &Pem<Secret>) -> Result<Vec<u8>, Diagnostic> {
    match &pem.source {
        PemSource::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
        PemSource::File(path) => upstream::read_pem_file(path).map_err(|why| {
            let message = format!("`{}`: the file `{}` cannot be read: {why}", pem.name, path.display());
            let help = "check the path (relative to the working directory) and its permissions";
            Diagnostic::new("UnreadableFile", message).at(pem.at).help(help)
        }),
    }
}

fn configs(tls: &Tls<Secret>, texts: &Texts) -> Result<Configs, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut unusable = |pem: &Pem<Secret>, why: String, help: &str| {
        let message = format!("`{}`: {why}", pem.name);
        problems.push(Diagnostic::new("UnusableCertificate", message).at(pem.at).help(help));
    };
    let chain = upstream::certificates(&texts.certificate).map_err(|why| {
        unusable(&tls.certificate, why, "expected PEM text with `-----BEGIN CERTIFICATE-----`")
    });
    let key = upstream::private_key(&texts.key).map_err(|why| {
        unusable(&tls.key, why, "expected an unencrypted PEM key with `-----BEGIN PRIVATE KEY-----`");
    });
    let roots = match (tls.client_auth.ca(), &texts.client_ca) {
        (Some(ca), Some(text)) => upstream::certificates(text)
            .and_then(|found| upstream::root_store(&found).map_err(|error| error.to_string()))
            .map_err(|why| unusable(ca, why, "use the PEM file of the CA that issues clients' certificates"))
            .map(Some),
        _ => Ok(None),
    };
    match (chain, key, roots) {
        (Ok(chain), Ok(key), Ok(roots)) => {
            let ends = end_of(&chain);
            let config = server_config(tls, chain, key, roots).map_err(|problem| vec![*problem])?;
            Ok(Configs { ends, ..Configs::new(config) })
        }
        _ => Err(problems),
    }
}

/// When the listener's own certificate ends, in seconds since the epoch.
fn end_of(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let (_, own) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    Some(own.validity().not_after.timestamp())
}

fn server_config(
    tls: &Tls<Secret>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<rustls::RootCertStore>,
) -> Result<ServerConfig, Box<Diagnostic>> {
    let unusable = |pem: &Pem<Secret>, why: String, help: &str| {
        Box::new(Diagnostic::new("UnusableCertificate", why).at(pem.at).help(help))
    };
    let provider = upstream::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            unusable(&tls.certificate, format!("TLS cannot be spoken: {error}"), "report this")
        })?;
    let builder = match (roots, &tls.client_auth) {
        (Some(roots), ClientAuth::Request(ca) | ClientAuth::Required(ca)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match tls.client_auth.is_required() {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let help = "use the PEM file of the CA that issues clients' certificates";
            let verifier =
                verifier.build().map_err(|error| unusable(ca, format!("`{}`: {error}", ca.name), help))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain, key).map_err(|error| {
        let names = (&tls.key.name, &tls.certificate.name);
        let why =
            format!("the key of `{}` does not go with the certificate of `{}`: {error}", names.0, names.1);
        let help = "the first certificate must be the listener's own, issued for that key";
        unusable(&tls.certificate, why, help)
    })
}
