//! What the fields of one dataset must agree in.
//!
//! A field that would do nothing beside the others is a problem like a wrong one: nobody should believe that it works.
//! A part that is switched off in so many words (`enabled: false`) may keep its settings.

use super::super::decode::Decoder;
use super::super::yaml::Node;
use super::super::{Diagnostic, Duration};
use super::columns::columns;
use super::read::{Beside, flag, is_stream, parsed, same};

/// Fields that only a refresh makes use of.
const OF_REFRESH: &[&str] =
    &["refresh_check_interval", "refresh_cron", "refresh_data_window", "refresh_append_overlap"];

pub(super) const OF_RETENTION: &[&str] = &["retention_period", "retention_sql", "retention_check_interval"];

/// Collects every contradiction between the fields of a dataset.
pub(super) fn check(decoder: &mut Decoder<'_>, item: &Node, beside: &Beside<'_>, subject: &str) {
    let mut judge = Judge { decoder, item, subject };
    judge.beside_acceleration();
    judge.acceptable_lag(beside);
    let Some(node) = item.get("acceleration") else { return };
    match is_stream(item, node) {
        true => judge.stream(node, beside),
        false => {
            judge.refresh(node);
            judge.retention(node);
        }
    }
    judge.jitter(node);
    judge.params(node);
    judge.conflicts(node);
    for field in ["refresh_sql", "retention_sql"] {
        judge.not_empty(node, field, "acceleration.");
    }
}

/// One dataset on trial.
pub(super) struct Judge<'a, 'b> {
    pub decoder: &'a mut Decoder<'b>,
    pub item: &'a Node,
    pub subject: &'a str,
}

impl Judge<'_, '_> {
    /// A problem at the key of `field`, where that is written.
    pub fn against(&mut self, node: &Node, field: &str, what: &str, help: &str) {
        if let Some((key, _)) = node.entry(field) {
            let message = format!("{}: {what}", self.subject);
            self.decoder.problem(Diagnostic::new("InvalidValue", message).at(key.at).help(help));
        }
    }

    fn has_time_column(&self) -> bool {
        self.item.get("time_column").is_some()
    }

    fn needs_time_column(&mut self, node: &Node, field: &str) {
        if !self.has_time_column() {
            let what = format!("`acceleration.{field}` needs `time_column`");
            let help =
                "name the column that tells the age of a row: `time_column: created_at` of the dataset";
            self.against(node, field, &what, help);
        }
    }

    /// Fields of the dataset that say something about its acceleration or its time.
    fn beside_acceleration(&mut self) {
        let item = self.item;
        if !self.has_time_column() {
            let what = "`time_format` needs `time_column`";
            self.against(item, "time_format", what, "name the column, or remove `time_format`");
        }
        self.not_empty(item, "time_column", "");
        if item.get("acceleration").is_some() {
            return;
        }
        for (field, default) in [("ready_state", "on_load"), ("on_schema_change", "block")] {
            if item.get(field).and_then(Node::text) != Some(default) {
                let what = format!("`{field}` is about accelerated datasets, and this one is not");
                self.against(item, field, &what, "add `acceleration`, or remove it");
            }
        }
    }

    /// `path` stands before the field's name in the message.
    fn not_empty(&mut self, node: &Node, field: &str, path: &str) {
        if node.get(field).and_then(Node::text).is_some_and(|text| text.trim().is_empty()) {
            self.against(node, field, &format!("`{path}{field}` is empty"), "write it out, or remove it");
        }
    }

    fn refresh(&mut self, node: &Node) {
        let mode = node.get("refresh_mode").and_then(Node::text).unwrap_or("full");
        if mode == "full" {
            let what = "`acceleration.refresh_append_overlap` does nothing without `refresh_mode: append`";
            self.against(node, "refresh_append_overlap", what, "remove it, or append");
        }
        if mode == "disabled" {
            for field in OF_REFRESH {
                let what = format!("`acceleration.{field}` does nothing with `refresh_mode: disabled`");
                self.against(node, field, &what, "remove it, or choose another `refresh_mode`");
            }
        }
        self.needs_time_column(node, "refresh_data_window");
        if is_zero(node, "refresh_check_interval") {
            let message =
                format!("{}: `acceleration.refresh_check_interval`: must be more than zero", self.subject);
            let at = node.get("refresh_check_interval").map_or(node.at, |value| value.at);
            let help = "leave it out for the default";
            self.decoder.problem(Diagnostic::new("InvalidValue", message).at(at).help(help));
        }
    }

