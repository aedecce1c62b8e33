//! From where a request comes: its Host and Origin enter, what is foreign in them leaves. Pure.
//!
//! A web page can have its own name resolve to 127.0.0.1 (DNS rebinding) and then talk to this server as if it were its
//! own; and it can send some requests to any server, blindly, with the credentials that the browser remembers. What it
//! cannot do is lie about the name, nor about where it came from.

use std::net::IpAddr;

use ::http::header::{HOST, ORIGIN};
use ::http::request::Parts;
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderValue, Uri};

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

/// What is foreign in a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It names no host.
    NoHost,
    /// It is for another host.
    Host { name: String },
    /// A page of another site sent it.
    Origin { origin: String },
}

/// Whether a request is for this server.
///
/// # Errors
/// It names another host, or none.
pub(super) fn check_host(uri: &Uri, headers: &HeaderMap, allowed_hosts: &[String]) -> Result<(), Foreign> {
    let hosts = hosts(uri, headers).ok_or(Foreign::NoHost)?;
    match hosts.into_iter().find(|host| !is_allowed(host, allowed_hosts)) {
        None => Ok(()),
        Some(Host { name, .. }) => Err(Foreign::Host { name }),
    }
}

/// Whether a request was sent by a page of this server or of `allowed_origins`, or by no page at all.
///
/// # Errors
/// A page of another site sent it.
pub(super) fn check_origin(
    uri: &Uri,
    headers: &HeaderMap,
    allowed_origins: &[String],
) -> Result<(), Foreign> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let is_ours = hosts(uri, headers).is_some_and(|hosts| is_of(origin, &hosts));
    match is_ours || is_listed(origin, allowed_origins) {
        true => Ok(()),
        false => Err(Foreign::Origin { origin: String::from_utf8_lossy(origin.as_bytes()).into_owned() }),
    }
}

/// Whether a page may ask a server that asks nobody for a key: one of a name that may be anybody's may not, were it
/// the server's own. A name of digits cannot be had by another site.
///
/// # Errors
/// The page has the name of another host, which may only resolve to this one.
pub(super) fn check_page_host(
    uri: &Uri,
    headers: &HeaderMap,
    allowed_hosts: &[String],
) -> Result<(), Foreign> {
    if !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    match check_host(uri, headers, allowed_hosts) {
        Err(Foreign::Host { name }) if name.parse::<IpAddr>().is_ok() => Ok(()),
        other => other,
    }
}

/// Whether the request's Origin is one of these; no Origin is none.
pub(super) fn is_of_listed(headers: &HeaderMap, allowed_origins: &[String]) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| is_listed(origin, allowed_origins))
}

/// [`check_host`] and [`check_origin`].
///
/// # Errors
/// Theirs.
pub(super) fn check(
    request: &Parts,
    allowed_hosts: &[String],
    allowed_origins: &[String],
) -> Result<(), Foreign> {
    check_host(&request.uri, &request.headers, allowed_hosts)?;
    check_origin(&request.uri, &request.headers, allowed_origins)
}

/// All hosts under which this server answers agents and pages: of loopback, and those that are listed.
pub(super) fn known_hosts(allowed: &[String]) -> String {
    let listed = allowed.iter().map(String::as_str).filter(|host| !LOCAL_HOSTS.contains(host));
    LOCAL_HOSTS.into_iter().chain(listed).collect::<Vec<_>>().join(", ")
}

/// The hosts that the request names: in its Host header, in its target (HTTP/2), or in both. None where there is none,
/// or one that is no host.
fn hosts(uri: &Uri, headers: &HeaderMap) -> Option<Vec<Host>> {
    let target = uri.authority().map(|authority| Some(Host::of(authority)));
    let headers = headers.get_all(HOST).iter().map(|host| Host::parse(host.to_str().ok()?));
    let hosts: Option<Vec<Host>> = target.into_iter().chain(headers).collect();
    hosts.filter(|hosts| !hosts.is_empty())
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
    ) -> Result<(), Foreign> {
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
    fn pages_of_an_open_server_have_a_name_that_is_its_own() {
        let page = |host: &str, origin: Option<&str>| {
            let headers = [("host", Some(host)), ("origin", origin)];
            let headers = headers.iter().filter_map(|(name, value)| {
                Some((::http::HeaderName::from_static(name), HeaderValue::from_str((*value)?).ok()?))
            });
            check_page_host(&Uri::from_static("/v1/sql"), &headers.collect(), &["sidewing.pod".to_owned()])
        };
        for host in ["localhost:8090", "127.0.0.1", "10.0.0.5:8090", "[fd00::1]:8090", "sidewing.pod:8090"] {
            assert_eq!(page(host, Some("http://x")), Ok(()), "{host}");
        }
        assert_eq!(page("evil.example:8090", None), Ok(()));
        assert!(page("evil.example:8090", Some("http://evil.example:8090")).is_err());
    }

    #[test]
    fn a_request_without_a_host_is_told_from_one_for_another() {
        assert_eq!(asked("/v1/mcp", &[], &[], &[]), Err(Foreign::NoHost));
        let evil = asked("/v1/mcp", &[("host", "Evil.example:1")], &[], &[]);
        assert_eq!(evil, Err(Foreign::Host { name: "evil.example".into() }));
        assert_eq!(known_hosts(&["pod".into(), "::1".into()]), "localhost, 127.0.0.1, ::1, pod");
    }
}
