//! Addresses to listen on, as spicepods and the command line write them. No name is looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::text::shorten;

/// What precedes the path of a Unix domain socket.
const UNIX_PREFIX: &str = "unix:";

/// Bytes of a socket's path. The kernel's field has 108 (macOS: 104); the socket is made beside its place, in a directory
/// of its own, whose path may be longer.
const SOCKET_PATH_BYTES_MAX: usize = 90;

/// Where a front end listens.
///
/// ```
/// use sidewing::config::BindAddress;
/// let address: BindAddress = "unix:///run/app/sidewing.sock".parse().unwrap();
/// assert_eq!(address.to_string(), "unix:/run/app/sidewing.sock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    Tcp(SocketAddr),
    /// The absolute path of a Unix domain socket.
    Unix(PathBuf),
}

impl BindAddress {
    /// Whether only processes of this machine reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for BindAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Reads what [`parse_bind_address`] does, `unix:/path` and `unix:///path`.
impl FromStr for BindAddress {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        match text.trim().strip_prefix(UNIX_PREFIX) {
            Some(path) => socket_path(path).map(Self::Unix),
            None => parse_bind_address(text).map(Self::Tcp),
        }
    }
}

/// As it is written: `127.0.0.1:8090` or `unix:/path`.
impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// Text that is not an address to listen on; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BindError {
    #[error(
        "`{0}` names no address: write `127.0.0.1:{1}` for this machine only, `0.0.0.0:{1}` for every interface"
    )]
    NoAddress(String, u16),
    #[error("`{0}` has no port: write `{0}:8090`")]
    NoPort(String),
    #[error("`{0}` is not an address to listen on: expected one such as `127.0.0.1:8090` or `[::1]:8090`")]
    Form(String),
    #[error("`unix:{0}` names no socket: write an absolute path, such as `unix:/run/sidewing/http.sock`")]
    NoSocket(String),
    #[error("`unix:{0}` is too long for a socket: its path may have {SOCKET_PATH_BYTES_MAX} bytes")]
    LongSocket(String),
}

/// Reads `127.0.0.1:8090`, `localhost:8090`, `0.0.0.0:8090`, `[::]:8090`; port 0 takes a free one.
///
/// # Errors
/// Host names other than `localhost`, and addresses without host or port.
pub fn parse_bind_address(text: &str) -> Result<SocketAddr, BindError> {
    let text = text.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || text.eq_ignore_ascii_case("localhost") {
        return Err(BindError::NoPort(shorten(text)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().map_err(|_| BindError::Form(shorten(text)))?;
    match host {
        "" | "*" => Err(BindError::NoAddress(shorten(text), port)),
        _ if host.eq_ignore_ascii_case("localhost") => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ => Err(BindError::Form(shorten(text))),
    }
}

/// The path that follows `unix:`. A URL's two slashes may stand before it, as gRPC writes them.
fn socket_path(text: &str) -> Result<PathBuf, BindError> {
    let path = text.strip_prefix("//").unwrap_or(text);
    let names_a_file = Path::new(path).is_absolute() && !path.ends_with('/') && !path.contains('\0');
    match (names_a_file, path.len() <= SOCKET_PATH_BYTES_MAX) {
        (true, true) => Ok(PathBuf::from(path)),
        (true, false) => Err(BindError::LongSocket(shorten(path))),
        (false, _) => Err(BindError::NoSocket(shorten(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let shown = |text: &str| text.parse::<BindAddress>().map(|address| address.to_string());
        assert_eq!(shown("127.0.0.1:8090").unwrap(), "127.0.0.1:8090");
        assert_eq!(shown("LocalHost:1").unwrap(), "127.0.0.1:1");
        assert_eq!(shown("0.0.0.0:0").unwrap(), "0.0.0.0:0");
        assert_eq!(shown("[::]:8090").unwrap(), "[::]:8090");
        for text in ["unix:/run/s.sock", " unix:///run/s.sock "] {
            assert_eq!(shown(text).unwrap(), "unix:/run/s.sock");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        let said = |text: &str| text.parse::<BindAddress>().unwrap_err().to_string();
        assert!(said(":8090").contains("write `127.0.0.1:8090` for this machine only"));
        assert!(said("8090").contains("write `127.0.0.1:8090`"));
        assert!(said("*:1").contains("`0.0.0.0:1`"));
        assert!(said("localhost").contains("has no port"));
        assert!(said("10.0.0.1").contains("has no port"));
        for bad in ["", "example.com:80", "::1:80", "127.0.0.1:99999", "127.0.0.1:", "[::1]"] {
            assert!(said(bad).contains("expected one such as"), "{bad}");
        }
        for bad in ["unix:", "unix:s.sock", "unix://s.sock", "unix:/run/", "unix:/a\0b"] {
            assert!(said(bad).contains("write an absolute path"), "{bad}");
        }
        assert!(said(&format!("unix:/{}", "x".repeat(200))).contains("may have 90 bytes"));
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        let is_local = |text: &str| text.parse::<BindAddress>().unwrap().is_local();
        for local in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/s"] {
            assert!(is_local(local), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(!is_local(open), "{open}");
        }
    }
}
