//! Every live channel of the process: equal targets share one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::{ClientConfig, RootCertStore};

use crate::config::ByteSize;
use crate::name::EndpointUrl;
use crate::task::Scope;

use super::channel::{Channel, Limits};
use super::client::Upstream;
use super::error::{ErrorKind, Step, UpstreamError};
use super::identity::{TlsSettings, UpstreamId};
use super::target::Target;
use super::tls;

/// gRPC's own default.
const MESSAGE_SIZE_DEFAULT: u64 = 4 << 20;

/// What all upstreams of a pool have in common.
#[derive(Clone, Default)]
pub struct PoolOptions {
    /// For datasets without a `max_message_size` of their own: `runtime.flight.max_message_size`, or else
    /// the environment's.
    pub default_max_message_size: Option<ByteSize>,
    pub limits: Limits,
    /// Owns the connections' tasks.
    pub scope: Scope,
}

/// Every live channel of the process, one for each endpoint with its credentials.
#[derive(Default)]
pub struct Pool {
    options: PoolOptions,
    channels: Mutex<HashMap<UpstreamId, Weak<Channel>>>,
    system_roots: OnceLock<RootCertStore>,
}

impl Pool {
    /// An empty pool with gRPC's default message size.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool.
    #[must_use]
    pub fn with_options(options: PoolOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// The connection for `target`, sharing the channel of any equal target. No network.
    ///
    /// # Errors
    /// Certificates and keys that cannot be used: a config mistake.
    pub fn connect(&self, target: &Target) -> Result<Arc<Upstream>, UpstreamError> {
        let size = target.max_message_size.or(self.options.default_max_message_size);
        let limit = size.map_or(MESSAGE_SIZE_DEFAULT, ByteSize::bytes);
        let endpoints = std::iter::once(&target.endpoint).chain(&target.standby);
        let channels: Vec<_> =
            endpoints.map(|endpoint| self.channel(target, endpoint)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Upstream::new(target.id(), channels, limit)))
    }

    /// The channel to one endpoint, shared with every list that names it.
    fn channel(&self, target: &Target, endpoint: &EndpointUrl) -> Result<Arc<Channel>, UpstreamError> {
        let id = UpstreamId { endpoint: endpoint.clone(), standby: Vec::new(), ..target.id() };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&id).and_then(Weak::upgrade) {
            return Ok(channel);
        }
        let tls = match endpoint.is_tls() {
            true => Some(Arc::new(self.client_config(target, &target.tls)?)),
            false => None,
        };
        channels.retain(|_, channel| channel.strong_count() > 0);
        let channel =
            Arc::new(Channel::new(id.clone(), tls, self.options.limits, self.options.scope.clone()));
        channels.insert(id, Arc::downgrade(&channel));
        Ok(channel)
    }

    fn client_config(&self, target: &Target, settings: &TlsSettings) -> Result<ClientConfig, UpstreamError> {
        let system = || self.system_roots.get_or_init(tls::system_roots).clone();
        tls::client_config(settings, system).map_err(|why| {
            let prefix = target.flavor.prefix();
            let help = format!(
                "set `{prefix}_tls_ca_certificate_file` to the CA of the upstream, or install the machine's CA \
                 certificates"
            );
            UpstreamError::new(ErrorKind::Tls, Step::Tls, &target.endpoint, why).with_help(help)
        })
    }
}
