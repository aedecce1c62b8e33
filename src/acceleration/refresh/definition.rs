//! How one dataset is accelerated: a checked spicepod enters, plain settings leave, and with the upstream's schema the
//! layout of the table.
//!
//! The only file here that reads a spicepod.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};

use crate::acceleration::disk::{self, Residence, Roots, folder_of};
use crate::acceleration::store::{self, Key, Layout, Role, Time, TimeFormat};
use crate::config::{self, SchemaChange};
use crate::name::DatasetName;

use super::cadence::{Cadence, When};
use super::error::RefreshError;
use super::retention::{self, Retention};
use super::schedule::Rules;

/// One accelerated dataset.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    pub name: DatasetName,
    pub mode: Mode,
    pub sql: Option<String>,
    pub data_window: Option<Duration>,
    pub append_overlap: Duration,
    pub rules: Rules,
    pub cadence: Cadence,
    pub retention: Option<Retention>,
    /// The time column and how its values are read.
    pub time: Option<(String, TimeFormat)>,
    pub keys: Vec<NamedKey>,
    /// `on_zero_results: use_source`.
    pub uses_source: bool,
    /// `ready_state: on_load`: until the first load queries are refused.
    pub is_awaited: bool,
    pub on_change: SchemaChange,
    /// `access: read_write`: rows come from clients, and are not fetched.
    pub is_written: bool,
    /// It follows its upstream's append stream; then it is never refreshed.
    pub stream: Option<Stream>,
    /// None in memory mode.
    pub disk: Option<disk::Settings>,
    /// What makes the rows what they are; see [`origin`].
    pub origin: String,
}

/// How the next generation comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Full,
    /// Rows at or after the watermark are added; needs a time column.
    Append,
}

/// How an append stream is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// How often what is held is compared with the upstream; none: never by time.
    pub check_interval: Option<Duration>,
    /// Further behind than this, the dataset is in error.
    pub acceptable_lag: Duration,
}

/// A key by the names of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedKey {
    pub columns: Vec<String>,
    pub role: Role,
}

impl Mode {
    /// As a spicepod writes it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Append => "append",
        }
    }
}

impl Definition {
    /// The definition of `dataset`; none when it is not accelerated.
    ///
    /// # Errors
    /// Words that say which setting cannot be used.
    pub(super) fn try_new(
        dataset: &config::Dataset,
        spicepod: &Path,
        data_dir: Option<&Path>,
    ) -> Result<Option<Self>, String> {
        let Some(acceleration) = &dataset.acceleration else { return Ok(None) };
        let refresh = &acceleration.refresh;
        let mode = match refresh.mode {
            config::RefreshMode::Append | config::RefreshMode::Stream(_) => Mode::Append,
            config::RefreshMode::Full | config::RefreshMode::Disabled => Mode::Full,
        };
        let time = dataset.time_column.as_ref().map(|time| (time.name.clone(), time_format(time.format)));
        let stream = match refresh.mode {
            config::RefreshMode::Stream(stream) => Some(Stream {
                check_interval: stream.check_interval.map(|interval| interval.get()),
                acceptable_lag: stream.acceptable_lag.get(),
            }),
            config::RefreshMode::Full | config::RefreshMode::Append | config::RefreshMode::Disabled => None,
        };
        if mode == Mode::Append && time.is_none() && stream.is_none() {
            return Err("refresh_mode: append needs a time_column".to_owned());
        }
        let cadence = cadence(refresh)?;
        Ok(Some(Self {
            name: dataset.name.clone(),
            mode,
            sql: refresh.sql.clone(),
            data_window: refresh.data_window.map(|window| window.get()),
            append_overlap: refresh.append_overlap.get(),
            rules: rules(refresh, &cadence),
            cadence,
            retention: retention_of(&acceleration.retention, &dataset.name)?,
            time,
            keys: keys(acceleration),
            uses_source: acceleration.on_zero_results == config::ZeroResults::UseSource,
            is_awaited: dataset.ready_state == config::ReadyState::OnLoad,
            on_change: dataset.on_schema_change,
            is_written: dataset.access == config::Access::ReadWrite,
            stream,
            disk: settings(dataset, acceleration, spicepod, data_dir)?,
            origin: match dataset.access {
                config::Access::ReadWrite => written(dataset, acceleration),
                config::Access::Read => origin(dataset, acceleration),
            },
        }))
    }

