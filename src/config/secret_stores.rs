//! The secret stores of a spicepod: the checked tree enters, what each store is, holds and is asked for leaves.
//!
//! Form was judged by the checker. Here stands what depends on the kind: what follows its colon, which params are its
//! own, which it cannot do without, and that they refer to no store which has to be asked over a network itself.

use std::collections::BTreeMap;

use super::check::{one_of, subject};
use super::decode::{Decoder, known_stores, parsed};
use super::references::read_template;
use super::template;
use super::text::{list, nearest, shorten};
use super::types::{Param, SecretStore, StoreKind};
use super::yaml::{Node, Value};
use super::{Diagnostic, Duration, Span};

/// The param of every kind: how often a store is read again.
const REFRESH_INTERVAL: &str = "refresh_interval";

/// Shorter would ask a server that others need as well, more often than anybody rotates.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A kind that other runtimes know, and that this one does not.
const NOT_BUILT: &str = "keyring";

impl StoreKind {
    /// In the order in which messages list them.
    pub const ALL: [Self; 6] =
        [Self::Env, Self::Files, Self::Kubernetes, Self::Vault, Self::Aws, Self::Azure];

    /// As `from` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Files => "files",
            Self::Kubernetes => "kubernetes",
            Self::Vault => "hashicorp_vault",
            Self::Aws => "aws_secrets_manager",
            Self::Azure => "azure_keyvault",
        }
    }

    /// Whether it is read from this machine alone: then the params of other stores may refer to it.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Env | Self::Files)
    }

    /// What follows the colon, for help; nothing does for `env`.
    fn object(self) -> Option<&'static str> {
        match self {
            Self::Env => None,
            Self::Files => Some("directory"),
            Self::Kubernetes => Some("secret"),
            Self::Vault => Some("path"),
            Self::Aws => Some("secret"),
            Self::Azure => Some("vault"),
        }
    }

    /// How `from` is written.
    fn form(self) -> String {
        match self.object() {
            Some(object) => format!("{}:<{object}>", self.name()),
            None => self.name().to_owned(),
        }
    }

    /// Whether text can name such an object: nothing that would become another request.
    fn may_name(self, text: &str) -> bool {
        let is_dotted = |text: &str| text.split('/').any(|part| part == ".." || part == ".");
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let is_plain = |c: char| {
            c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\' | '"' | '<' | '>' | '{' | '}')
        };
        match self {
            Self::Env => false,
            Self::Files => !text.is_empty() && !text.contains(char::is_control),
            Self::Kubernetes => !text.is_empty() && text.chars().all(is_word) && !is_dotted(text),
            Self::Vault | Self::Aws | Self::Azure => {
                !text.is_empty() && text.chars().all(is_plain) && !is_dotted(text)
            }
        }
    }

    /// What the names of its params begin with.
    fn param_prefix(self) -> Option<&'static str> {
        match self {
            Self::Files => None,
            Self::Env => Some("file_path"),
            Self::Kubernetes => Some("kubernetes_"),
            Self::Vault => Some("hashicorp_vault_"),
            Self::Aws => Some("aws_"),
            Self::Azure => Some("azure_"),
        }
    }

    fn has_param(self, name: &str) -> bool {
        name == REFRESH_INTERVAL || self.param_prefix().is_some_and(|prefix| name.starts_with(prefix))
    }
}

/// Whether a param of a store holds a secret: better not written in clear.
fn is_secret(name: &str) -> bool {
    ["_token", "_secret_id", "_secret_access_key", "_client_secret"].iter().any(|end| name.ends_with(end))
}

/// The stores, in the order of the file; one of the environment where there are none.
pub(super) fn read_secret_stores(decoder: &mut Decoder<'_>, root: &Node) -> Vec<SecretStore> {
    let items = root.get("secrets").map_or(&[][..], Node::items);
    let items = items.iter().filter(|item| matches!(item.value, Value::Map(_)));
    let (mut stores, mut has_any, mut params) = (Vec::<SecretStore>::new(), false, Vec::new());
    for (index, item) in items.enumerate() {
        has_any = true;
        let subject = subject("secrets", item, index);
        let from = kind(decoder, item, &subject);
        let Some(name) = name(decoder, item, &subject, &stores) else { continue };
        // A store of an unknown kind has a name all the same: references to it are no further problem.
        params.push((item, subject, from.is_some()));
        let (kind, object) = from.unwrap_or((StoreKind::Env, String::new()));
        let refresh_interval = parsed(item.get("params"), REFRESH_INTERVAL);
        stores.push(SecretStore {
            name,
            kind,
            object,
            params: BTreeMap::new(),
            refresh_interval,
            at: item.at,
        });
    }
    if !has_any {
        let at = Span { line: 0, column: 0, len: 0 };
        stores.push(SecretStore::environment(at));
    }
    decoder.stores = stores.iter().map(|store| store.name.clone()).collect();
    let local: Vec<String> =
        stores.iter().filter(|store| store.kind.is_local()).map(|store| store.name.clone()).collect();
    for (store, (item, subject, _)) in stores.iter_mut().zip(params).filter(|(_, (_, _, is_known))| *is_known)
    {
        store.params = read_params(decoder, item, store.kind, &local, &subject);
    }
    stores
}

