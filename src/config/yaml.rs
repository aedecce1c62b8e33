//! YAML text to a tree that knows where every node stands.
//!
//! Everything is bounded: the document, its depth, its nodes, and what aliases multiply. Duplicate
//! keys, several documents and foreign tags are problems; nothing here panics or recurses without a
//! limit.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::text::shorten;
use super::{Diagnostic, Span};

/// Levels of nesting; a spicepod needs about eight.
const DEPTH_MAX: usize = 64;

/// Nodes after aliases are expanded, and text in units of [`TEXT_UNIT`].
const COST_MAX: usize = 400_000;

/// Bytes of text that weigh as much as one node.
const TEXT_UNIT: usize = 32;

/// A node and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Span,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `plain` text is not quoted, so that it may mean a number, a boolean or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Span,
}

impl Node {
    /// Whether nothing was written: an absent value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar that is not null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// A plain `true` or `false`.
    pub(super) fn as_bool(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// `on` or `off`, or a boolean in their place; quoted as well.
    pub(super) fn as_on_off(&self) -> Option<bool> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "on" | "true" => Some(true),
            "off" | "false" => Some(false),
            _ => None,
        }
    }

    /// The entry of a mapping, unless it is null.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The entry of a mapping with its key, unless it is null.
    pub(super) fn entry(&self, name: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(key, node)| key.name == name && !node.is_null()).map(|(k, n)| (k, n))
    }

    /// The entry of a mapping with its key, be it null: a section that is there, and empty.
    pub(super) fn section(&self, name: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(key, node)| (key, node))
    }

    /// The entries of a mapping; none for any other node.
    pub(super) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; none for any other node.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// What it is, in the words of a message; never its text, which may be a secret.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } if self.as_bool().is_some() => "true or false",
            Value::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { .. } => "text",
        }
    }

    /// Levels below it.
    fn height(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(|node| 1 + node.height()).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|(_, node)| 1 + node.height()).max().unwrap_or(0),
        }
    }

    /// What it weighs against [`COST_MAX`].
    fn cost(&self) -> usize {
        match &self.value {
            Value::Scalar { text, .. } => 1 + text.len() / TEXT_UNIT,
            Value::List(items) => 1 + items.iter().map(Node::cost).sum::<usize>(),
            Value::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|(key, node)| 1 + key.name.len() / TEXT_UNIT + node.cost())
                    .sum::<usize>()
            }
        }
    }
}

/// Reads one document. The tree is absent when the text is not YAML or holds nothing; problems that
/// leave a tree (duplicate keys, tags) are pushed and reading goes on.
pub(super) fn read(text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut reader = Reader {
        parser: Parser::new(StrInput::new(text)),
        anchors: HashMap::new(),
        cost: 0,
        problems,
        previous: Span { line: 1, column: 1, len: 1 },
    };
    match reader.document() {
        Ok(root) => root,
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

/// A problem after which the rest of the text has no meaning.
type Fatal = Box<Diagnostic>;

struct Reader<'a, 'p> {
    parser: Parser<'a, StrInput<'a>>,
    /// Complete anchored nodes by anchor id.
    anchors: HashMap<usize, Node>,
    cost: usize,
    problems: &'p mut Vec<Diagnostic>,
    previous: Span,
}

impl<'a> Reader<'a, '_> {
    fn document(&mut self) -> Result<Option<Node>, Fatal> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(fatal("YAML", "a spicepod is one document, but a second begins here", at));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                other => root = Some(self.node(other, at, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let at = place(span);
                self.previous = at;
                Ok((event, at))
            }
            Some(Err(error)) => {
                let marker = error.marker();
                let at = Span { line: marker.line().max(1), column: marker.col() + 1, len: 1 };
                let mut problem = fatal("YAML", &format!("not valid YAML: {}", shorten(error.info())), at);
                if error.info().contains("tab") {
                    problem.help = Some("indent with spaces: YAML does not take tabs there".to_owned());
                }
                Err(problem)
            }
            None => Err(fatal("YAML", "not valid YAML: the document ends too early", self.previous)),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Span, depth: usize) -> Result<Node, Fatal> {
        if depth > DEPTH_MAX {
            return Err(fatal("YAML", &format!("nested deeper than {DEPTH_MAX} levels"), at));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain) && !self.is_text(tag, at);
                (Node { value: Value::Scalar { text: text.into_owned(), plain }, at }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag, at);
                (Node { value: Value::List(self.list(depth)?), at }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag, at);
                (Node { value: Value::Map(self.map(depth)?), at }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| fatal("YAML", "an alias inside its own anchor", at))?;
                if depth + node.height() > DEPTH_MAX {
                    return Err(fatal("YAML", &format!("nested deeper than {DEPTH_MAX} levels"), at));
                }
                self.charge(node.cost(), at)?;
                (node, 0)
            }
            _ => return Err(fatal("YAML", "not valid YAML: the document ends too early", at)),
        };
        let shell = match &node.value {
            Value::Scalar { .. } => node.cost(),
            Value::List(_) | Value::Map(_) => 1,
        };
        self.charge(shell, at)?;
        if anchor != 0 {
            self.charge(node.cost(), at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fatal> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::SequenceEnd => return Ok(items),
                other => items.push(self.node(other, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fatal> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let key = self.node(event, at, depth + 1)?;
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            let Value::Scalar { text: name, .. } = key.value else {
                self.problems.push(problem("YAML", "a key must be text".to_owned(), at));
                continue;
            };
            match lines.get(&name) {
                Some(line) => {
                    let name = shorten(&name);
                    let message = format!("duplicate key `{name}`: it was written first on line {line}");
                    self.problems.push(problem("DuplicateKey", message, at));
                }
                None => {
                    lines.insert(name.clone(), at.line);
                    entries.push((Key { name, at: key.at }, value));
                }
            }
        }
    }

    /// Whether a tag says that a plain scalar is text; any other tag is a problem.
    fn is_text(&mut self, tag: Option<Cow<'_, Tag>>, at: Span) -> bool {
        match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
            other => {
                self.refuse_tag(other, at);
                false
            }
        }
    }

    fn refuse_tag(&mut self, tag: Option<Cow<'_, Tag>>, at: Span) {
        if let Some(tag) = tag {
            let message =
                format!("the YAML tag `{}` has no meaning in a spicepod", shorten(&tag.to_string()));
            self.problems.push(problem("YAML", message, at));
        }
    }

    fn charge(&mut self, cost: usize, at: Span) -> Result<(), Fatal> {
        self.cost += cost;
        match self.cost > COST_MAX {
            true => Err(fatal("YAML", "too large once aliases are expanded", at)),
            false => Ok(()),
        }
    }
}

fn problem(code: &'static str, message: String, at: Span) -> Diagnostic {
    Diagnostic { code: Some(code), message, at: Some(at), help: None }
}

fn fatal(code: &'static str, message: &str, at: Span) -> Fatal {
    Box::new(problem(code, message.to_owned(), at))
}

/// The parser's span in ours; one that runs over several lines is cut to its first character.
fn place(span: saphyr_parser::Span) -> Span {
    let (start, end) = (span.start, span.end);
    let len = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Span { line: start.line().max(1), column: start.col() + 1, len: len.max(1) }
}
