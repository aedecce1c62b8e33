//! The checked tree to types: names, origins, params, templates, and what must agree across items.
//!
//! Form was judged by the checker: a value of the wrong form is left out here without a second word.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::name::DatasetName;

use super::acceleration::{
    Beside, read_acceleration, read_access, read_ready_state, read_schema_change, read_time_column,
};
use super::api_keys::read_api_keys;
use super::check::subject;
use super::dataset_params::params;
use super::results_cache::read_results_cache;
use super::secret_stores::read_secret_stores;
use super::telemetry::{LogFormat, read_task_history, read_telemetry};
use super::text::list;
use super::tls::read_tls;
use super::types::{
    Dataset, LogLevel, Origin, QueryMemory, Runtime, Spicepod, SpillCompression, TempDirectory, View,
};
use super::web::{read_cors, read_mcp};
use super::yaml::{Node, Value};
use super::{Diagnostic, SourceFile, Span, origin, parse_bind_address, view_sql};

/// Schemas whose tables are this process's.
const OWN_SCHEMAS: &[&str] = &["runtime", "information_schema"];

/// Reads everything that sidewing acts on out of the tree.
pub(super) fn decode(root: &Node, source: Arc<SourceFile>, problems: &mut Vec<Diagnostic>) -> Spicepod {
    let directory = source.path.parent().unwrap_or(Path::new("")).to_owned();
    let mut decoder = Decoder { problems, warnings: Vec::new(), names: HashMap::new(), stores: Vec::new() };
    let mut secrets = read_secret_stores(&mut decoder, root);
    secrets.reverse();
    let datasets = decoder.datasets(root);
    let views = decoder.views(root, &directory);
    let runtime = decoder.runtime(root.get("runtime"));
    Spicepod {
        name: root.get("name").and_then(Node::text).unwrap_or_default().to_owned(),
        version: root.get("version").and_then(Node::text).unwrap_or_default().to_owned(),
        runtime,
        secrets,
        datasets,
        views,
        warnings: decoder.warnings,
        source,
    }
}

/// What is known while items are read.
pub(super) struct Decoder<'a> {
    pub(super) problems: &'a mut Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    /// Names of secret stores, in the order of the file.
    pub(super) stores: Vec<String>,
    /// Datasets and views by name, with where they were named first.
    names: HashMap<DatasetName, (String, Span)>,
}

impl Decoder<'_> {
    pub(super) fn problem(&mut self, problem: Diagnostic) {
        if self.problems.len() < super::check::PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    /// Whether any store has a param of that name; else the checker has said so.
    pub(super) fn is_store_param(&self, name: &str) -> bool {
        super::fields::SECRET_STORE_PARAMS.iter().any(|field| field.name == name)
    }

    /// The sections that have something to say of themselves, and the rest.
    fn runtime(&mut self, node: Option<&Node>) -> Runtime {
        Runtime {
            api_keys: read_api_keys(self, node),
            tls: read_tls(self, node, "runtime"),
            metrics_tls: read_tls(self, node.and_then(|node| node.get("metrics")), "runtime.metrics"),
            cors: read_cors(self, node),
            mcp: read_mcp(self, node),
            results_cache: read_results_cache(self, node),
            telemetry: read_telemetry(self, node),
            ..runtime(node)
        }
    }

    fn datasets(&mut self, root: &Node) -> Vec<Dataset> {
        let mut datasets = Vec::new();
        for (index, item) in items(root, "datasets").enumerate() {
            let subject = subject("datasets", item, index);
            let name = self.name(item, &subject);
            let from = self.origin(item, &subject);
            let params = match (&from, item.get("params")) {
                (Some(from), Some(node)) => params(self, node, from.connector, &subject),
                _ => BTreeMap::new(),
            };
            let beside = Beside { connector: from.as_ref().map(|from| from.connector), params: &params };
            let acceleration = read_acceleration(self, item, &beside, &subject);
            if let (Some(name), Some(from)) = (name, from) {
                datasets.push(Dataset {
                    name,
                    from,
                    description: text(item, "description"),
                    metadata: metadata(item),
                    params,
                    access: read_access(item),
                    time_column: read_time_column(item),
                    acceleration,
                    ready_state: read_ready_state(item),
                    on_schema_change: read_schema_change(item),
                    at: item.at,
                });
            }
        }
        datasets
    }

    fn origin(&mut self, item: &Node, subject: &str) -> Option<Origin> {
        let node = item.get("from")?;
        let text = node.text()?;
        match origin::parse(text) {
            Ok(parsed) => Some(Origin {
                connector: parsed.connector,
                path: parsed.path,
                text: text.to_owned(),
                at: node.at,
            }),
            Err(error) => {
                let message = format!("{subject}: {}", error.message);
                self.problem(Diagnostic::new("InvalidFrom", message).at(node.at).help(error.help));
                None
            }
        }
    }

    fn views(&mut self, root: &Node, directory: &Path) -> Vec<View> {
        let mut views = Vec::new();
        for (index, item) in items(root, "views").enumerate() {
            let subject = subject("views", item, index);
            let name = self.name(item, &subject);
            let sql = view_sql::read(item, directory, &subject).map_err(|problem| self.problem(*problem));
            if let (Some(name), Ok(Some(sql))) = (name, sql) {
                let (description, metadata) = (text(item, "description"), metadata(item));
                let file = item.get("sql_ref").and_then(Node::text).map(|path| directory.join(path));
                views.push(View { name, description, metadata, sql, file, at: item.at });
            }
        }
        views
    }

    /// The checked name of a dataset or view, which no other one has.
    fn name(&mut self, item: &Node, subject: &str) -> Option<DatasetName> {
        let node = item.get("name")?;
        // A name that is no text was refused by the checker.
        let text = node.text().filter(|_| node.kind() == "text")?;
        let name = match DatasetName::from_str(text) {
            Ok(name) => name,
            Err(error) => {
                self.problem(Diagnostic::new("InvalidName", format!("{subject}: {error}")).at(node.at));
                return None;
            }
        };
        if let Some(schema) = name.schema().filter(|schema| OWN_SCHEMAS.contains(schema)) {
            let message = format!("{subject}: the schema `{schema}` is sidewing's own");
            let help =
                "name it otherwise: that schema holds tables of this process, such as runtime.task_history";
            self.problem(Diagnostic::new("InvalidName", message).at(node.at).help(help));
            return None;
        }
        if let Some((first, at)) = self.names.get(&name) {
            let message = format!("{subject}: the name `{name}` is taken by {first} on line {}", at.line);
            self.problem(Diagnostic::new("DuplicateName", message).at(node.at));
            return None;
        }
        self.names.insert(name.clone(), (subject.to_owned(), node.at));
        Some(name)
    }
}