impl SecretStore {
    /// The store of a spicepod that names none.
    pub(super) fn environment(at: Span) -> Self {
        let (name, params) = ("env".to_owned(), BTreeMap::new());
        Self { name, kind: StoreKind::Env, object: String::new(), params, refresh_interval: None, at }
    }
}

/// What stands in `from`.
fn kind(decoder: &mut Decoder<'_>, item: &Node, subject: &str) -> Option<(StoreKind, String)> {
    let from = item.get("from")?;
    let text = from.text().unwrap_or_default();
    let (word, object) =
        text.split_once(':').map_or((text, None), |(word, object)| (word, Some(object.trim())));
    let found = StoreKind::ALL.into_iter().find(|kind| kind.name() == word);
    let problem = match (found, object) {
        (Some(StoreKind::Env), None) => return Some((StoreKind::Env, String::new())),
        (Some(StoreKind::Env), Some(_)) => {
            Diagnostic::new("InvalidValue", format!("{subject}: `env` takes nothing after a colon"))
                .help("write `from: env`, and a file as `params: {file_path: ...}`")
        }
        (Some(kind), Some(object)) if kind.may_name(object) => return Some((kind, object.to_owned())),
        (Some(kind), _) => {
            let object = kind.object().unwrap_or_default();
            let message = format!("{subject}: `{}` needs the name of a {object} after a colon", kind.name());
            Diagnostic::new("InvalidValue", message).help(format!("write `from: {}`", kind.form()))
        }
        (None, _) => unknown_kind(word, subject),
    };
    decoder.problem(problem.at(from.at));
    None
}

fn unknown_kind(word: &str, subject: &str) -> Diagnostic {
    let forms: Vec<String> = StoreKind::ALL.into_iter().map(StoreKind::form).collect();
    let known = format!("known kinds: {}", list(forms.iter().map(String::as_str)));
    if word == NOT_BUILT {
        let message = format!("{subject}: not supported yet: secret store `{word}`");
        return Diagnostic::new("NotSupportedYet", message).help(known);
    }
    let message = format!("{subject}: unknown secret store `{}`", shorten(word));
    Diagnostic::new("UnknownSecretStore", message).help(
        match nearest(word, StoreKind::ALL.map(StoreKind::name)) {
            Some(near) => format!("did you mean `{near}`? {known}"),
            None => known,
        },
    )
}

fn name(decoder: &mut Decoder<'_>, item: &Node, subject: &str, stores: &[SecretStore]) -> Option<String> {
    let node = item.get("name")?;
    let name = node.text().unwrap_or_default();
    if let Some(problem) = name_problem(name, stores) {
        decoder.problem(Diagnostic::new("InvalidName", format!("{subject}: {problem}")).at(node.at));
        return None;
    }
    Some(name.to_owned())
}

fn name_problem(name: &str, stores: &[SecretStore]) -> Option<String> {
    if name == "secrets" {
        return Some("the name `secrets` means all stores; choose another".to_owned());
    }
    if !template::is_identifier(name) {
        return Some(
            "a store's name is letters, digits, `_` and `-`, beginning with a letter or `_`".to_owned(),
        );
    }
    let taken = stores.iter().any(|store| store.name == name);
    taken.then(|| format!("the name `{name}` is taken by another store"))
}

