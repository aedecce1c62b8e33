//! `runtime.task_history` and `runtime.telemetry`: what is remembered of tasks, and where telemetry is sent.

use super::api_keys::value_problem;
use super::decode::{Decoder, parsed, text};
use super::references::read_template;
use super::template::Template;
use super::text::shorten;
use super::yaml::Node;
use super::{Diagnostic, Duration, Span};

/// `runtime.task_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskHistory {
    pub enabled: bool,
    /// `captured_output: truncated`: the first rows of answers.
    pub captures_output: bool,
    pub retention_period: Option<Duration>,
    pub retention_check_interval: Option<Duration>,
    pub min_sql_duration: Option<Duration>,
}

/// `runtime.telemetry`.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Off, nothing is sent, whatever the environment says.
    pub enabled: bool,
    /// What is said of this process to collectors.
    pub properties: Vec<(String, String)>,
    pub exporter: Option<OtelExporter>,
}

/// `runtime.telemetry.otel_exporter`.
#[derive(Debug, Clone)]
pub struct OtelExporter {
    pub enabled: bool,
    /// `http://host:port` or `https://host:port`; of the environment when absent.
    pub endpoint: Option<String>,
    pub protocol: Option<OtelProtocol>,
    pub push_interval: Option<Duration>,
    /// Names of the metrics that are pushed; all when empty.
    pub metrics: Vec<String>,
    pub headers: Vec<OtelHeader>,
    pub at: Span,
}

/// A header of each request to a collector.
#[derive(Debug, Clone)]
pub struct OtelHeader {
    pub name: String,
    pub value: Template,
    pub at: Span,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtelProtocol {
    Grpc,
    Http,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

impl Default for TaskHistory {
    fn default() -> Self {
        Self {
            enabled: true,
            captures_output: false,
            retention_period: None,
            retention_check_interval: None,
            min_sql_duration: None,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { enabled: true, properties: Vec::new(), exporter: None }
    }
}

impl OtelProtocol {
    /// As spicepods and `OTEL_EXPORTER_OTLP_PROTOCOL` write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "grpc" => Some(Self::Grpc),
            "http" | "http/protobuf" => Some(Self::Http),
            _ => None,
        }
    }
}

impl LogFormat {
    /// As spicepods and `SIDEWING_LOG_FORMAT` write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

pub(super) fn read_task_history(runtime: Option<&Node>) -> TaskHistory {
    let section = runtime.and_then(|runtime| runtime.get("task_history"));
    TaskHistory {
        enabled: section.is_none_or(is_on),
        captures_output: section.and_then(|node| node.get("captured_output")?.text()) == Some("truncated"),
        retention_period: parsed(section, "retention_period"),
        retention_check_interval: parsed(section, "retention_check_interval"),
        min_sql_duration: parsed(section, "min_sql_duration"),
    }
}

pub(super) fn read_telemetry(decoder: &mut Decoder<'_>, runtime: Option<&Node>) -> Telemetry {
    let Some(section) = runtime.and_then(|runtime| runtime.get("telemetry")) else {
        return Telemetry::default();
    };
    let properties = section.get("properties").map_or(&[][..], Node::entries);
    let properties =
        properties.iter().filter_map(|(key, node)| Some((key.name.clone(), node.text()?.to_owned())));
    let enabled = is_on(section);
    // What is switched off is checked by form only.
    let exporter = section.get("otel_exporter").filter(|node| enabled && is_on(node));
    let exporter = exporter.map(|node| read_exporter(decoder, node));
    Telemetry { enabled, properties: properties.collect(), exporter }
}

fn read_exporter(decoder: &mut Decoder<'_>, node: &Node) -> OtelExporter {
    let endpoint = text(node, "endpoint");
    if let (Some(endpoint), Some(at)) = (&endpoint, node.get("endpoint").map(|node| node.at))
        && !is_endpoint(endpoint)
    {
        let message =
            format!("`runtime.telemetry.otel_exporter.endpoint`: `{}` is no endpoint", shorten(endpoint));
        let help = "expected one such as `http://localhost:4317` or `https://collector.example.com:4317`";
        decoder.problem(Diagnostic::new("InvalidValue", message).at(at).help(help));
    }
    let metrics = node.get("metrics").map_or(&[][..], Node::items);
    let headers = node.get("headers").map_or(&[][..], Node::entries);
    OtelExporter {
        enabled: true,
        endpoint,
        protocol: text(node, "protocol").as_deref().and_then(OtelProtocol::parse),
        push_interval: parsed(Some(node), "push_interval"),
        metrics: metrics.iter().filter_map(Node::text).map(str::to_owned).collect(),
        headers: headers.iter().filter_map(|(key, node)| read_header(decoder, &key.name, node)).collect(),
        at: node.at,
    }
}

fn read_header(decoder: &mut Decoder<'_>, name: &str, node: &Node) -> Option<OtelHeader> {
    let full = format!("runtime.telemetry.otel_exporter.headers.{}", shorten(name));
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = format!("`{full}` cannot be the name of a header");
        decoder.problem(Diagnostic::new("InvalidName", message).at(node.at));
        return None;
    }
    match read_template(&format!("`{full}`"), node, node.text()?, &decoder.stores) {
        Ok(value) => Some(OtelHeader { name: name.to_owned(), value, at: node.at }),
        Err(error) => {
            decoder.problem(value_problem(error));
            None
        }
    }
}

fn is_on(section: &Node) -> bool {
    section.get("enabled").and_then(Node::as_bool).unwrap_or(true)
}

/// Scheme, host and perhaps a port and a path; nothing that could hold credentials.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty()
            && !rest.contains(['@', '?', '#'])
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}