/// The elements of a top-level list that are mappings.
fn items<'a>(root: &'a Node, section: &str) -> impl Iterator<Item = &'a Node> {
    let items = root.get(section).map_or(&[][..], Node::items);
    items.iter().filter(|item| matches!(item.value, Value::Map(_)))
}

pub(super) fn text(node: &Node, field: &str) -> Option<String> {
    node.get(field).and_then(Node::text).map(str::to_owned)
}

/// A field's text, parsed; absent when it is not of that form.
pub(super) fn parsed<T: FromStr>(node: Option<&Node>, field: &str) -> Option<T> {
    node?.get(field)?.text()?.parse().ok()
}

fn runtime(node: Option<&Node>) -> Runtime {
    let section = |name: &str| node.and_then(|node| node.get(name));
    let bind = |name: &str| section(name).and_then(|node| node.get("bind_address")?.text());
    let query = section("query");
    let level = section("output_level").and_then(Node::text);
    Runtime {
        http_bind: bind("http").and_then(|text| text.parse().ok()),
        flight_bind: bind("flight").and_then(|text| text.parse().ok()),
        metrics_bind: bind("metrics").and_then(|text| parse_bind_address(text).ok()),
        max_message_size: parsed(section("flight"), "max_message_size"),
        query_timeout: parsed(query, "timeout"),
        target_partitions: parsed(query, "target_partitions"),
        memory: query_memory(query),
        max_concurrent_queries: parsed(query, "max_concurrent_queries"),
        query_queue_max: parsed(section("params"), "query_queue_max"),
        query_queue_timeout: parsed(section("params"), "query_queue_timeout"),
        query_client_timeout: parsed(section("params"), "query_client_timeout"),
        upstream_max_concurrent: parsed(section("params"), "upstream_max_concurrent_requests"),
        upstream_establishment_timeout: parsed(section("params"), "upstream_establishment_timeout"),
        upstream_name_server: section("params")
            .and_then(|params| parse_bind_address(params.get("upstream_name_server")?.text()?).ok()),
        push_down: section("params").and_then(|params| params.get("push_down")?.as_on_off()),
        data_dir: section("params").and_then(|params| text(params, "data_dir")).map(PathBuf::from),
        dataset_load_parallelism: parsed(node, "dataset_load_parallelism"),
        shutdown_timeout: parsed(node, "shutdown_timeout"),
        output_level: level.and_then(|level| match level {
            "info" => Some(LogLevel::Info),
            "verbose" => Some(LogLevel::Verbose),
            "very_verbose" => Some(LogLevel::VeryVerbose),
            _ => None,
        }),
        log_format: section("params")
            .and_then(|params| params.get("log_format")?.text())
            .and_then(LogFormat::parse),
        task_history: read_task_history(node),
        // Read by themselves: see [`Decoder::runtime`].
        ..Runtime::default()
    }
}

fn query_memory(node: Option<&Node>) -> QueryMemory {
    let field = |name: &str| node.and_then(|node| node.get(name));
    let directory = |node: &Node| Some(TempDirectory { path: node.text()?.into(), at: node.at });
    QueryMemory {
        limit: parsed(node, "memory_limit"),
        temp_directory: field("temp_directory").and_then(directory),
        spill_compression: field("spill_compression").and_then(Node::text).and_then(|name| match name {
            "zstd" => Some(SpillCompression::Zstd),
            "lz4_frame" => Some(SpillCompression::Lz4Frame),
            "uncompressed" => Some(SpillCompression::Uncompressed),
            _ => None,
        }),
    }
}

/// Notes by key; what is not text is kept as JSON.
fn metadata(item: &Node) -> BTreeMap<String, String> {
    let entries = item.get("metadata").map_or(&[][..], Node::entries);
    let shown = |node: &Node| match &node.value {
        Value::Scalar { text, .. } => text.clone(),
        _ => json(node).to_string(),
    };
    entries.iter().map(|(key, node)| (key.name.clone(), shown(node))).collect()
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => serde_json::Value::Null,
        Value::Scalar { text, plain } => match node.as_bool() {
            Some(value) => value.into(),
            None if *plain => text.parse::<i64>().map_or_else(|_| text.as_str().into(), Into::into),
            None => text.as_str().into(),
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => serde_json::Value::Object(
            entries.iter().map(|(key, node)| (key.name.clone(), json(node))).collect(),
        ),
    }
}

/// The stores that a reference may name, for help.
pub(super) fn known_stores(stores: &[String]) -> String {
    format!("known stores: {}", list(stores.iter().map(String::as_str).chain(["secrets"])))
}
