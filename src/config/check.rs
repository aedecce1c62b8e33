//! The tree of a spicepod against the table of fields: unknown, not supported, wrong type.
//!
//! Only form is judged here; what the values mean is the decoder's. One fault gives one problem.

use super::schema::{Field, Kind, Support, Zero};
use super::text::{list, nearest, shorten};
use super::yaml::{Key, Node, Value};
use super::{BindAddress, ByteSize, Diagnostic, Duration, Span, parse_bind_address, parse_cron};

/// Problems that are collected; a file with more is not a spicepod.
pub(super) const PROBLEMS_MAX: usize = 1_000;

/// Where the checker is.
#[derive(Clone)]
struct Place {
    /// "dataset `orders`", for the beginning of a message.
    subject: Option<String>,
    /// `acceleration.` or nothing: path of the mapping inside its subject.
    path: String,
    /// Inside a section that is refused or switched off: only form is checked.
    form_only: bool,
}

impl Place {
    fn child(&self, name: &str) -> Self {
        Self { path: format!("{}{name}.", self.path), ..self.clone() }
    }

    /// The field's full name.
    fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    fn quietly(mut self) -> Self {
        self.form_only = true;
        self
    }
}

/// Checks a whole document against its table.
pub(super) fn check(root: &Node, table: &'static [Field], problems: &mut Vec<Diagnostic>) {
    let place = Place { subject: None, path: String::new(), form_only: false };
    Checker { problems }.fields(root, table, &place);
}

