//! DNS and TCP: an endpoint enters, its addresses and a connected socket leave, or the step that failed.
//!
//! Nothing is cached here: who asks is told for how long the answer holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::name::EndpointUrl;

use super::error::{ErrorKind, Step, UpstreamError};

/// One question to one name server.
const DNS_TIMEOUT: Duration = Duration::from_millis(1400);
/// How long one address may stay silent before the next is tried beside it (RFC 8305 section 8).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// More addresses of one name than these are not used.
const ADDRESSES_MAX: usize = 16;
/// However long the name server's answer holds, it is asked again after so long.
const TTL_MAX: Duration = Duration::from_secs(15);
/// However short, it is not asked for every call.
const TTL_MIN: Duration = Duration::from_secs(1);

/// What the name server says of a host.
pub(super) struct Found {
    pub addresses: Vec<SocketAddr>,
    /// For how long; `None` for ever.
    pub fresh_until: Option<Instant>,
}

/// The addresses of the endpoint's host; `name_server` is asked instead of those of the system.
///
/// # Errors
/// [`ErrorKind::Dns`], with the name and what to check.
pub(super) async fn resolve(
    endpoint: &EndpointUrl,
    name_server: Option<SocketAddr>,
    deadline: Instant,
) -> Result<Found, UpstreamError> {
    let host = endpoint.host();
    let found = |addresses: Vec<IpAddr>, fresh_until| Found {
        addresses: addresses.into_iter().map(|address| SocketAddr::new(address, endpoint.port())).collect(),
        fresh_until,
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(found(vec![address], None));
    }
    if host == "localhost" {
        return Ok(found(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], None));
    }
    let (addresses, valid_for) = match tokio::time::timeout_at(deadline, lookup(host, name_server)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(dns_error(endpoint, &dns_words(&error))),
        Err(_) => return Err(dns_error(endpoint, "no name server answered in time")),
    };
    match addresses.is_empty() {
        true => Err(dns_error(endpoint, "the name has no address")),
        false => Ok(found(addresses, Some(Instant::now() + valid_for.clamp(TTL_MIN, TTL_MAX)))),
    }
}

/// The addresses, and for how long they hold.
async fn lookup(host: &str, name_server: Option<SocketAddr>) -> Result<(Vec<IpAddr>, Duration), NetError> {
    let mut builder = match name_server {
        Some(address) => TokioResolver::builder_with_config(asking(address), TokioRuntimeProvider::default()),
        // Without a readable resolv.conf only the hosts file is left.
        None => TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::debug!(%error, "no system DNS config");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        }),
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    options.cache_size = 0;
    options.timeout = DNS_TIMEOUT;
    options.attempts = 1;
    let found = builder.build()?.lookup_ip(host).await?;
    let valid_for = found.valid_until().saturating_duration_since(std::time::Instant::now());
    Ok((found.iter().take(ADDRESSES_MAX).collect(), valid_for))
}

fn asking(name_server: SocketAddr) -> ResolverConfig {
    let mut server = NameServerConfig::udp_and_tcp(name_server.ip());
    for connection in &mut server.connections {
        connection.port = name_server.port();
    }
    ResolverConfig::from_name_servers(vec![server])
}

fn dns_words(error: &NetError) -> String {
    if error.is_nx_domain() {
        return "there is no such name (NXDOMAIN)".to_owned();
    }
    if error.is_no_records_found() {
        return "the name has no address".to_owned();
    }
    match error {
        NetError::NoConnections => "no name server is configured or reachable".to_owned(),
        NetError::Timeout => "no name server answered in time".to_owned(),
        other => other.to_string(),
    }
}

fn dns_error(endpoint: &EndpointUrl, why: &str) -> UpstreamError {
    let host = endpoint.host();
    let message = format!(
        "UnableToVerifyEndpointConnection: DNS lookup of `{host}` failed: {why}; port {} was not tried",
        endpoint.port()
    );
    UpstreamError::new(ErrorKind::Dns, Step::Dns, endpoint, message)
        .with_help(format!("check the spelling of `{host}`, this machine's DNS settings and /etc/hosts"))
}

/// A socket to the first address that answers; each next address starts a little later than the one
/// before it, or at once when that one failed.
///
/// # Errors
/// [`ErrorKind::Connect`], with every address and its failure.
pub(super) async fn connect(
    endpoint: &EndpointUrl,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), UpstreamError> {
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => running.push(attempt(address, deadline)),
            None if running.is_empty() => return Err(tcp_error(endpoint, &failures)),
            None => {}
        }
        let stagger = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(ADDRESS_STAGGER).await,
            }
        };
        tokio::select! {
            Some(outcome) = running.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(failure) => failures.push(failure),
            },
            () = stagger => {}
        }
    }
}

async fn attempt(address: SocketAddr, deadline: Instant) -> Result<(TcpStream, SocketAddr), String> {
    match tokio::time::timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
            Ok((stream, address))
        }
        Ok(Err(error)) => Err(format!("{address}: {}", io_words(&error))),
        Err(_) => Err(format!("{address}: no answer in time")),
    }
}

/// A socket of this machine.
///
/// # Errors
/// [`ErrorKind::Connect`], with the path and its failure.
pub(super) async fn connect_socket(
    endpoint: &EndpointUrl,
    path: &Path,
    deadline: Instant,
) -> Result<UnixStream, UpstreamError> {
    let why = match tokio::time::timeout_at(deadline, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => io_words(&error),
        Err(_) => "no answer in time".to_owned(),
    };
    let message = format!("failed to connect to the socket {}: {why}", path.display());
    let help = "is the path correct? check that the sidecar runs, and that it is this user's";
    Err(UpstreamError::new(ErrorKind::Connect, Step::Tcp, endpoint, message).with_help(help))
}

fn io_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn tcp_error(endpoint: &EndpointUrl, failures: &[String]) -> UpstreamError {
    let message = format!(
        "UnableToVerifyEndpointConnection: failed to connect to {} over TCP: {}",
        endpoint.authority(),
        failures.join("; ")
    );
    UpstreamError::new(ErrorKind::Connect, Step::Tcp, endpoint, message).with_help(
        "are the host and port correct? check that the upstream runs and that no firewall is in between",
    )
}
