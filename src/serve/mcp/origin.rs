//! From where MCP may be called: the Host and Origin of a request enter, a refusal may leave. Pure.
//!
//! A web page can have its own name resolve to 127.0.0.1 (DNS rebinding) and then talk to this server as if it were its
//! own. What it cannot do is lie about the name, nor about where it came from.

use ::http::header::{HOST, ORIGIN};
use ::http::request::Parts;
use ::http::uri::Authority;
use ::http::{HeaderValue, StatusCode, Uri};

use super::refusal::Refusal;

/// Names that no page of another site can have.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Allows every origin.
const ANY_ORIGIN: &str = "*";

/// A host with its port, where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

/// Refuses a request for another host than ours, or from a page of another site.
///
/// # Errors
/// 403, and 400 for a request without a host.
pub(super) fn check(
    request: &Parts,
    allowed_hosts: &[String],
    allowed_origins: &[String],
) -> Result<(), Refusal> {
    let hosts = hosts(request)?;
    for host in &hosts {
        if !is_allowed(host, allowed_hosts) {
            return Err(foreign_host(&host.name, allowed_hosts));
        }
    }
    let Some(origin) = request.headers.get(ORIGIN) else { return Ok(()) };
    match is_of(origin, &hosts) || is_listed(origin, allowed_origins) {
        true => Ok(()),
        false => Err(foreign_origin(origin)),
    }
}

/// The host that the request names: in its Host header, in its target (HTTP/2), or in both.
fn hosts(request: &Parts) -> Result<Vec<Host>, Refusal> {
    let target = request.uri.authority().map(|authority| Some(Host::of(authority)));
    let headers = request.headers.get_all(HOST).iter().map(|host| Host::parse(host.to_str().ok()?));
    let hosts: Option<Vec<Host>> = target.into_iter().chain(headers).collect();
    hosts.filter(|hosts| !hosts.is_empty()).ok_or_else(|| {
        let message =
            "the request does not say for which host it is: send one Host header, for example localhost:8090";
        Refusal::new(StatusCode::BAD_REQUEST, "McpHostMissing", message)
    })
}

fn is_allowed(host: &Host, allowed: &[String]) -> bool {
    let mut listed = allowed.iter().filter_map(|allowed| Host::parse(allowed));
    let is_listed =
        |allowed: Host| allowed.name == host.name && (allowed.port.is_none() || allowed.port == host.port);
    LOCAL_HOSTS.contains(&&*host.name) || listed.any(is_listed)
}

/// Whether the page came from this very server.
fn is_of(origin: &HeaderValue, hosts: &[Host]) -> bool {
    let Some((scheme, from)) = origin.to_str().ok().and_then(parse_origin) else { return false };
    let port = |host: &Host| host.port.or(default_port(&scheme));
    hosts.iter().all(|host| host.name == from.name && port(host) == port(&from))
}

fn is_listed(origin: &HeaderValue, allowed: &[String]) -> bool {
    let from = origin.to_str().ok().and_then(parse_origin);
    let port = |scheme: &str, host: &Host| host.port.or(default_port(scheme));
    let equal = |(scheme, host): (String, Host)| {
        from.as_ref().is_some_and(|(from_scheme, from)| {
            *from_scheme == scheme
                && from.name == host.name
                && port(from_scheme, from) == port(&scheme, &host)
        })
    };
    allowed.iter().any(|allowed| allowed == ANY_ORIGIN || parse_origin(allowed).is_some_and(equal))
}

/// `https://name:port`; `null` is none.
fn parse_origin(text: &str) -> Option<(String, Host)> {
    let uri = text.trim_end_matches('/').parse::<Uri>().ok()?;
    Some((uri.scheme_str()?.to_ascii_lowercase(), Host::of(uri.authority()?)))
}

/// The port that an origin of this scheme need not write (RFC 6454 section 4).
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn foreign_host(host: &str, allowed: &[String]) -> Refusal {
    let listed = allowed.iter().map(String::as_str).filter(|host| !LOCAL_HOSTS.contains(host));
    let names = LOCAL_HOSTS.into_iter().chain(listed);
    let message = format!(
        "the request is for the host `{host}`, and MCP answers for {} only: a page of another site could have its name \
         resolve to this server (DNS rebinding); if `{host}` is a name of this server, add it to \
         runtime.mcp.allowed_hosts",
        names.collect::<Vec<_>>().join(", ")
    );
    Refusal::new(StatusCode::FORBIDDEN, "McpHostNotAllowed", message)
}