struct Checker<'a> {
    problems: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn push(&mut self, code: &'static str, place: &Place, message: &str, at: Span, help: Option<String>) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let message = match &place.subject {
            Some(subject) => format!("{subject}: {message}"),
            None => message.to_owned(),
        };
        self.problems.push(Diagnostic { code: Some(code), message, at: Some(at), help });
    }

    fn fields(&mut self, node: &Node, table: &'static [Field], place: &Place) {
        if node.is_null() {
            return;
        }
        let Value::Map(entries) = &node.value else {
            let names = list(table.iter().take(3).map(|field| field.name));
            let section = match place.path.strip_suffix('.') {
                Some(path) => format!("`{path}`"),
                None => "this".to_owned(),
            };
            let message =
                format!("{section} must be a mapping with fields such as {names}; found {}", node.kind());
            return self.push("InvalidType", place, &message, node.at, None);
        };
        for (key, value) in entries {
            match table.iter().find(|field| field.name == key.name) {
                Some(field) => self.field(key, value, field, place),
                None => self.unknown(key, table, place),
            }
        }
        let by_reference = node.get("ref").is_some() && table.iter().any(|field| field.name == "ref");
        for field in table.iter().filter(|field| field.required && !by_reference) {
            if node.get(field.name).is_none() {
                let message = format!("required field `{}` is missing", place.name(field.name));
                self.push("MissingField", place, &message, node.at, Some(field.doc.to_owned()));
            }
        }
        self.exclusive(node, place);
    }

    /// Known fields, and others: those are refused by name, unless they are a known one misspelt.
    fn open_fields(&mut self, node: &Node, table: &'static [Field], other: &'static Kind, place: &Place) {
        let Value::Map(entries) = &node.value else {
            return self.fields(node, table, place);
        };
        for (key, value) in entries {
            match table.iter().find(|field| field.name == key.name) {
                Some(field) => self.field(key, value, field, place),
                None if nearest(&key.name, table.iter().map(|field| field.name)).is_some() => {
                    self.unknown(key, table, place);
                }
                None => self.open_field(key, value, other, place),
            }
        }
    }

    fn open_field(&mut self, key: &Key, value: &Node, kind: &'static Kind, place: &Place) {
        let name = shorten(&key.name);
        if !is_empty(value) && !place.form_only {
            let message = format!("not supported yet: `{}`", place.name(&name));
            let help = "remove it: sidewing does not act on it yet".to_owned();
            self.push("NotSupportedYet", place, &message, key.at, Some(help));
        }
        self.kind(value, kind, &place.child(&name).quietly());
    }

    /// Pairs of fields of which one may be written.
    fn exclusive(&mut self, node: &Node, place: &Place) {
        let pair = (node.entry("refresh_check_interval"), node.entry("refresh_cron"));
        if let (Some(_), Some((cron, _))) = pair {
            let message = "`refresh_check_interval` and `refresh_cron` exclude each other";
            self.push("InvalidValue", place, message, cron.at, Some("keep one of them".to_owned()));
        }
    }

    fn unknown(&mut self, key: &Key, table: &'static [Field], place: &Place) {
        let name = shorten(&key.name);
        let known = || table.iter().filter(|field| !matches!(field.support, Support::Renamed(_)));
        let near = nearest(&key.name, known().map(|field| field.name));
        let message = match near {
            Some(near) => format!("unknown field `{}`, did you mean `{near}`?", place.name(&name)),
            None => format!("unknown field `{}`", place.name(&name)),
        };
        let help = match (near, key.name.as_str()) {
            (Some(_), _) => None,
            (None, "<<") => Some("YAML merge keys are not read: write the fields out".to_owned()),
            (None, _) => Some(format!("known here: {}", list(known().map(|field| field.name)))),
        };
        self.push("UnknownField", place, &message, key.at, help);
    }

    fn field(&mut self, key: &Key, node: &Node, field: &'static Field, place: &Place) {
        let here = place.child(field.name);
        match field.support {
            Support::Renamed(today) => {
                let message = format!("`{}` is called `{}` now", place.name(field.name), place.name(today));
                self.push("RenamedField", place, &message, key.at, Some(format!("write `{today}` instead")));
            }
            Support::Built => self.kind(node, &field.kind, &here),
            Support::Toggled => {
                let off = node.get("enabled").and_then(Node::as_bool) == Some(false);
                self.kind(node, &field.kind, &if off { here.quietly() } else { here });
            }
            Support::NotYet(off) => {
                let harmless = is_empty(node) || node.text().is_some_and(|text| off.contains(&text));
                if !harmless && !place.form_only {
                    self.not_yet(key, field, place);
                }
                self.kind(node, &field.kind, &here.quietly());
            }
            Support::Switch { default_on } => {
                // An `enabled` that is no boolean gets its own problem, and that one alone.
                let enabled = node.get("enabled").map_or(default_on, |node| node.as_bool().unwrap_or(false));
                // An empty section asks for nothing, whatever its default.
                if enabled && !is_empty(node) && !place.form_only {
                    self.not_yet(key, field, place);
                }
                self.kind(node, &field.kind, &here.quietly());
            }
        }
    }

    fn not_yet(&mut self, key: &Key, field: &Field, place: &Place) {
        let message = format!("not supported yet: `{}`", place.name(field.name));
        let help = match (field.support, field.kind_name()) {
            (Support::Switch { .. }, _) => "remove it, or write `enabled: false` in it".to_owned(),
            (Support::NotYet([]), _) => "remove it: sidewing does not act on it yet".to_owned(),
            (_, off) => format!("remove it, or write {off}"),
        };
        self.push("NotSupportedYet", place, &message, key.at, Some(help));
    }

    fn kind(&mut self, node: &Node, kind: &'static Kind, place: &Place) {
        match kind {
            Kind::Any => {}
            Kind::Fields(table) => self.fields(node, table, place),
            Kind::OpenFields(table, other) => self.open_fields(node, table, other, place),
            Kind::FieldsOrList(table, item) => match &node.value {
                Value::List(items) if !items.is_empty() => self.list_not_yet(node, items, item, place),
                Value::List(_) => {}
                _ => self.fields(node, table, place),
            },
            _ if node.is_null() => {}
            Kind::List(item) => self.items(node, item, place),
            Kind::TextOrList => match &node.value {
                Value::List(_) => self.items(node, &Kind::Text, place),
                _ => self.leaf(node, &Kind::Text, place),
            },
            Kind::MapOf(value) => match &node.value {
                Value::Map(entries) => {
                    for (key, node) in entries {
                        self.kind(node, value, &place.child(&shorten(&key.name)));
                    }
                }
                _ => self.wrong(node, "a mapping", place),
            },
            // Its entries depend on the connector: the decoder checks them.
            Kind::Params => {
                if !matches!(node.value, Value::Map(_)) {
                    self.wrong(node, "a mapping", place);
                }
            }
            leaf => self.leaf(node, leaf, place),
        }
    }

    fn list_not_yet(&mut self, node: &Node, items: &[Node], table: &'static [Field], place: &Place) {
        let name = place.path.trim_end_matches('.').to_owned();
        if !place.form_only {
            let message = format!("not supported yet: `{name}` as a list");
            self.push("NotSupportedYet", place, &message, node.at, None);
        }
        for item in items {
            self.fields(item, table, &place.clone().quietly());
        }
    }

    fn items(&mut self, node: &Node, kind: &'static Kind, place: &Place) {
        let Value::List(items) = &node.value else {
            return self.wrong(node, "a list", place);
        };
        for (index, item) in items.iter().enumerate() {
            let mut here = place.clone();
            if let (None, Kind::Fields(_)) = (&place.subject, kind) {
                here.subject = Some(subject(place.path.trim_end_matches('.'), item, index));
                here.path = String::new();
            }
            if item.is_null() {
                self.push("InvalidType", &here, "an element of the list is empty", item.at, None);
            } else {
                self.kind(item, kind, &here);
            }
        }
    }

    fn wrong(&mut self, node: &Node, expected: &str, place: &Place) {
        let name = place.path.trim_end_matches('.');
        let message = format!("`{name}` must be {expected}; found {}", node.kind());
        self.push("InvalidType", place, &message, node.at, None);
    }

    fn leaf(&mut self, node: &Node, kind: &Kind, place: &Place) {
        let Err(fault) = leaf(node, kind) else { return };
        match fault {
            Fault::NotYet(..) if place.form_only => {}
            Fault::NotYet(value, help) => {
                let name = place.path.trim_end_matches('.');
                let message = format!("not supported yet: `{name}: {value}`");
                self.push("NotSupportedYet", place, &message, node.at, Some(help));
            }
            Fault::Type(expected) => self.wrong(node, expected, place),
            Fault::Value(what, help) => {
                let name = place.path.trim_end_matches('.');
                self.push("InvalidValue", place, &format!("`{name}`: {what}"), node.at, help);
            }
        }
    }
}

