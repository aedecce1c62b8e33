//! The tree of one dataset to the types of this folder.
//!
//! Form was judged by the checker: a value of the wrong form is left out here without a second word.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use super::super::decode::{Decoder, text};
use super::super::params::LAG_PARAM;
use super::super::types::{Connector, Param};
use super::super::yaml::{Key, Node};
use super::super::{Diagnostic, Duration};
use super::columns::columns;
use super::{
    Acceleration, Access, AppendStream, Conflict, FileMode, IndexOf, Mode, OnConflict, OnStartup, ReadyState,
    Refresh, RefreshMode, Retention, Retry, Schedule, SchemaChange, StreamRetention, TimeColumn, TimeFormat,
    ZeroResults, agree,
};

/// The jitter of a schedule that does not say how much: a tenth of its interval.
const JITTER_PART: u32 = 10;
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(30);
const ACCEPTABLE_LAG: Duration = Duration::from_secs(60);

/// What else of a dataset its acceleration hangs on.
pub(in super::super) struct Beside<'a> {
    /// None where `from` is wrong.
    pub connector: Option<Connector>,
    pub params: &'a BTreeMap<String, Param>,
}

/// The `acceleration:` of a dataset; `None` where there is none, or where it is switched off.
pub(in super::super) fn read_acceleration(
    decoder: &mut Decoder<'_>,
    item: &Node,
    beside: &Beside<'_>,
    subject: &str,
) -> Option<Acceleration> {
    agree::check(decoder, item, beside, subject);
    let (key, node) = item.entry("acceleration")?;
    let primary_key = primary_key(decoder, node, subject);
    let indexes = indexes(decoder, node, primary_key.as_deref(), subject);
    let on_conflict = on_conflict(decoder, node, primary_key.as_deref(), &indexes, subject);
    let acceleration = Acceleration {
        mode: mode(node),
        refresh: refresh(node, stream(item, node, beside)),
        retention: retention(node),
        stream: stream_retention(node),
        on_zero_results: match text(node, "on_zero_results").as_deref() {
            Some("use_source") => ZeroResults::UseSource,
            _ => ZeroResults::ReturnEmpty,
        },
        primary_key,
        indexes,
        on_conflict,
        at: key.at,
    };
    is_enabled(node).then_some(acceleration)
}

/// `time_column` and `time_format`.
pub(in super::super) fn read_time_column(item: &Node) -> Option<TimeColumn> {
    let format = match text(item, "time_format").as_deref() {
        Some("timestamptz") => TimeFormat::TimestampTz,
        Some("unix_seconds") => TimeFormat::UnixSeconds,
        Some("unix_millis") => TimeFormat::UnixMillis,
        Some("ISO8601") => TimeFormat::Iso8601,
        Some("date") => TimeFormat::Date,
        _ => TimeFormat::Timestamp,
    };
    Some(TimeColumn { name: text(item, "time_column")?, format })
}

pub(in super::super) fn read_access(item: &Node) -> Access {
    match text(item, "access").as_deref() {
        Some("read_write") => Access::ReadWrite,
        _ => Access::Read,
    }
}

pub(in super::super) fn read_ready_state(item: &Node) -> ReadyState {
    match text(item, "ready_state").as_deref() {
        Some("on_registration") => ReadyState::OnRegistration,
        _ => ReadyState::OnLoad,
    }
}

pub(in super::super) fn read_schema_change(item: &Node) -> SchemaChange {
    match text(item, "on_schema_change").as_deref() {
        Some("fail") => SchemaChange::Fail,
        Some("append_new_columns") => SchemaChange::AppendNewColumns,
        Some("sync_all_columns") => SchemaChange::SyncAllColumns,
        Some("drop_and_recreate") => SchemaChange::DropAndRecreate,
        _ => SchemaChange::Block,
    }
}

/// Whether the section is not switched off.
pub(super) fn is_enabled(node: &Node) -> bool {
    flag(node, "enabled").unwrap_or(true)
}

pub(super) fn flag(node: &Node, field: &str) -> Option<bool> {
    node.get(field)?.as_bool()
}

pub(super) fn parsed<T: FromStr>(node: &Node, field: &str) -> Option<T> {
    node.get(field)?.text()?.parse().ok()
}

fn mode(node: &Node) -> Mode {
    let create = match text(node, "mode").as_deref() {
        Some("file") => FileMode::File,
        Some("file_create") => FileMode::FileCreate,
        Some("file_update") => FileMode::FileUpdate,
        _ => return Mode::Memory,
    };
    let params = node.get("params");
    Mode::File {
        create,
        path: params.and_then(|params| text(params, "file_path")).map(PathBuf::from),
        resident: params.and_then(|params| flag(params, "resident")).unwrap_or(true),
    }
}

/// Whether the dataset follows an append stream: what is new comes by itself, there is no column to ask for it by.
pub(super) fn is_stream(item: &Node, node: &Node) -> bool {
    node.get("refresh_mode").and_then(Node::text) == Some("append") && item.get("time_column").is_none()
}

fn stream(item: &Node, node: &Node, beside: &Beside<'_>) -> Option<AppendStream> {
    if !is_stream(item, node) {
        return None;
    }
    let check_interval = parsed(node, "refresh_check_interval").unwrap_or(STREAM_CHECK_INTERVAL);
    let lag = beside.params.get(LAG_PARAM).and_then(|param| param.value.literal()?.parse().ok());
    Some(AppendStream {
        check_interval: (!check_interval.is_zero()).then_some(check_interval),
        acceptable_lag: lag.unwrap_or(ACCEPTABLE_LAG),
    })
}