/// The params of one store by name. `local` are the stores that they may refer to.
fn read_params(
    decoder: &mut Decoder<'_>,
    item: &Node,
    kind: StoreKind,
    local: &[String],
    subject: &str,
) -> BTreeMap<String, Param> {
    let mut params = BTreeMap::new();
    let entries = item.get("params").map_or(&[][..], Node::entries);
    for (key, node) in entries {
        let Value::Scalar { text, .. } = &node.value else { continue };
        if node.is_null() || !decoder.is_store_param(&key.name) {
            continue;
        }
        let found = match kind.has_param(&key.name) {
            true => read_template(&format!("param `{}`", key.name), node, text, local),
            false => {
                let message = format!("`{}` has no param `{}`", kind.name(), key.name);
                let help = match kind.param_prefix() {
                    Some(prefix) => {
                        format!("its params are `{REFRESH_INTERVAL}` and those that begin with `{prefix}`")
                    }
                    None => format!("its only param is `{REFRESH_INTERVAL}`"),
                };
                Err(("UnknownParam", (message, Some(help)), key.at))
            }
        };
        match found {
            Ok(value) if kind.is_local() && value.literal().is_none() => {
                let message =
                    format!("{subject}: param `{}` of `{}` cannot hold a reference", key.name, kind.name());
                let help = "write it out: stores of this machine are read before all others";
                decoder.problem(Diagnostic::new("InvalidValue", message).at(node.at).help(help));
            }
            Ok(value) => {
                params.insert(key.name.clone(), Param { key: key.name.clone(), value, at: node.at });
            }
            Err((code, (message, help), at)) => {
                // A store that exists and is asked over a network itself cannot be asked for another's credentials.
                let help = match code {
                    "UnknownSecretStore" => Some(format!(
                        "the params of a store may refer to stores of this machine (`env`, `files:`); {}",
                        known_stores(local)
                    )),
                    _ => help,
                };
                let message = format!("{subject}: {message}");
                decoder.problem(Diagnostic { code: Some(code), message, at: Some(at), help });
            }
        }
    }
    agree(decoder, item, kind, &params, subject);
    params
}

/// What must be there, or must not be there together.
fn agree(
    decoder: &mut Decoder<'_>,
    item: &Node,
    kind: StoreKind,
    params: &BTreeMap<String, Param>,
    subject: &str,
) {
    for param in params.values().filter(|param| is_secret(&param.key)) {
        if param.value.literal().is_some_and(|text| !text.trim().is_empty()) {
            let message = format!("{subject}: param `{}` holds a secret in clear", param.key);
            let help =
                format!("write `{}: ${{env:NAME}}` and set NAME in the environment or `.env`", param.key);
            decoder.warnings.push(Diagnostic::new("ClearTextSecret", message).at(param.at).help(help));
        }
    }
    if let Some(interval) = params.get(REFRESH_INTERVAL) {
        let written = interval.value.literal().and_then(|text| text.parse::<Duration>().ok());
        if written.is_some_and(|written| written < REFRESH_INTERVAL_MIN && !written.is_zero()) {
            let message =
                format!("{subject}: `params.{REFRESH_INTERVAL}` must be at least {REFRESH_INTERVAL_MIN}");
            decoder.problem(Diagnostic::new("InvalidValue", message).at(interval.at));
        }
    }
    let Some(missing) = (match kind {
        StoreKind::Vault => missing_of_vault(params),
        StoreKind::Aws => missing_pair(params, "aws_access_key_id", "aws_secret_access_key"),
        StoreKind::Azure => missing_of_azure(params),
        _ => None,
    }) else {
        return;
    };
    let message = format!("{subject}: {missing}");
    decoder.problem(Diagnostic::new("MissingParam", message).at(item.at));
}

/// What a login needs and does not have, by its method.
fn missing_of_vault(params: &BTreeMap<String, Param>) -> Option<String> {
    let has = |name: &str| params.contains_key(&format!("hashicorp_vault_{name}"));
    let method = params.get("hashicorp_vault_auth_method").and_then(|param| param.value.literal());
    let method = method.unwrap_or("token");
    let all: &[&str] = match method {
        "approle" => &["role_id", "secret_id"],
        "kubernetes" | "jwt" => &["role"],
        _ => &[],
    };
    if let Some(missing) = all.iter().find(|name| !has(name)) {
        return Some(format!("the login `{method}` needs `hashicorp_vault_{missing}`"));
    }
    if method == "token" && has("token") == has("token_file") {
        let names = one_of(&["hashicorp_vault_token", "hashicorp_vault_token_file"]);
        return Some(format!("the login `token` needs one of {names}"));
    }
    (method == "jwt" && !has("jwt_file"))
        .then(|| "the login `jwt` needs `hashicorp_vault_jwt_file`".to_owned())
}

fn missing_of_azure(params: &BTreeMap<String, Param>) -> Option<String> {
    let secret = "azure_client_secret";
    let needs = ["azure_tenant_id", "azure_client_id"];
    let missing =
        needs.into_iter().find(|name| params.contains_key(secret) && !params.contains_key(*name))?;
    Some(format!("`{secret}` needs `{missing}` beside it"))
}

fn missing_pair(params: &BTreeMap<String, Param>, one: &str, other: &str) -> Option<String> {
    let (has, lacks) = match (params.contains_key(one), params.contains_key(other)) {
        (true, false) => (one, other),
        (false, true) => (other, one),
        _ => return None,
    };
    Some(format!("`{has}` needs `{lacks}` beside it"))
}