impl Field {
    /// The values that ask for nothing, as help text.
    fn kind_name(&self) -> String {
        match self.support {
            Support::NotYet(off) => list(off.iter().copied()),
            _ => String::new(),
        }
    }
}

/// What is wrong with a leaf.
enum Fault {
    /// What it must be.
    Type(&'static str),
    /// A known word that is not built, what to do.
    NotYet(&'static str, String),
    /// What is wrong, what to do.
    Value(String, Option<String>),
}

fn leaf(node: &Node, kind: &Kind) -> Result<(), Fault> {
    let Value::Scalar { text, plain } = &node.value else {
        return Err(Fault::Type(expected(kind)));
    };
    let value = |error: String| Fault::Value(error, None);
    let zero = |zero: Zero, is_zero: bool| match zero == Zero::Refused && is_zero {
        true => Err(Fault::Value(
            "must be more than zero".to_owned(),
            Some("leave it out for the default".to_owned()),
        )),
        false => Ok(()),
    };
    match kind {
        Kind::Text if *plain && node.kind() != "text" => Err(Fault::Type("text, in quotes")),
        Kind::Bool if node.as_bool().is_none() => Err(Fault::Type(expected(kind))),
        Kind::OnOff if node.as_on_off().is_none() => Err(not_one_of(text, &["off", "on"])),
        Kind::Int(least) => match text.parse::<u64>() {
            Ok(number) if *plain && number >= *least && usize::try_from(number).is_ok() => Ok(()),
            Ok(_) if *plain => Err(value(format!("must be at least {least}"))),
            _ => Err(Fault::Type("a whole number")),
        },
        Kind::Number => match text.parse::<f64>() {
            Ok(number) if *plain && number.is_finite() && number >= 0.0 => Ok(()),
            _ => Err(Fault::Type("a number")),
        },
        Kind::Duration(when) => {
            let parsed = text.parse::<Duration>().map_err(|error| value(error.to_string()))?;
            zero(*when, parsed.is_zero())
        }
        Kind::Size(when) => {
            let parsed = text.parse::<ByteSize>().map_err(|error| value(error.to_string()))?;
            zero(*when, parsed.bytes() == 0)
        }
        Kind::Choice { built, not_yet, instead } => match not_yet.iter().find(|value| *value == text) {
            Some(value) => Err(Fault::NotYet(value, format!("write {}; {instead}", one_of(built)))),
            None if built.contains(&text.as_str()) => Ok(()),
            None => Err(not_one_of(text, built)),
        },
        Kind::OneOf(values) if !values.contains(&text.as_str()) => Err(not_one_of(text, values)),
        Kind::Bind => parse_bind_address(text).map(|_| ()).map_err(|error| value(error.to_string())),
        Kind::BindOrSocket => {
            text.parse::<BindAddress>().map(|_| ()).map_err(|error| value(error.to_string()))
        }
        Kind::Cron => parse_cron(text).map(|_| ()).map_err(|error| value(error.to_string())),
        _ => Ok(()),
    }
}

fn not_one_of(text: &str, values: &[&'static str]) -> Fault {
    let what = match nearest(text, values.iter().copied()) {
        Some(near) => format!("unknown value `{}`, did you mean `{near}`?", shorten(text)),
        None => format!("unknown value `{}`", shorten(text)),
    };
    Fault::Value(what, Some(format!("expected {}", one_of(values))))
}

/// `a` or `b`, for what would have been right.
pub(super) fn one_of(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "`true` or `false`",
        Kind::OnOff => "`on` or `off`",
        Kind::Int(_) => "a whole number",
        Kind::Number => "a number",
        Kind::Duration(_) => "a duration such as `30s`",
        Kind::Size(_) => "a size such as `4MB`",
        Kind::Bind | Kind::BindOrSocket => "an address such as `127.0.0.1:8090`",
        Kind::Scalar => "text, a number or a boolean",
        Kind::Cron => "a cron line",
        _ => "text",
    }
}

/// Whether a node says nothing: null, an empty list or an empty mapping.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Scalar { .. } => node.is_null(),
    }
}

/// How messages name an item of a top-level list.
pub(super) fn subject(section: &str, item: &Node, index: usize) -> String {
    let kind = match section {
        "secrets" => "secret store",
        other => other.strip_suffix('s').unwrap_or(other),
    };
    match item.get("name").and_then(Node::text) {
        Some(name) => format!("{kind} `{}`", shorten(name)),
        None => format!("{section}[{index}]"),
    }
}
