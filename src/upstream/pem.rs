//! PEM text to certificates and keys, and files of it; the same for upstreams, listeners and clients.
//!
//! What is wrong is told without a word of the text: it may be a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{ClientIdentity, TlsSettings};
use super::tls;

/// A certificate or key file larger than this is not one.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The files of a client's side of TLS, as a command line names them.
#[derive(Debug, Clone, Default)]
pub struct ClientTlsFiles {
    /// The only certificates that are trusted; without it the system's.
    pub ca: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTlsFiles {
    /// # Errors
    /// What is wrong with which file.
    pub(super) fn read(&self) -> Result<TlsSettings, String> {
        let private_ca = self.ca.as_deref().map(|path| file(path, certificates)).transpose()?;
        let identity = match &self.identity {
            None => None,
            Some((chain, key)) => {
                let identity =
                    ClientIdentity { chain: file(chain, certificates)?, key: file(key, private_key)? };
                let shown = (key.display(), chain.display());
                tls::check_identity(&identity)
                    .map_err(|why| format!("the key {} does not go with {}: {why}", shown.0, shown.1))?;
                Some(Arc::new(identity))
            }
        };
        Ok(TlsSettings { private_ca: private_ca.map(Arc::new), identity })
    }

    /// What a client speaks TLS with that offers `alpn`.
    ///
    /// # Errors
    /// As [`ClientTlsFiles::read`], or a machine without any trusted certificate.
    pub(crate) fn config(&self, alpn: &[u8]) -> Result<ClientConfig, String> {
        let mut config = tls::client_config(&self.read()?, tls::system_roots)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

fn file<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
    read_pem_file(path).and_then(|pem| parse(&pem)).map_err(|why| format!("{}: {why}", path.display()))
}

/// The bytes of a regular file of a certificate's size.
pub(crate) fn read_pem_file(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        // Opening a named pipe would wait for its writer.
        return Err("it is not a regular file".to_owned());
    }
    let size = metadata.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes is too large for a certificate or key"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Every certificate of the text, of which there is one at least.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("it holds no certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The first private key of the text.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The parser's own words may quote the input: never repeat them.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it holds no private key that can be read".to_owned())
}