    /// Whether `other` is about the same rows, held in the same way: then who keeps them need only know when to refresh.
    pub(super) fn holds_as(&self, other: &Self) -> bool {
        fn held(it: &Definition) -> impl PartialEq + '_ {
            let rows = (&it.origin, &it.name, it.data_window, &it.keys, it.uses_source, it.is_awaited);
            let kept = (it.is_written, it.stream, it.rules.is_disabled, &it.disk);
            (rows, kept)
        }
        held(self) == held(other)
    }

    /// The columns of the primary key; none where none is declared.
    pub(super) fn primary_key(&self) -> Vec<String> {
        let primary = self.keys.iter().find(|key| matches!(key.role, Role::Primary { .. }));
        primary.map(|key| key.columns.clone()).unwrap_or_default()
    }

    /// # Errors
    /// The columns that the spicepod names and the table does not have; what the store refuses.
    pub(super) fn layout(&self, schema: &SchemaRef) -> Result<Layout, RefreshError> {
        let named =
            self.time.iter().map(|(column, _)| column).chain(self.keys.iter().flat_map(|key| &key.columns));
        let missing: BTreeSet<&str> =
            named.map(String::as_str).filter(|column| schema.index_of(column).is_err()).collect();
        if !missing.is_empty() {
            let there: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(self.wrong(format!(
                "the spicepod names columns that the table does not have: {}; it has {}",
                missing.into_iter().collect::<Vec<_>>().join(", "),
                there.join(", ")
            )));
        }
        let at = |column: &String| schema.index_of(column).map_err(|error| self.wrong(error.to_string()));
        let time = match &self.time {
            Some((column, format)) => Some(Time { column: at(column)?, format: *format }),
            None => None,
        };
        let keys = self.keys.iter().map(|key| {
            let columns = key.columns.iter().map(at).collect::<Result<_, _>>()?;
            Ok(Key { columns, role: key.role })
        });
        let keys = keys.collect::<Result<Vec<_>, RefreshError>>()?;
        Ok(Layout::try_new(self.name.clone(), schema.clone(), time, keys)?)
    }

    /// Whether what is held is dropped before the new schema's rows are loaded.
    ///
    /// # Errors
    /// `on_schema_change` does not follow: the difference and what comes of it.
    pub(super) fn change(&self, held: &Schema, now: &Schema) -> Result<bool, RefreshError> {
        let consequence = match self.on_change {
            SchemaChange::SyncAllColumns => return Ok(false),
            SchemaChange::DropAndRecreate => return Ok(true),
            SchemaChange::AppendNewColumns if is_superset(held, now) => return Ok(false),
            SchemaChange::AppendNewColumns => {
                "the rows held before are kept, because on_schema_change: append_new_columns only takes new columns"
            }
            SchemaChange::Block => "the rows held before are kept (on_schema_change: block)",
            SchemaChange::Fail => "queries are refused (on_schema_change: fail)",
        };
        Err(RefreshError::Changed {
            dataset: self.name.clone(),
            difference: difference(held, now),
            consequence,
        })
    }

    fn wrong(&self, message: String) -> RefreshError {
        RefreshError::Definition { dataset: self.name.clone(), message }
    }
}

fn is_superset(held: &Schema, now: &Schema) -> bool {
    held.fields()
        .iter()
        .all(|field| now.field_with_name(field.name()).is_ok_and(|new| new.data_type() == field.data_type()))
}

/// Added, removed and changed columns in words.
fn difference(held: &Schema, now: &Schema) -> String {
    let mut parts = Vec::new();
    for field in now.fields() {
        match held.field_with_name(field.name()) {
            Err(_) => parts.push(format!("`{}` ({}) is new", field.name(), field.data_type())),
            Ok(before) if before.data_type() != field.data_type() => parts.push(format!(
                "`{}` was {} and is {}",
                field.name(),
                before.data_type(),
                field.data_type()
            )),
            Ok(_) => {}
        }
    }
    let gone = held.fields().iter().filter(|field| now.index_of(field.name()).is_err());
    parts.extend(gone.map(|field| format!("`{}` is gone", field.name())));
    if parts.is_empty() {
        parts.push("the order of columns, or which may be NULL".to_owned());
    }
    parts.join(", ")
}

fn cadence(refresh: &config::Refresh) -> Result<Cadence, String> {
    let when = match &refresh.schedule {
        config::Schedule::Once => When::Never,
        config::Schedule::Every(interval) => When::Every(interval.get()),
        config::Schedule::Cron(cron) => {
            When::At(Box::new(config::parse_cron(cron).map_err(|error| format!("refresh_cron: {error}"))?))
        }
    };
    Ok(Cadence { when, jitter_max: refresh.jitter.map(|jitter| jitter.get()) })
}

fn rules(refresh: &config::Refresh, cadence: &Cadence) -> Rules {
    let has_schedule = !matches!(cadence.when, When::Never);
    let is_disabled = refresh.mode == config::RefreshMode::Disabled;
    let always = refresh.on_startup == config::OnStartup::Always;
    let retries_max = match refresh.retry.enabled {
        true => refresh.retry.attempts_max.unwrap_or(u32::MAX),
        false => 0,
    };
    Rules { is_disabled, has_schedule, refreshes_restored: always || !has_schedule, retries_max }
}

fn retention_of(retention: &config::Retention, dataset: &DatasetName) -> Result<Option<Retention>, String> {
    if !retention.enabled {
        return Ok(None);
    }
    let condition = retention.sql.as_deref().map(|sql| retention::condition(sql, dataset)).transpose()?;
    let period = retention.period.map(|period| period.get());
    Ok(Some(Retention { period, condition, check_interval: retention.check_interval.get() }))
}

