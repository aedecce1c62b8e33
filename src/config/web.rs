//! `runtime.cors` and `runtime.mcp`: which web pages and which host names the HTTP front end answers.

use super::decode::Decoder;
use super::text::shorten;
use super::yaml::Node;
use super::{Diagnostic, Span};

/// Every origin.
const ANY_ORIGIN: &str = "*";

/// The hosts under which agents of this machine ask.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// `runtime.cors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub enabled: bool,
    /// `*` alone for every origin; else origins as browsers send them: `https://app.example.com`.
    pub allowed_origins: Vec<String>,
}

/// `runtime.mcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcp {
    /// What `Host` may say: names and addresses, with or without a port.
    pub allowed_hosts: Vec<String>,
}

impl Default for Cors {
    fn default() -> Self {
        Self { enabled: false, allowed_origins: vec![ANY_ORIGIN.to_owned()] }
    }
}

impl Default for Mcp {
    fn default() -> Self {
        Self { allowed_hosts: LOCAL_HOSTS.map(str::to_owned).to_vec() }
    }
}

pub(super) fn read_cors(decoder: &mut Decoder<'_>, runtime: Option<&Node>) -> Cors {
    let Some(section) = runtime.and_then(|runtime| runtime.get("cors")) else { return Cors::default() };
    let enabled = section.get("enabled").and_then(Node::as_bool).unwrap_or(false);
    // What is switched off is checked by form only.
    let written = section.get("allowed_origins").filter(|_| enabled);
    if let (None, Some((key, _))) = (section.get("enabled"), section.entry("allowed_origins")) {
        let message = "`runtime.cors.allowed_origins` has no effect: `enabled` is `false` when absent";
        let help = "write `enabled: true` beside it, or leave it out";
        decoder.warnings.push(Diagnostic::new("NoEffect", message).at(key.at).help(help));
    }
    let Some(node) = written else { return Cors { enabled, ..Cors::default() } };
    let allowed_origins = texts(decoder, node, "runtime.cors.allowed_origins", "an origin", |text| {
        (text == ANY_ORIGIN || is_origin(text))
            .then_some(())
            .ok_or("such as `https://app.example.com`, or `*`")
    });
    if allowed_origins.len() > 1 && allowed_origins.iter().any(|origin| origin == ANY_ORIGIN) {
        let message = "`runtime.cors.allowed_origins` names origins beside `*`, which is every origin";
        decoder.problem(Diagnostic::new("InvalidValue", message).at(node.at).help("keep `*` or the others"));
    }
    Cors { enabled, allowed_origins }
}

pub(super) fn read_mcp(decoder: &mut Decoder<'_>, runtime: Option<&Node>) -> Mcp {
    let written = runtime.and_then(|runtime| runtime.get("mcp")?.get("allowed_hosts"));
    let Some(node) = written else { return Mcp::default() };
    let allowed_hosts = texts(decoder, node, "runtime.mcp.allowed_hosts", "a host", |text| {
        is_host(text).then_some(()).ok_or("such as `sidewing.internal` or `sidewing.internal:8090`")
    });
    Mcp { allowed_hosts }
}

/// The elements of a list that `judge` takes; the others are problems, and so is an empty list.
fn texts(
    decoder: &mut Decoder<'_>,
    node: &Node,
    name: &str,
    what: &str,
    judge: impl Fn(&str) -> Result<(), &'static str>,
) -> Vec<String> {
    let mut taken = Vec::new();
    let mut wrong = |message: String, at: Span, help: String| {
        decoder.problem(Diagnostic::new("InvalidValue", message).at(at).help(help));
    };
    if matches!(&node.value, super::yaml::Value::List(items) if items.is_empty()) {
        wrong(
            format!("`{name}` is empty: nobody may ask"),
            node.at,
            "leave it out for the default".to_owned(),
        );
    }
    // An element that is no text was refused by the checker.
    for (item, text) in node.items().iter().filter_map(|item| Some((item, item.text()?))) {
        match judge(text) {
            Ok(()) => taken.push(text.to_owned()),
            Err(example) => {
                let message = format!("`{name}`: `{}` is not {what}", shorten(text));
                wrong(message, item.at, format!("expected one {example}"));
            }
        }
    }
    taken
}

/// Whether `text` is what a browser sends as `Origin`: scheme, host, and a port that is not the scheme's own.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    is_scheme && is_host(host) && host == host.to_ascii_lowercase()
}

/// Whether `text` is a name, an IPv4 or IPv6 address, with or without a port.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    is_port && (is_name(host) || is_bracketed(host))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn is_bracketed(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:80", "app://shop"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://A.b",
            "https://a b",
            "HTTPS://a",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_have_a_port_or_none() {
        for good in ["localhost", "127.0.0.1", "::1", "[::1]:8090", "[::1]", "a.b:1", "a-b_c"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "a:", "a:x", "http://a", "a/b", "a b", "[a]:1", "a:99999"] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
