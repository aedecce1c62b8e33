//! A scalar of the tree to a template whose stores are there; what is wrong with it leaves in words, with its place.

use super::Span;
use super::decode::known_stores;
use super::template::{Template, TemplateError};
use super::text::nearest;
use super::yaml::{Node, Value};

/// A message and its help.
pub(super) type Words = (String, Option<String>);

/// What is wrong with a value: error name, words, place.
pub(super) type ValueError = (&'static str, Words, Span);

const TEMPLATE_HELP: &str = "a reference is `${secrets:NAME}`, or `${store:NAME}` for one store";

/// The template in `text`, the scalar of `node`; messages begin with `subject`, such as "param `x`".
pub(super) fn read_template(
    subject: &str,
    node: &Node,
    text: &str,
    stores: &[String],
) -> Result<Template, ValueError> {
    let template = Template::parse(text).map_err(|error| {
        let words = (format!("{subject}: {}", error.what), Some(TEMPLATE_HELP.to_owned()));
        ("InvalidTemplate", words, place_of(&error, node, text))
    })?;
    for (store, key) in template.references() {
        if store != "secrets" && !stores.iter().any(|known| known == store) {
            let message = format!("{subject}: `${{{store}:{key}}}` names an unknown secret store `{store}`");
            let near = nearest(store, stores.iter().map(String::as_str).chain(["secrets"]));
            let help = match near {
                Some(near) => format!("did you mean `${{{near}:{key}}}`? {}", known_stores(stores)),
                None => known_stores(stores),
            };
            return Err(("UnknownSecretStore", (message, Some(help)), node.at));
        }
    }
    Ok(template)
}

/// The place of a template's fault inside a plain one-line value; else the value's own place.
fn place_of(error: &TemplateError, node: &Node, text: &str) -> Span {
    let plain = matches!(node.value, Value::Scalar { plain: true, .. });
    match plain && node.at.len == text.chars().count() {
        true => Span { line: node.at.line, column: node.at.column + error.at, len: error.len },
        false => node.at,
    }
}
