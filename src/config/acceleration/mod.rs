//! What a spicepod says of a dataset that is kept here: how, how it stays fresh, what it forgets.
//!
//! The tree of one dataset enters; plain data leaves, and every contradiction between its fields. Columns are names
//! only: whether the upstream has them, and what the SQL says, is found out where there is a schema.

mod agree;
mod columns;
mod read;
mod stream;

use std::path::PathBuf;

use super::{ByteSize, Duration, Span};

pub(super) use read::{Beside, read_acceleration, read_ready_state, read_schema_change, read_time_column};

/// A dataset that is kept here. `acceleration.enabled: false` leaves none.
#[derive(Debug, Clone)]
pub struct Acceleration {
    pub mode: Mode,
    pub refresh: Refresh,
    pub retention: Retention,
    pub stream: StreamRetention,
    pub on_zero_results: ZeroResults,
    /// Columns that identify a row, at least one.
    pub primary_key: Option<Vec<String>>,
    /// Further keys, none of them the primary key's columns.
    pub indexes: Vec<IndexOf>,
    /// What becomes of a row whose key is there already; a key that is not named here refuses such a row.
    pub on_conflict: Vec<Conflict>,
    /// Where the section stands.
    pub at: Span,
}

/// Where the rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Memory,
    File {
        create: FileMode,
        /// `params.file_path`: the folder of this dataset, relative to the spicepod's.
        path: Option<PathBuf>,
        /// `false`: queries read the files, the rows are not held in memory.
        resident: bool,
    },
}

/// What a start does with the rows that an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// `file`: serves them.
    File,
    /// `file_create`: begins without them.
    FileCreate,
    /// `file_update`: serves them, and brings them up to date.
    FileUpdate,
}

/// When and how the next rows are fetched.
#[derive(Debug, Clone)]
pub struct Refresh {
    pub mode: RefreshMode,
    /// [`Schedule::Once`] for a stream, which is compared with its upstream by an interval of its own.
    pub schedule: Schedule,
    /// `refresh_sql`, not empty, not parsed.
    pub sql: Option<String>,
    /// `refresh_data_window`: older rows by the time column are not fetched.
    pub data_window: Option<Duration>,
    /// `refresh_append_overlap`: how far before the watermark an append reads; zero when absent.
    pub append_overlap: Duration,
    pub retry: Retry,
    pub on_startup: OnStartup,
    /// The most that a refresh, or the comparison of a stream, is moved in time, to either side; `None` when it is not.
    pub jitter: Option<Duration>,
}

/// What a refresh fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshMode {
    /// The whole table.
    Full,
    /// Rows that are newer by the dataset's time column, which it then has.
    Append,
    /// `append` without a time column: the upstream sends what is new by itself.
    Stream(AppendStream),
    /// Nothing: the table is never refreshed.
    Disabled,
}

/// How a dataset follows the append stream of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendStream {
    /// `refresh_check_interval`: how often what is held is compared with the upstream, beside the stream; more than
    /// zero. `None`: never by time.
    pub check_interval: Option<Duration>,
    /// `append_stream_acceptable_lag`: a dataset that is further behind is in error; more than zero.
    pub acceptable_lag: Duration,
}

/// When the table is refreshed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Loaded once.
    Once,
    /// This long after the end of the last refresh; more than zero.
    Every(Duration),
    /// A line that [`parse_cron`](super::parse_cron) takes.
    Cron(String),
}

/// Whether a failed refresh is tried again before its next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pub enabled: bool,
    /// Attempts after the first; no limit when absent.
    pub attempts_max: Option<u32>,
}

/// Whether a start refreshes rows that were restored from files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStartup {
    /// When they are due by the schedule.
    Auto,
    Always,
}

/// Which rows are removed, and when.
#[derive(Debug, Clone)]
pub struct Retention {
    /// `retention_check_enabled`. When true, `period` or `sql` is there.
    pub enabled: bool,
    /// Rows older than this by the dataset's time column, which it then has.
    pub period: Option<Duration>,
    /// `retention_sql`, not empty, not parsed.
    pub sql: Option<String>,
    /// Time between two removals; more than zero when `enabled`.
    pub check_interval: Duration,
}

/// What is held for subscribers that are still reading what another state of the table has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRetention {
    /// `params.stream_retention`
    pub time: Option<Duration>,
    /// `params.stream_retention_bytes`
    pub bytes: Option<ByteSize>,
}

/// What a scan that finds no row answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroResults {
    ReturnEmpty,
    /// What the upstream has.
    UseSource,
}

/// An index beside the primary key's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexOf {
    /// At least one, none twice.
    pub columns: Vec<String>,
    pub unique: bool,
}

/// What becomes of rows that meet in one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The columns of the primary key or of a unique index, in that key's order.
    pub key: Vec<String>,
    pub action: OnConflict,
}

/// Which of two rows with one key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// The one that is there.
    Drop,
    /// The later one.
    Upsert,
}

/// The column that tells the age of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeColumn {
    pub name: String,
    pub format: TimeFormat,
}

/// How that column tells time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    Timestamp,
    TimestampTz,
    UnixSeconds,
    UnixMillis,
    Iso8601,
    Date,
}

/// When an accelerated dataset answers queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyState {
    /// Once its rows are here.
    OnLoad,
    /// At once: from the upstream until its rows are here.
    OnRegistration,
}

/// What happens when the upstream's columns are no longer those that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaChange {
    /// The old rows stay and are served; the state says what differs.
    Block,
    /// The dataset fails.
    Fail,
    AppendNewColumns,
    SyncAllColumns,
    DropAndRecreate,
}

#[cfg(test)]
mod tests;
