//! Checked names that every room uses: datasets, endpoints, query ids.
//!
//! What enters is text from a spicepod or a client; what leaves cannot be wrong. Nothing here does I/O.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// The default ports of the two schemes, RFC 9110 section 4.2.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A name that is not one. The text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("a dataset name is empty")]
    Empty,
    #[error("dataset name `{0}` has more than two parts: use `table` or `schema.table`")]
    TooManyParts(String),
    #[error("dataset name `{name}` has an empty or unclosed part")]
    BadPart { name: String },
    #[error("dataset name `{name}`: `{part}` is a reserved SQL keyword; choose another name")]
    Reserved { name: String, part: String },
    #[error(
        "dataset name `{name}` holds the character {found:?}; unquoted names are letters, digits and `_`, and do not begin with a digit"
    )]
    BadCharacter { name: String, found: char },
}

/// The local name of a dataset or view: `table` or `schema.table`, lower case unless quoted.
///
/// ```
/// use sidewing::name::DatasetName;
/// let name: DatasetName = "Sales.Orders".parse().unwrap();
/// assert_eq!(name.schema(), Some("sales"));
/// assert_eq!(name.table(), "orders");
/// assert!("a.b.c".parse::<DatasetName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName {
    schema: Option<String>,
    table: String,
}

impl DatasetName {
    /// The schema part, where one was written.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The table part.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = split_identifiers(text)?;
        let table = parts.pop().ok_or(NameError::Empty)?;
        let schema = parts.pop();
        match parts.is_empty() {
            true => Ok(Self { schema, table }),
            false => Err(NameError::TooManyParts(text.to_owned())),
        }
    }
}

/// Words that cannot stand as a bare table name in a FROM clause.
const RESERVED: &[&str] = &[
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cross",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "into",
    "is",
    "join",
    "lateral",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "right",
    "select",
    "set",
    "table",
    "then",
    "true",
    "union",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// Splits `a."B c".d` at its dots; bare parts are lower-cased and checked, quoted ones kept.
fn split_identifiers(text: &str) -> Result<Vec<String>, NameError> {
    let bad_part = || NameError::BadPart { name: text.to_owned() };
    if text.trim().is_empty() {
        return Err(NameError::Empty);
    }
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted).ok_or_else(bad_part)?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (bare_part(text, &rest[..end])?, &rest[end..])
            }
        };
        if part.is_empty() {
            return Err(bad_part());
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(bad_part()),
        }
    }
}

/// Reads up to the closing quote; a doubled quote stands for one. `None` when it never closes.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if matches!(chars.peek(), Some((_, '"'))) => {
                chars.next();
                part.push('"');
            }
            '"' => return Some((part, &text[at + 1..])),
            _ => part.push(c),
        }
    }
    None
}

fn bare_part(name: &str, part: &str) -> Result<String, NameError> {
    let starts_with_digit = part.starts_with(|c: char| c.is_ascii_digit());
    let odd = part.chars().find(|c| !c.is_alphanumeric() && *c != '_');
    if let Some(found) = odd.or(part.chars().next().filter(|_| starts_with_digit)) {
        return Err(NameError::BadCharacter { name: name.to_owned(), found });
    }
    let lower = part.to_lowercase();
    match RESERVED.contains(&lower.as_str()) {
        true => Err(NameError::Reserved { name: name.to_owned(), part: lower }),
        false => Ok(lower),
    }
}

/// An endpoint that cannot be used, with what is wrong about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// `grpc://` and everything else that is not one of the three schemes.
    #[error("UnsupportedEndpointScheme: endpoint `{endpoint}` uses `{scheme}://`")]
    UnsupportedScheme { endpoint: String, scheme: String },
    #[error("endpoint `{endpoint}` is not a URL: expected `<scheme>://<host>[:<port>]`")]
    NotAUrl { endpoint: String },
    #[error("endpoint `{endpoint}` names no host")]
    NoHost { endpoint: String },
    #[error("endpoint `{endpoint}` has a bad port")]
    BadPort { endpoint: String },
    #[error(
        "an endpoint holds a user name or password; credentials belong in params, as `${{secrets:NAME}}`"
    )]
    Credentials,
    #[error(
        "endpoint `{endpoint}` has a path, query or fragment; only `<scheme>://<host>[:<port>]` is allowed here"
    )]
    Trailing { endpoint: String },
}

/// Where a Flight server is reached: `http://` in the clear, `https://` or `grpc+tls://` over TLS.
///
/// Shown normalised (`grpc+tls` becomes `https`, the port is always there), so that equal endpoints
/// compare equal.
///
/// ```
/// use sidewing::name::EndpointUrl;
/// let url: EndpointUrl = "grpc+tls://core.example.com:50051".parse().unwrap();
/// assert_eq!(url.to_string(), "https://core.example.com:50051");
/// assert!("grpc://core:50051".parse::<EndpointUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointUrl {
    tls: bool,
    host: String,
    port: u16,
    /// The Unix domain socket that stands for the host.
    socket: Option<PathBuf>,
}