fn time_format(format: config::TimeFormat) -> TimeFormat {
    match format {
        config::TimeFormat::Timestamp => TimeFormat::Timestamp,
        config::TimeFormat::TimestampTz => TimeFormat::TimestampTz,
        config::TimeFormat::UnixSeconds => TimeFormat::UnixSeconds,
        config::TimeFormat::UnixMillis => TimeFormat::UnixMillis,
        config::TimeFormat::Iso8601 => TimeFormat::Iso8601,
        config::TimeFormat::Date => TimeFormat::Date,
    }
}

fn keys(acceleration: &config::Acceleration) -> Vec<NamedKey> {
    let on_conflict = |columns: &[String]| {
        let conflict = acceleration.on_conflict.iter().find(|conflict| conflict.key == columns)?;
        Some(match conflict.action {
            config::OnConflict::Drop => store::OnConflict::Drop,
            config::OnConflict::Upsert => store::OnConflict::Upsert,
        })
    };
    let primary = acceleration.primary_key.iter().map(|columns| NamedKey {
        columns: columns.clone(),
        role: Role::Primary { on_conflict: on_conflict(columns) },
    });
    let indexes = acceleration.indexes.iter().map(|index| NamedKey {
        columns: index.columns.clone(),
        role: match index.unique {
            true => Role::Unique { on_conflict: on_conflict(&index.columns) },
            false => Role::Plain,
        },
    });
    primary.chain(indexes).collect()
}

fn settings(
    dataset: &config::Dataset,
    acceleration: &config::Acceleration,
    spicepod: &Path,
    data_dir: Option<&Path>,
) -> Result<Option<disk::Settings>, String> {
    let config::Mode::File { create, path, resident } = &acceleration.mode else { return Ok(None) };
    let is_written = dataset.access == config::Access::ReadWrite;
    let mode = match create {
        config::FileMode::File => disk::Mode::File,
        config::FileMode::FileCreate => disk::Mode::FileCreate,
        config::FileMode::FileUpdate => disk::Mode::FileUpdate,
    };
    Ok(Some(disk::Settings {
        folder: folder_of(Roots { spicepod, data_dir }, path.as_deref(), &dataset.name),
        mode,
        residence: if *resident { Residence::Memory } else { Residence::Files },
        definition: if is_written { written(dataset, acceleration) } else { origin(dataset, acceleration) },
        // What was fetched before anybody could write stays.
        adopts: is_written.then(|| origin(dataset, acceleration)),
        // Known when the folder is opened.
        memory_bytes_max: None,
    }))
}

/// What makes the stored rows what they are: with another of these they are not served. Keys count because restored
/// rows are not checked again, the time's format because the watermark was read by it. Of the params only those that
/// say where the upstream is: the others may hold secrets.
fn origin(dataset: &config::Dataset, acceleration: &config::Acceleration) -> String {
    let place = dataset.params.iter().filter(|(name, _)| name.ends_with("endpoint") || *name == "region");
    let place: Vec<_> = place.map(|(name, param)| (name, &param.value.parts)).collect();
    // An append never looks behind its watermark: a wider window would not be filled.
    let refresh = &acceleration.refresh;
    let window = refresh.data_window.filter(|_| refresh.mode == config::RefreshMode::Append);
    format!(
        "from {} at {place:?} sql {:?} time {:?} window {window:?} key {:?} unique {:?} conflict {:?}",
        dataset.from.text,
        refresh.sql,
        dataset.time_column,
        acceleration.primary_key,
        unique_columns(acceleration),
        acceleration.on_conflict
    )
}

/// The same of rows that clients wrote: wherever the upstream is, they are what they are.
fn written(dataset: &config::Dataset, acceleration: &config::Acceleration) -> String {
    let columns = |key: &[String]| format!("({})", key.join(", "));
    let time = match &dataset.time_column {
        Some(time) => format!("time_column {} ({})", time.name, time_format(time.format)),
        None => "no time_column".to_owned(),
    };
    let key = match &acceleration.primary_key {
        Some(key) => format!("primary_key {}", columns(key)),
        None => "no primary_key".to_owned(),
    };
    let unique = unique_columns(acceleration).into_iter().map(|key| format!(", unique {}", columns(key)));
    let conflicts = acceleration.on_conflict.iter().map(|conflict| {
        let action = match conflict.action {
            config::OnConflict::Drop => "drop",
            config::OnConflict::Upsert => "upsert",
        };
        format!(", on_conflict {} {action}", columns(&conflict.key))
    });
    format!("{}{time}, {key}{}", disk::SOLE_COPY, unique.chain(conflicts).collect::<String>())
}

fn unique_columns(acceleration: &config::Acceleration) -> Vec<&Vec<String>> {
    acceleration.indexes.iter().filter(|index| index.unique).map(|index| &index.columns).collect()
}
