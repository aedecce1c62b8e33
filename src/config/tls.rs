//! `runtime.tls` and `runtime.metrics.tls`: where certificates, keys and the CA of clients are, and what contradicts
//! itself there. No file is read.

use std::path::PathBuf;

use super::api_keys::value_problem;
use super::decode::Decoder;
use super::references::read_template;
use super::template::Template;
use super::yaml::{Key, Node, Value};
use super::{Diagnostic, Span};

/// TLS of a listener. `T` is text: as written, or with its references resolved.
#[derive(Debug, Clone)]
pub struct Tls<T = Template> {
    /// The chain, the listener's own certificate first.
    pub certificate: Pem<T>,
    pub key: Pem<T>,
    pub client_auth: ClientAuth<Pem<T>>,
}

/// PEM text, by reference.
#[derive(Debug, Clone)]
pub struct Pem<T = Template> {
    /// How messages name it, e.g. `runtime.tls.certificate_file`.
    pub name: String,
    pub source: PemSource<T>,
    pub at: Span,
}

/// Where PEM text is.
#[derive(Debug, Clone)]
pub enum PemSource<T = Template> {
    /// Relative to the working directory.
    File(PathBuf),
    Inline(T),
}

/// Whether clients present a certificate, and `C`, the CA that has issued it.
#[derive(Debug, Clone)]
pub enum ClientAuth<C> {
    None,
    /// They may.
    Request(C),
    /// They must.
    Required(C),
}

impl<C> ClientAuth<C> {
    /// Whether nobody gets in without a certificate.
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Required(_))
    }

    /// The CA, where there is one.
    pub fn ca(&self) -> Option<&C> {
        match self {
            Self::None => None,
            Self::Request(ca) | Self::Required(ca) => Some(ca),
        }
    }

    /// The same with what `read` makes of the CA; `None` where it makes nothing.
    pub fn filter_map<D>(&self, mut read: impl FnMut(&C) -> Option<D>) -> Option<ClientAuth<D>> {
        match self {
            Self::None => Some(ClientAuth::None),
            Self::Request(ca) => read(ca).map(ClientAuth::Request),
            Self::Required(ca) => read(ca).map(ClientAuth::Required),
        }
    }
}

/// The field `tls` of `parent`, whose path is `path`; `None` where it is absent or off.
pub(super) fn read_tls(decoder: &mut Decoder<'_>, parent: Option<&Node>, path: &str) -> Option<Tls> {
    let (key, section) = parent?.section("tls")?;
    let is_off = section.get("enabled").and_then(Node::as_bool) == Some(false);
    // What is no mapping was refused by the checker.
    let is_malformed = !section.is_null() && !matches!(section.value, Value::Map(_));
    if is_off || is_malformed {
        return None;
    }
    Reader { decoder, key, section, path: format!("{path}.tls") }.tls()
}

struct Reader<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    key: &'a Key,
    section: &'a Node,
    path: String,
}

impl Reader<'_, '_> {
    fn tls(&mut self) -> Option<Tls> {
        let certificate = self.one_of("certificate", "certificate_file");
        let key = self.one_of("key", "key_file");
        let client_auth = self.client_auth();
        for (found, name) in [(&certificate, "certificate"), (&key, "key")] {
            if matches!(found, Found::Absent) {
                let message = format!("`{}` is on and has no {name}", self.path);
                let help = format!(
                    "set `{name}_file` to a PEM file, or write `enabled: false` to speak without TLS"
                );
                self.problem("MissingField", message, self.key.at, &help);
            }
        }
        match (certificate, key) {
            (Found::Pem(certificate), Found::Pem(key)) => {
                Some(Tls { certificate, key, client_auth: client_auth? })
            }
            _ => None,
        }
    }

    /// `None` for what is wrong, which was said.
    fn client_auth(&mut self) -> Option<ClientAuth<Pem>> {
        let ca = self.one_of("client_auth_ca", "client_auth_ca_file");
        let mode = self.section.get("client_auth_mode");
        let (wraps, mode): (fn(Pem) -> ClientAuth<Pem>, &Node) = match mode
            .and_then(|node| Some((node.text()?, node)))
        {
            Some(("request", node)) => (ClientAuth::Request, node),
            Some(("required", node)) => (ClientAuth::Required, node),
            _ => {
                if let Found::Pem(ca) = ca {
                    let message =
                        format!("`{}` has no effect: clients are asked for no certificate", ca.name);
                    let help = "write `client_auth_mode: required` (or `request`) beside it, or leave it out";
                    self.decoder.warnings.push(Diagnostic::new("NoEffect", message).at(ca.at).help(help));
                }
                return Some(ClientAuth::None);
            }
        };
        match ca {
            Found::Pem(ca) => Some(wraps(ca)),
            Found::Wrong => None,
            Found::Absent => {
                let word = mode.text().unwrap_or_default();
                let message =
                    format!("`{}.client_auth_mode: {word}` has no CA to check clients by", self.path);
                let help =
                    "set `client_auth_ca_file` to the PEM file of the CA that issues their certificates";
                self.problem("MissingField", message, mode.at, help);
                None
            }
        }
    }

    /// The PEM text that is given inline or as a file, not both.
    fn one_of(&mut self, inline: &str, file: &str) -> Found {
        let written = |name: &str| self.section.entry(name);
        match (written(inline), written(file)) {
            (None, None) => Found::Absent,
            (Some(_), Some((key, _))) => {
                let message = format!("`{0}.{inline}` and `{0}.{file}` exclude each other", self.path);
                self.problem("InvalidValue", message, key.at, "keep one of them");
                Found::Wrong
            }
            (Some((_, node)), None) => self.inline(inline, node),
            (None, Some((_, node))) => self.file(file, node),
        }
    }

    fn file(&mut self, field: &str, node: &Node) -> Found {
        let name = format!("{}.{field}", self.path);
        match node.text().filter(|_| node.kind() == "text").map(str::trim) {
            None => Found::Wrong,
            Some("") => {
                self.problem("InvalidValue", format!("`{name}` is empty"), node.at, "name a PEM file");
                Found::Wrong
            }
            Some(path) => Found::Pem(Pem { name, source: PemSource::File(path.into()), at: node.at }),
        }
    }

    fn inline(&mut self, field: &str, node: &Node) -> Found {
        let name = format!("{}.{field}", self.path);
        let Some(text) = node.text().filter(|_| node.kind() == "text") else { return Found::Wrong };
        let template = match read_template(&format!("`{name}`"), node, text, &self.decoder.stores) {
            Ok(template) => template,
            Err(error) => {
                self.decoder.problem(value_problem(error));
                return Found::Wrong;
            }
        };
        let literal = template.literal();
        if literal.is_some_and(|text| text.trim().is_empty()) {
            let help = "write PEM text, or `${secrets:NAME}`";
            self.problem("InvalidValue", format!("`{name}` is empty"), node.at, help);
            return Found::Wrong;
        }
        if field == "key" && literal.is_some() {
            let message = format!("`{name}` holds a secret in clear");
            let help =
                "write `key: ${secrets:NAME}` and set NAME in the environment or `.env`, or use `key_file`";
            self.decoder.warnings.push(Diagnostic::new("ClearTextSecret", message).at(node.at).help(help));
        }
        Found::Pem(Pem { name, source: PemSource::Inline(template), at: node.at })
    }

    fn problem(&mut self, code: &'static str, message: String, at: Span, help: &str) {
        self.decoder.problem(Diagnostic::new(code, message).at(at).help(help));
    }
}

/// What became of a pair of fields.
enum Found {
    Absent,
    Pem(Pem),
    /// It was said.
    Wrong,
}
