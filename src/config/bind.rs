//! Addresses to listen on, as spicepods and the command line write them. No name is looked up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;

use super::text::shorten;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let shown = |text: &str| parse_bind_address(text).map(|address| address.to_string());
        assert_eq!(shown("127.0.0.1:8090").unwrap(), "127.0.0.1:8090");
        assert_eq!(shown("LocalHost:1").unwrap(), "127.0.0.1:1");
        assert_eq!(shown("0.0.0.0:0").unwrap(), "0.0.0.0:0");
        assert_eq!(shown("[::]:8090").unwrap(), "[::]:8090");
    }

    #[test]
    fn refusals_say_what_to_write() {
        let said = |text: &str| parse_bind_address(text).unwrap_err().to_string();
        assert!(said(":8090").contains("write `127.0.0.1:8090` for this machine only"));
        assert!(said("8090").contains("write `127.0.0.1:8090`"));
        assert!(said("*:1").contains("`0.0.0.0:1`"));
        assert!(said("localhost").contains("has no port"));
        assert!(said("10.0.0.1").contains("has no port"));
        for bad in ["", "example.com:80", "::1:80", "127.0.0.1:99999", "127.0.0.1:", "[::1]"] {
            assert!(said(bad).contains("expected one such as"), "{bad}");
        }
    }
}
