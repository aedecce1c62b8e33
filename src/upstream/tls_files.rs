//! Certificates and keys of one dataset: params and the files that they name enter, parsed material leaves.
//!
//! A private key never reaches a message.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{ClientIdentity, TlsSettings};
use super::target::Rules;
use super::{pem, tls};

/// Reads the CA file and the client identity; for a plaintext endpoint only their form is checked.
pub(super) fn read(rules: &mut Rules<'_>, is_tls: bool) -> TlsSettings {
    let pair = identity_pair(rules);
    if !is_tls {
        return TlsSettings::default();
    }
    let private_ca = private_ca(rules);
    let identity = pair.and_then(|pair| identity(rules, &pair));
    TlsSettings { private_ca: private_ca.map(Arc::new), identity: identity.map(Arc::new) }
}

fn private_ca(rules: &mut Rules<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let name = "tls_ca_certificate_file";
    rules.get(name)?;
    let pem = content(rules, name, Source::File)?;
    let certificates = certificates(rules, name, &pem)?;
    if let Err(why) = tls::root_store(&certificates) {
        let message = format!("`{}`: a certificate in it cannot be used: {why}", rules.key(name));
        rules.wrong("UnusableCertificate", name, message, "use the PEM file of the CA".to_owned());
        return None;
    }
    Some(certificates)
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    File,
    Inline,
}

struct Pair {
    certificate: &'static str,
    key: &'static str,
    source: Source,
}

/// Which two params hold the client identity.
fn identity_pair(rules: &mut Rules<'_>) -> Option<Pair> {
    let files = ("tls_client_certificate_file", "tls_client_key_file", Source::File);
    let inline = ("tls_client_certificate", "tls_client_key", Source::Inline);
    let written = |(certificate, key, _): (&str, &str, Source)| {
        rules.get(certificate).is_some() || rules.get(key).is_some()
    };
    let (certificate, key, source) = match (written(files), written(inline)) {
        (false, false) => return None,
        (true, true) => {
            let message = "the client identity is given as files and inline at the same time".to_owned();
            let help = format!(
                "keep `{}` and `{}`, or `{}` and `{}`",
                rules.key(files.0),
                rules.key(files.1),
                rules.key(inline.0),
                rules.key(inline.1)
            );
            rules.wrong("AmbiguousClientIdentity", inline.0, message, help);
            return None;
        }
        (true, false) => files,
        (false, true) => inline,
    };
    match (rules.get(certificate), rules.get(key)) {
        (Some(_), Some(_)) => Some(Pair { certificate, key, source }),
        (has_certificate, _) => {
            let (present, missing) =
                if has_certificate.is_some() { (certificate, key) } else { (key, certificate) };
            let message = format!("`{}` is set without `{}`", rules.key(present), rules.key(missing));
            let help = "a client identity (mTLS) is a certificate and its private key: set both or none";
            rules.wrong("IncompleteClientIdentity", present, message, help.to_owned());
            None
        }
    }
}

fn identity(rules: &mut Rules<'_>, pair: &Pair) -> Option<ClientIdentity> {
    let certificate = content(rules, pair.certificate, pair.source);
    let key = content(rules, pair.key, pair.source);
    let chain = certificates(rules, pair.certificate, &certificate?);
    let key = private_key(rules, pair.key, &key?);
    let identity = ClientIdentity { chain: chain?, key: key? };
    match tls::check_identity(&identity) {
        Ok(()) => Some(identity),
        Err(why) => {
            let message = format!(
                "the key of `{}` does not go with the certificate of `{}`: {why}",
                rules.key(pair.key),
                rules.key(pair.certificate)
            );
            let help = "the first certificate must be the client's own, issued for that key".to_owned();
            rules.wrong("UnusableCertificate", pair.certificate, message, help);
            None
        }
    }
}

fn content(rules: &mut Rules<'_>, name: &str, source: Source) -> Option<Vec<u8>> {
    let value = rules.text(name)?;
    if source == Source::Inline {
        return Some(value.as_bytes().to_vec());
    }
    match pem::read_pem_file(Path::new(value)) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            let message = format!("`{}`: the file `{value}` cannot be read: {why}", rules.key(name));
            let help = "check the path (relative to the working directory) and its permissions".to_owned();
            rules.wrong("UnreadableFile", name, message, help);
            None
        }
    }
}

fn certificates(rules: &mut Rules<'_>, name: &str, text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let why = match pem::certificates(text) {
        Ok(found) => return Some(found),
        Err(why) => why,
    };
    let message = format!("`{}`: {why}", rules.key(name));
    let help = "expected PEM text with `-----BEGIN CERTIFICATE-----`".to_owned();
    rules.wrong("UnusableCertificate", name, message, help);
    None
}

fn private_key(rules: &mut Rules<'_>, name: &str, text: &[u8]) -> Option<PrivateKeyDer<'static>> {
    match pem::private_key(text) {
        Ok(key) => Some(key),
        Err(why) => {
            let message = format!("`{}`: {why}", rules.key(name));
            let help = "expected an unencrypted PEM key with `-----BEGIN PRIVATE KEY-----`".to_owned();
            rules.wrong("UnusableCertificate", name, message, help);
            None
        }
    }
}
