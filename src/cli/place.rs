//! Where a sidecar answers HTTP, as people write it: an address, a URL, or a socket of this machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

use crate::config::BindAddress;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Plain(Authority),
    Tls(Authority),
    Unix(PathBuf),
}

impl Place {
    /// The place, and the path with its query that is asked for there: empty where none is written. That of a socket
    /// follows another colon: `unix:/run/http.sock:/v1/ready`.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn split(text: &str) -> Result<(Self, String), String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (socket, path) = rest.find(":/").map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
            return match format!("unix:{socket}").parse() {
                Ok(BindAddress::Unix(socket)) => Ok((Self::Unix(socket), path.to_owned())),
                Ok(BindAddress::Tcp(_)) => Err(expected(text)),
                Err(error) => Err(error.to_string()),
            };
        }
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let parts = url.parse::<Uri>().map_err(|_| expected(text))?.into_parts();
        let path = parts.path_and_query.map_or_else(String::new, |path| path.as_str().to_owned());
        let path = if path == "/" { String::new() } else { path };
        match (parts.scheme.as_ref().map(|scheme| scheme.as_str()), parts.authority) {
            (Some("http"), Some(authority)) => Ok((Self::Plain(authority), path)),
            (Some("https"), Some(authority)) => Ok((Self::Tls(authority), path)),
            _ => Err(expected(text)),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Self::split(text.trim_end_matches('/'))? {
            (place, path) if path.is_empty() => Ok(place),
            _ => Err(expected(text)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn expected(text: &str) -> String {
    format!(
        "`{text}` is neither an address nor a URL: expected one such as `127.0.0.1:8090`, `https://sidecar:8090` or \
         `unix:/run/http.sock`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_as_good_as_a_url() {
        let shown = |text: &str| text.parse::<Place>().map(|place| place.to_string());
        for text in ["127.0.0.1:8090", "http://127.0.0.1:8090", "http://127.0.0.1:8090/"] {
            assert_eq!(shown(text).unwrap(), "http://127.0.0.1:8090", "{text}");
        }
        assert_eq!(shown("https://sidecar:8090/").unwrap(), "https://sidecar:8090");
        assert_eq!(shown("unix:///run/s").unwrap(), "unix:/run/s");
        for text in
            ["", "ftp://localhost:8090", "http://a/v1/sql", "http://a?b=c", "two words", "unix:/s:/v1"]
        {
            assert!(shown(text).unwrap_err().contains("such as `127.0.0.1:8090`"), "{text}");
        }
        assert!(shown("unix:s").unwrap_err().contains("an absolute path"));
    }

    #[test]
    fn a_path_follows() {
        let split = |text: &str| Place::split(text).map(|(place, path)| (place.to_string(), path)).unwrap();
        assert_eq!(split("http://a:1"), ("http://a:1".to_owned(), String::new()));
        assert_eq!(split("https://a:1/v1/ready?verbose=true").1, "/v1/ready?verbose=true");
        assert_eq!(split("unix:/run/s:/v1/ready"), ("unix:/run/s".to_owned(), "/v1/ready".to_owned()));
        assert_eq!(split("unix:/run/s").1, "");
    }
}
