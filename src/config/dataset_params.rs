//! The params of one dataset against its connector's table: names, prefixes, forms, templates.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::params::{ParamForm, ParamSpec, connector_params};
use super::references::{ValueError, Words, read_template};
use super::template::Template;
use super::text::{list, nearest, shorten};
use super::types::{Connector, Param};
use super::yaml::{Key, Node, Value};
use super::{ByteSize, Diagnostic, Duration, Span, check};

/// Reads the params of a dataset, by canonical name.
pub(super) fn params(
    decoder: &mut Decoder<'_>,
    node: &Node,
    connector: Connector,
    subject: &str,
) -> BTreeMap<String, Param> {
    let mut params: BTreeMap<String, Param> = BTreeMap::new();
    for (key, value) in node.entries() {
        let spec = match find(&key.name, connector) {
            Ok(spec) => spec,
            Err(problem) => {
                decoder.problems.push(problem_at(subject, "UnknownParam", problem, key.at));
                continue;
            }
        };
        if let Some(other) = params.get(spec.name) {
            let message = format!("params `{}` and `{}` are the same", other.key, key.name);
            decoder.problems.push(problem_at(subject, "DuplicateParam", (message, None), key.at));
            continue;
        }
        match template(key, value, spec, &decoder.stores) {
            Ok(template) => {
                warn_of_clear_text(decoder, spec, connector, &template, value, subject);
                params.insert(
                    spec.name.to_owned(),
                    Param { key: key.name.clone(), value: template, at: value.at },
                );
            }
            Err((code, words, at)) => decoder.problems.push(problem_at(subject, code, words, at)),
        }
    }
    params
}

fn problem_at(subject: &str, code: &'static str, (message, help): Words, at: Span) -> Diagnostic {
    Diagnostic { code: Some(code), message: format!("{subject}: {message}"), at: Some(at), help }
}

/// The param that a key names, with its prefix (or without, where that is allowed).
fn find(key: &str, connector: Connector) -> Result<&'static ParamSpec, Words> {
    let specs = connector_params(connector);
    let prefix = connector.param_prefix();
    let with_prefix = key.strip_prefix(prefix);
    if let Some(spec) = with_prefix.and_then(|name| specs.iter().find(|spec| spec.name == name)) {
        return Ok(spec);
    }
    let same = specs.iter().find(|spec| spec.name == key);
    if let Some(spec) = same.filter(|spec| spec.bare) {
        return Ok(spec);
    }
    let shown = shorten(key);
    let other = [Connector::SpiceAi, Connector::FlightSql]
        .into_iter()
        .find(|other| *other != connector && key.starts_with(other.param_prefix()));
    let near = same.map(|spec| spec.written(connector)).or_else(|| {
        let foreign = other.and_then(|other| key.strip_prefix(other.param_prefix()));
        let name = with_prefix.or(foreign).unwrap_or(key);
        let near = nearest(name, specs.iter().map(|spec| spec.name));
        near.map(|name| format!("{prefix}{name}")).or_else(|| {
            let written: Vec<String> = specs.iter().map(|spec| spec.written(connector)).collect();
            nearest(key, written.iter().map(String::as_str)).map(str::to_owned)
        })
    });
    let connector_name = connector.name();
    let message = match &near {
        Some(near) => {
            format!("unknown param `{shown}` of connector `{connector_name}`, did you mean `{near}`?")
        }
        None => format!("unknown param `{shown}` of connector `{connector_name}`"),
    };
    let help = match (other, near) {
        (Some(_), _) => Some(format!("params of this connector begin with `{prefix}`")),
        (None, Some(_)) => None,
        (None, None) => {
            let written: Vec<String> = specs.iter().map(|spec| spec.written(connector)).collect();
            Some(format!("known params: {}", list(written.iter().map(String::as_str))))
        }
    };
    Err((message, help))
}

fn template(key: &Key, node: &Node, spec: &ParamSpec, stores: &[String]) -> Result<Template, ValueError> {
    let name = shorten(&key.name);
    let Value::Scalar { text, .. } = &node.value else {
        let message = format!("param `{name}` must be text, a number or a boolean; found {}", node.kind());
        return Err(("InvalidType", (message, None), node.at));
    };
    if node.is_null() {
        let message = format!("param `{name}`: a param value is missing");
        return Err((
            "MissingParamValue",
            (message, Some("write a value, or remove the param".into())),
            key.at,
        ));
    }
    let template = read_template(&format!("param `{name}`"), node, text, stores)?;
    let fault = match template.literal() {
        Some(literal) => form_fault(&name, literal, spec.form),
        None if spec.form == ParamForm::Duration => {
            let message = format!("param `{name}` cannot hold a reference");
            Some((message, Some("write the duration out, such as `60s`".to_owned())))
        }
        None => None,
    };
    if let Some(words) = fault {
        return Err(("InvalidValue", words, node.at));
    }
    Ok(template)
}

/// What is wrong with the form of a value that holds no reference.
fn form_fault(name: &str, literal: &str, form: ParamForm) -> Option<Words> {
    match form {
        ParamForm::Text => None,
        ParamForm::Size => match literal.parse::<ByteSize>() {
            Ok(size) if size.bytes() > 0 => None,
            Ok(_) => Some((format!("param `{name}` must be more than zero"), None)),
            Err(error) => Some((format!("param `{name}`: {error}"), None)),
        },
        ParamForm::Duration => match literal.parse::<Duration>() {
            Ok(duration) if !duration.is_zero() => None,
            Ok(_) => Some((format!("param `{name}` must be more than zero"), None)),
            Err(error) => Some((format!("param `{name}`: {error}"), None)),
        },
        ParamForm::OneOf(values) if !values.contains(&literal) => {
            let message = format!("param `{name}`: unknown value `{}`", shorten(literal));
            Some((message, Some(format!("expected {}", check::one_of(values)))))
        }
        ParamForm::OneOf(_) => None,
    }
}

fn warn_of_clear_text(
    decoder: &mut Decoder<'_>,
    spec: &ParamSpec,
    connector: Connector,
    template: &Template,
    node: &Node,
    subject: &str,
) {
    if spec.secret && template.literal().is_some_and(|text| !text.trim().is_empty()) {
        let written = spec.written(connector);
        let message = format!("{subject}: param `{written}` holds a secret in clear");
        let help = format!("write `{written}: ${{secrets:NAME}}` and set NAME in the environment or `.env`");
        decoder.warnings.push(Diagnostic::new("ClearTextSecret", message).at(node.at).help(help));
    }
}