impl EndpointUrl {
    /// A server behind a Unix domain socket of this machine. No URL says so.
    #[must_use]
    pub fn of_socket(path: PathBuf) -> Self {
        Self { tls: false, host: "localhost".to_owned(), port: HTTP_PORT, socket: Some(path) }
    }

    /// The socket to connect to instead of host and port.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name, IPv4 literal, or IPv6 literal without brackets; lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, with brackets around an IPv6 literal.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.socket {
            return write!(f, "unix:{}", path.display());
        }
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for EndpointUrl {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let endpoint = || text.to_owned();
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| EndpointError::NotAUrl { endpoint: endpoint() })?;
        if rest.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" | "grpc+tls" => true,
            other => {
                let scheme = other.to_owned();
                return Err(EndpointError::UnsupportedScheme { endpoint: endpoint(), scheme });
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(EndpointError::Trailing { endpoint: endpoint() });
        }
        let (host, port) = split_authority(text, authority)?;
        let port = port.unwrap_or(if tls { HTTPS_PORT } else { HTTP_PORT });
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, socket: None })
    }
}

/// Splits `host[:port]` and `[v6][:port]`; the URL itself is only for the error text.
fn split_authority<'a>(url: &str, authority: &'a str) -> Result<(&'a str, Option<u16>), EndpointError> {
    let endpoint = || url.to_owned();
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) =
                v6.split_once(']').ok_or_else(|| EndpointError::NotAUrl { endpoint: endpoint() })?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| EndpointError::NotAUrl { endpoint: endpoint() })?;
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some(after)))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(EndpointError::NoHost { endpoint: endpoint() });
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(EndpointError::NotAUrl { endpoint: endpoint() });
    }
    let port = port
        .map(|port| port.parse::<u16>().ok().filter(|port| *port != 0))
        .map(|port| port.ok_or_else(|| EndpointError::BadPort { endpoint: endpoint() }))
        .transpose()?;
    Ok((host, port))
}

/// Identifies one query in logs, answers and cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(Uuid);

/// Text that is no query's id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a query's id is a UUID, for example 6f1de0e6-5c3b-4a52-93a7-4b1f0b9b4f0e")]
pub struct QueryIdError;

impl FromStr for QueryId {
    type Err = QueryIdError;

    fn from_str(text: &str) -> Result<Self, QueryIdError> {
        text.parse().map(Self).map_err(|_| QueryIdError)
    }
}

impl QueryId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        // The thread's own generator: no call to the system for each.
        Self(uuid::Builder::from_random_bytes(rand::random()).into_uuid())
    }
}

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dataset_names() {
        let name: DatasetName = r#"sales."Order ""X"".y""#.parse().unwrap();
        assert_eq!((name.schema(), name.table()), (Some("sales"), r#"Order "X".y"#));
        for bad in ["", " ", "a.b.c", "a.", ".a", "\"a", "\"a\"b", "select", "s.table", "1a", "a-b", "\"\""] {
            assert!(bad.parse::<DatasetName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn endpoints() {
        let shown = |text: &str| text.parse::<EndpointUrl>().map(|url| url.to_string());
        assert_eq!(shown("http://LOCALHOST:50051/").unwrap(), "http://localhost:50051");
        assert_eq!(shown("https://a.b").unwrap(), "https://a.b:443");
        assert_eq!(shown("grpc+tls://[::1]:7").unwrap(), "https://[::1]:7");
        for bad in [
            "grpc://a:1",
            "a:1",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:x",
            "http://a:1/p",
            "https://[::1",
            "https://[::1]x",
            "https://[zz]:1",
            "https://a b:1",
            "https://a:1?q",
            "ftp://a",
        ] {
            assert!(shown(bad).is_err(), "{bad:?} was taken");
        }
        let secret = "https://user:hunter2@a:1".parse::<EndpointUrl>().unwrap_err();
        assert!(!secret.to_string().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn an_endpoint_shown_parses_to_itself(tls: bool, host in "[a-z][a-z0-9.-]{0,20}", port in 1u16..) {
            let scheme = if tls { "grpc+tls" } else { "http" };
            let url: EndpointUrl = format!("{scheme}://{host}:{port}").parse().unwrap();
            prop_assert_eq!(url.to_string().parse::<EndpointUrl>().unwrap(), url);
        }

        #[test]
        fn no_text_makes_a_name_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<DatasetName>();
            let _ = text.parse::<EndpointUrl>();
        }

        #[test]
        fn a_quoted_name_is_kept(table in "\\PC{1,20}") {
            let quoted = format!("\"{}\"", table.replace('"', "\"\""));
            let name: DatasetName = quoted.parse().unwrap();
            prop_assert_eq!(name.table(), table);
        }
    }
}