    fn jitter(&mut self, node: &Node) {
        let max = node.get("refresh_jitter_max").is_some();
        let has_interval = node.get("refresh_check_interval").is_some() || is_stream(self.item, node);
        match flag(node, "refresh_jitter_enabled") {
            None if node.get("refresh_jitter_enabled").is_none() => {
                let what =
                    "`acceleration.refresh_jitter_max` does nothing without `refresh_jitter_enabled: true`";
                self.against(node, "refresh_jitter_max", what, "add it, or remove `refresh_jitter_max`");
            }
            Some(true) if !max && !has_interval => {
                let what = "`acceleration.refresh_jitter_enabled` needs `refresh_jitter_max` where there is no \
                            `refresh_check_interval`";
                let help = "say how far a refresh may be moved: `refresh_jitter_max: 30s`";
                self.against(node, "refresh_jitter_enabled", what, help);
            }
            _ => {}
        }
    }

    fn retention(&mut self, node: &Node) {
        self.needs_time_column(node, "retention_period");
        match flag(node, "retention_check_enabled") {
            None if node.get("retention_check_enabled").is_none() => {
                for field in OF_RETENTION {
                    let what = format!(
                        "`acceleration.{field}` does nothing without `retention_check_enabled: true`"
                    );
                    self.against(node, field, &what, "add it, or remove this");
                }
            }
            Some(true) => {
                let enabled = "retention_check_enabled";
                if node.get("retention_period").is_none() && node.get("retention_sql").is_none() {
                    let what =
                        "`acceleration.retention_check_enabled` needs `retention_period` or `retention_sql`";
                    self.against(node, enabled, what, "say which rows are removed");
                }
                if node.get("retention_check_interval").is_none() {
                    let what = "`acceleration.retention_check_enabled` needs `retention_check_interval`";
                    self.against(node, enabled, what, "say how often: `retention_check_interval: 1h`");
                }
            }
            _ => {}
        }
    }

    fn params(&mut self, node: &Node) {
        let Some(params) = node.get("params") else { return };
        let mode = node.get("mode").and_then(Node::text).unwrap_or("memory");
        let streamed = flag(params, "resident") == Some(false);
        self.not_empty(params, "file_path", "acceleration.params.");
        if mode == "memory" {
            let what = "`acceleration.params.file_path` needs `mode: file`";
            self.against(params, "file_path", what, "add `mode: file`, or remove it");
        }
        if mode == "memory" && streamed {
            let what = "`acceleration.params.resident: false` needs `mode: file`";
            self.against(
                params,
                "resident",
                what,
                "add `mode: file`: without files the rows are in memory alone",
            );
        }
        if streamed && flag(node, "enabled") != Some(false) {
            for field in ["primary_key", "indexes"] {
                let Some((key, _)) = node.entry(field) else { continue };
                let what = format!("not supported yet: `acceleration.{field}` with `params.resident: false`");
                let message = format!("{}: {what}", self.subject);
                let help = "remove it, or hold the rows in memory: `resident: true`";
                self.decoder.problem(Diagnostic::new("NotSupportedYet", message).at(key.at).help(help));
            }
        }
    }

    /// A conflict is one in a key that each row has alone.
    fn conflicts(&mut self, node: &Node) {
        let unique: Vec<Vec<String>> = unique_keys(node).collect();
        let mut seen: Vec<Vec<String>> = Vec::new();
        let entries = node.get("on_conflict").map_or(&[][..], Node::entries);
        for (key, _) in entries {
            // What is wrong with its form is said where it is read.
            let Ok(columns) = columns(&key.name) else { continue };
            let (what, help) = if seen.iter().any(|other| same(other, &columns)) {
                ("names a key for the second time", "keep one of them")
            } else if !unique.iter().any(|known| same(known, &columns)) {
                (
                    "names neither the primary key nor a unique index",
                    "add it as `primary_key`, or to `indexes` as `unique`",
                )
            } else {
                seen.push(columns);
                continue;
            };
            let name = super::super::text::shorten(&key.name);
            let message = format!("{}: `acceleration.on_conflict`: `{name}` {what}", self.subject);
            self.decoder.problem(Diagnostic::new("InvalidValue", message).at(key.at).help(help));
        }
    }
}

/// Whether `field` is written, and no time at all.
pub(super) fn is_zero(node: &Node, field: &str) -> bool {
    parsed::<Duration>(node, field).is_some_and(Duration::is_zero)
}

/// The columns of the primary key and of the unique indexes.
fn unique_keys(node: &Node) -> impl Iterator<Item = Vec<String>> {
    let primary = node.get("primary_key").and_then(Node::text);
    let indexes = node.get("indexes").map_or(&[][..], Node::entries);
    let unique = indexes.iter().filter(|(_, value)| value.text() == Some("unique"));
    primary.into_iter().chain(unique.map(|(key, _)| key.name.as_str())).filter_map(|text| columns(text).ok())
}
