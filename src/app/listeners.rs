//! Addresses and their listeners: where to listen enters, bound listeners leave, and the URLs that people are shown.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;

use crate::config::{BindAddress, Runtime};
use crate::serve::Listener;

/// Where the front ends listen when neither the command line nor the spicepod says.
pub const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090);
pub const FLIGHT_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);
pub const METRICS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Where each front end is to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub http: BindAddress,
    pub flight: BindAddress,
    pub metrics: BindAddress,
}

/// The same as clients write it: `http://127.0.0.1:8090`, `https://…` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls {
    pub http: String,
    pub flight: String,
    pub metrics: String,
}

/// A listener that could not be had.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for {front}: {source}; another process may have it, choose another with --{front} ADDR"
)]
pub struct BindError {
    pub front: &'static str,
    pub address: BindAddress,
    #[source]
    pub source: std::io::Error,
}

/// Bound listeners, before anything is served.
pub struct Listeners {
    pub(super) http: Listener,
    pub(super) flight: Listener,
    pub(super) metrics: Listener,
    pub addresses: Addresses,
}

impl Listeners {
    /// Binds all three.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub async fn bind(wanted: Addresses) -> Result<Self, BindError> {
        let http = bind("http", wanted.http).await?;
        let flight = bind("flight", wanted.flight).await?;
        let metrics = bind("metrics", wanted.metrics).await?;
        let addresses = Addresses { http: http.1, flight: flight.1, metrics: metrics.1 };
        Ok(Self { http: http.0, flight: flight.0, metrics: metrics.0, addresses })
    }
}

async fn bind(front: &'static str, address: BindAddress) -> Result<(Listener, BindAddress), BindError> {
    let bound = match Listener::bind(&address).await {
        Ok(listener) => listener.address().map(|bound| (listener, bound)),
        Err(error) => Err(error),
    };
    bound.map_err(|source| BindError { front, address, source })
}

impl Addresses {
    /// How clients reach them, TLS being as `runtime` says.
    #[must_use]
    pub fn urls(&self, runtime: &Runtime) -> Urls {
        let (tls, metrics_tls) = (runtime.tls.is_some(), runtime.metrics_tls.is_some());
        Urls {
            http: url(&self.http, tls),
            flight: url(&self.flight, tls),
            metrics: url(&self.metrics, metrics_tls),
        }
    }

    /// What to say when others than this machine can ask SQL and nothing guards it. Metrics are meant to be scraped from
    /// elsewhere.
    #[must_use]
    pub fn open_to_others(&self, runtime: &Runtime) -> Option<String> {
        let fronts = [("http", &self.http), ("flight", &self.flight)];
        let open = fronts.iter().filter(|(_, address)| !address.is_local());
        let open: Vec<String> = open.map(|(front, address)| format!("{front} on {address}")).collect();
        if runtime.is_guarded() || open.is_empty() {
            return None;
        }
        Some(format!(
            "warning: {} can be reached from other machines and asks for no key: whoever reaches it reads every \
             dataset; set `runtime.auth.api-key`, or keep it to 127.0.0.1, or to a network where everybody may",
            open.join(" and ")
        ))
    }
}

/// Sockets of this machine speak without TLS.
fn url(address: &BindAddress, tls: bool) -> String {
    match (address, tls) {
        (BindAddress::Unix(_), _) => address.to_string(),
        (BindAddress::Tcp(address), true) => format!("https://{address}"),
        (BindAddress::Tcp(address), false) => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, SourceFile};

    fn runtime(lines: &str) -> Runtime {
        let text = format!("version: v1\nkind: Spicepod\nname: t\nruntime: {{{lines}}}\n");
        config::parse(SourceFile { path: "spicepod.yaml".into(), text }).unwrap().runtime
    }

    fn addresses(http: &str, flight: &str) -> Addresses {
        let metrics = "0.0.0.0:9090".parse().unwrap();
        Addresses { http: http.parse().unwrap(), flight: flight.parse().unwrap(), metrics }
    }

    #[test]
    fn only_unguarded_sql_beyond_this_machine_is_warned_of() {
        let open = runtime("");
        let said = |http: &str, flight: &str| addresses(http, flight).open_to_others(&open);
        assert_eq!(said("127.0.0.1:1", "[::1]:2"), None);
        assert_eq!(said("[::ffff:127.0.0.1]:1", "unix:/s"), None);
        let both = said("0.0.0.0:1", "[::]:2").unwrap();
        assert!(both.contains("http on 0.0.0.0:1 and flight on [::]:2"), "{both}");
        assert_eq!(both.lines().count(), 1);
        assert!(!said("127.0.0.1:1", "10.0.0.1:2").unwrap().contains("http"));

        let tls = "certificate_file: c, key_file: k, client_auth_ca_file: ca, client_auth_mode";
        for (lines, is_guarded) in [
            ("auth: {api-key: {keys: ['${secrets:K}']}}".to_owned(), true),
            (format!("tls: {{{tls}: required}}"), true),
            (format!("tls: {{{tls}: request}}"), false),
            (format!("metrics: {{tls: {{{tls}: required}}}}"), false),
            ("auth: {api-key: {enabled: false, keys: ['${secrets:K}']}}".to_owned(), false),
        ] {
            let warning = addresses("0.0.0.0:1", "[::]:2").open_to_others(&runtime(&lines));
            assert_eq!(warning.is_none(), is_guarded, "{lines}");
        }
    }

    #[test]
    fn urls_tell_tls() {
        let addresses = addresses("127.0.0.1:1", "unix:/s");
        let plain = addresses.urls(&runtime(""));
        assert_eq!(
            [&*plain.http, &*plain.flight, &*plain.metrics],
            ["http://127.0.0.1:1", "unix:/s", "http://0.0.0.0:9090"]
        );
        let tls = addresses.urls(&runtime("tls: {certificate_file: c, key_file: k}"));
        assert_eq!([&*tls.http, &*tls.metrics], ["https://127.0.0.1:1", "http://0.0.0.0:9090"]);
    }
}