fn refresh(node: &Node, stream: Option<AppendStream>) -> Refresh {
    let cron = text(node, "refresh_cron").filter(|_| stream.is_none());
    let interval = match stream {
        Some(stream) => stream.check_interval,
        None => parsed(node, "refresh_check_interval"),
    };
    let schedule = match (cron, interval) {
        (Some(cron), _) => Schedule::Cron(cron),
        (None, Some(interval)) if stream.is_none() => Schedule::Every(interval),
        (None, _) => Schedule::Once,
    };
    Refresh {
        mode: match (stream, text(node, "refresh_mode").as_deref()) {
            (Some(stream), _) => RefreshMode::Stream(stream),
            (None, Some("append")) => RefreshMode::Append,
            (None, Some("disabled")) => RefreshMode::Disabled,
            (None, _) => RefreshMode::Full,
        },
        jitter: jitter(node, interval, stream.is_some()),
        schedule,
        sql: text(node, "refresh_sql"),
        data_window: parsed(node, "refresh_data_window"),
        append_overlap: parsed(node, "refresh_append_overlap").unwrap_or(Duration::ZERO),
        retry: Retry {
            enabled: flag(node, "refresh_retry_enabled").unwrap_or(true),
            // More than a u32 holds are more than anyone waits for.
            attempts_max: parsed::<u64>(node, "refresh_retry_max_attempts")
                .map(|attempts| u32::try_from(attempts).unwrap_or(u32::MAX)),
        },
        on_startup: match text(node, "refresh_on_startup").as_deref() {
            Some("always") => OnStartup::Always,
            _ => OnStartup::Auto,
        },
    }
}

/// `interval` is the one that is moved; of a stream always, unless that is switched off: many sidecars count one core.
fn jitter(node: &Node, interval: Option<Duration>, is_stream: bool) -> Option<Duration> {
    if !flag(node, "refresh_jitter_enabled").unwrap_or(is_stream) {
        return None;
    }
    let most = parsed(node, "refresh_jitter_max").or_else(|| Some(interval?.part(JITTER_PART)))?;
    (!most.is_zero()).then_some(most)
}

fn retention(node: &Node) -> Retention {
    Retention {
        enabled: flag(node, "retention_check_enabled").unwrap_or(false),
        period: parsed(node, "retention_period"),
        sql: text(node, "retention_sql"),
        check_interval: parsed(node, "retention_check_interval").unwrap_or(Duration::ZERO),
    }
}

fn stream_retention(node: &Node) -> StreamRetention {
    let params = node.get("params");
    StreamRetention {
        time: params.and_then(|params| parsed(params, "stream_retention")),
        bytes: params.and_then(|params| parsed(params, "stream_retention_bytes")),
    }
}

fn primary_key(decoder: &mut Decoder<'_>, node: &Node, subject: &str) -> Option<Vec<String>> {
    let node = node.get("primary_key")?;
    match columns(node.text()?) {
        Ok(key) => Some(key),
        Err(what) => {
            let message = format!("{subject}: `acceleration.primary_key`: {what}");
            decoder.problem(Diagnostic::new("InvalidValue", message).at(node.at));
            None
        }
    }
}

/// The columns that a key of the mapping `field` names.
fn key_columns(decoder: &mut Decoder<'_>, key: &Key, field: &str, subject: &str) -> Option<Vec<String>> {
    match columns(&key.name) {
        Ok(columns) => Some(columns),
        Err(what) => {
            let message = format!("{subject}: `acceleration.{field}`: {what}");
            decoder.problem(Diagnostic::new("InvalidValue", message).at(key.at));
            None
        }
    }
}

fn indexes(
    decoder: &mut Decoder<'_>,
    node: &Node,
    primary_key: Option<&[String]>,
    subject: &str,
) -> Vec<IndexOf> {
    let mut indexes: Vec<IndexOf> = Vec::new();
    for (key, value) in node.get("indexes").map_or(&[][..], Node::entries) {
        let Some(columns) = key_columns(decoder, key, "indexes", subject) else { continue };
        if indexes.iter().any(|index| same(&index.columns, &columns)) {
            let message = format!("{subject}: `acceleration.indexes` holds `{}` twice", key.name);
            decoder.problem(Diagnostic::new("DuplicateIndex", message).at(key.at));
            continue;
        }
        // The primary key is an index already, and a unique one.
        if !primary_key.is_some_and(|primary| same(primary, &columns)) {
            indexes.push(IndexOf { columns, unique: value.text() == Some("unique") });
        }
    }
    indexes
}

fn on_conflict(
    decoder: &mut Decoder<'_>,
    node: &Node,
    primary_key: Option<&[String]>,
    indexes: &[IndexOf],
    subject: &str,
) -> Vec<Conflict> {
    let unique = || {
        let indexes = indexes.iter().filter(|index| index.unique).map(|index| index.columns.as_slice());
        primary_key.into_iter().chain(indexes)
    };
    let mut conflicts: Vec<Conflict> = Vec::new();
    for (key, value) in node.get("on_conflict").map_or(&[][..], Node::entries) {
        let Some(columns) = key_columns(decoder, key, "on_conflict", subject) else { continue };
        let action = match value.text() {
            Some("drop") => OnConflict::Drop,
            _ => OnConflict::Upsert,
        };
        if let Some(known) = unique().find(|known| same(known, &columns)) {
            conflicts.push(Conflict { key: known.to_vec(), action });
        }
    }
    conflicts
}

/// Whether two keys are of the same columns, in whatever order.
pub(super) fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|name| other.contains(name))
}
