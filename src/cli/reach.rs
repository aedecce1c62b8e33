//! How a protected sidecar is reached: the key, the CA and the client certificate that a command line names.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use crate::secrets::Secret;
use crate::upstream::ClientTlsFiles;

/// What every command that asks a sidecar takes.
#[derive(Args, Clone, Default)]
pub(super) struct ReachArgs {
    /// API key of the sidecar; better given by the environment, where other users do not see it
    #[arg(long, env = "SIDEWING_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// PEM file of the certificates to trust, for https://; default: the system's
    #[arg(long, alias = "ca", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file of the certificate to show, where the sidecar asks for one
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, requires = "tls_certificate", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl ReachArgs {
    /// None for an environment variable that is set to nothing, too.
    pub(super) fn api_key(&self) -> Option<Secret> {
        self.api_key.clone().filter(|key| !key.is_empty()).map(Secret::new)
    }

    pub(super) fn tls(&self) -> ClientTlsFiles {
        let identity = self.tls_certificate.clone().zip(self.tls_key.clone());
        ClientTlsFiles { ca: self.tls_ca.clone(), identity }
    }
}

/// Without the key.
impl fmt::Debug for ReachArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReachArgs").field("tls", &self.tls()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown_and_an_empty_one_is_none() {
        let args = ReachArgs { api_key: Some("hunter2".to_owned()), ..ReachArgs::default() };
        assert!(!format!("{args:?}").contains("hunter2"));
        assert_eq!(args.api_key().map(|key| key.expose().to_owned()), Some("hunter2".to_owned()));
        let args = ReachArgs { api_key: Some(String::new()), ..ReachArgs::default() };
        assert!(args.api_key().is_none());
    }
}