fn foreign_origin(origin: &HeaderValue) -> Refusal {
    let message = format!(
        "the request was sent by a page of `{}`, and MCP answers to this server's own pages only: if that site may call \
         it, enable runtime.cors and add the origin to runtime.cors.allowed_origins",
        String::from_utf8_lossy(origin.as_bytes())
    );
    Refusal::new(StatusCode::FORBIDDEN, "McpOriginNotAllowed", message)
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        // An IPv6 address without brackets, as people write it in a setting.
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Some(Self { name: text.to_ascii_lowercase(), port: None });
        }
        // A user before an `@` is no part of a host.
        text.parse::<Authority>().ok().filter(|_| !text.contains('@')).map(|authority| Self::of(&authority))
    }

    fn of(authority: &Authority) -> Self {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        Self { name: name.to_ascii_lowercase(), port: authority.port_u16() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        target: &str,
        headers: &[(&str, &str)],
        hosts: &[&str],
        origins: &[&str],
    ) -> Result<(), Refusal> {
        let mut request = ::http::Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        check(&request.body(()).unwrap().into_parts().0, &owned(hosts), &owned(origins))
    }

    #[test]
    fn loopback_by_any_name_and_port() {
        for host in ["localhost", "LOCALHOST:8090", "127.0.0.1:1", "[::1]:8090", "[::1]"] {
            assert_eq!(asked("/v1/mcp", &[("host", host)], &[], &[]), Ok(()), "{host}");
        }
        assert_eq!(asked("http://localhost:8090/v1/mcp", &[], &[], &[]), Ok(()));
    }

    #[test]
    fn other_hosts_are_refused_unless_they_are_listed() {
        for host in [
            "evil.example",
            "localhost.evil.example:8090",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "a@localhost",
        ] {
            assert!(
                asked("/v1/mcp", &[("host", host)], &["sidewing:8090", "fd00::1"], &[]).is_err(),
                "{host}"
            );
        }
        let listed = ["sidewing.pod", "other:8090", "fd00::1"];
        for host in ["sidewing.pod", "Sidewing.Pod:9", "other:8090", "[fd00::1]:80"] {
            assert_eq!(asked("/v1/mcp", &[("host", host)], &listed, &[]), Ok(()), "{host}");
        }
        assert!(asked("/v1/mcp", &[("host", "other:9")], &listed, &[]).is_err());
        assert!(asked("/v1/mcp", &[], &[], &[]).is_err());
    }

    #[test]
    fn every_host_that_a_request_names_counts() {
        assert!(asked("http://evil.example/v1/mcp", &[("host", "localhost")], &[], &[]).is_err());
        assert!(asked("/v1/mcp", &[("host", "localhost"), ("host", "evil.example")], &[], &[]).is_err());
    }

    #[test]
    fn pages_of_this_server_and_of_listed_sites() {
        let from = |origin: &str, origins: &[&str]| {
            asked("/v1/mcp", &[("host", "localhost:8090"), ("origin", origin)], &[], origins)
        };
        assert_eq!(from("http://localhost:8090", &[]), Ok(()));
        assert_eq!(from("https://localhost:8090", &[]), Ok(()));
        for origin in
            ["http://localhost:3000", "http://localhost", "https://evil.example", "null", "", "\u{e9}"]
        {
            assert!(from(origin, &["https://app.example"]).is_err(), "{origin}");
        }
        assert_eq!(from("https://app.example", &["https://App.example:443/"]), Ok(()));
        assert!(from("http://app.example", &["https://app.example"]).is_err());
        assert_eq!(from("null", &["*"]), Ok(()));
        let plain = [("host", "localhost"), ("origin", "http://localhost")];
        assert_eq!(asked("/v1/mcp", &plain, &[], &[]), Ok(()));
    }

    #[test]
    fn refusals_say_what_to_set() {
        let host = asked("/v1/mcp", &[("host", "evil.example")], &["pod"], &[]).unwrap_err();
        insta::assert_snapshot!(format!("{host:?}"));
        let headers = [("host", "localhost"), ("origin", "https://evil.example")];
        insta::assert_snapshot!(format!("{:?}", asked("/v1/mcp", &headers, &[], &[]).unwrap_err()));
    }
}
