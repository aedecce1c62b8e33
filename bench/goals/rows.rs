//! The rows of the table and their goals: what stands here is what was promised, whatever is measured.

use Goal::{AtLeast, AtMost, Below};

/// One row, before it is measured.
pub struct Row {
    /// As `--only` knows it.
    pub name: &'static str,
    pub measured: &'static str,
    pub against: &'static str,
    pub goal: Goal,
}

/// What a row is to reach.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    /// What belongs to one thing, among many of them ÷ among fewer: one, but for noise.
    Linear,
}

/// How far from one a ratio may be that is called linear.
const LINEAR_MOST: f64 = 1.25;

impl Goal {
    pub fn reached(self, value: f64) -> bool {
        match self {
            AtLeast(goal) => value >= goal,
            AtMost(goal) => value <= goal,
            Below(goal) => value < goal,
            Self::Linear => value <= LINEAR_MOST,
        }
    }

    pub fn shown(self) -> String {
        match self {
            AtLeast(goal) => format!("≥ {goal}"),
            AtMost(goal) => format!("≤ {goal}"),
            Below(goal) => format!("< {goal}"),
            Self::Linear => format!("linear: ≤ {LINEAR_MOST}"),
        }
    }
}

/// Those of the local queries, whose peers take part in each other's rounds.
pub const TPCH_DUCKDB: &str = "tpch-duckdb";
pub const TPCH_DATAFUSION: &str = "tpch-datafusion";

/// In the order of the table.
pub const ROWS: &[Row] = &[
    row("pass-2mib", "MB/s of a federated DoGet of 1 GB, messages of 2 MiB", PROXIES, AtLeast(1.0)),
    row("pass-64kib", "the same, messages of 64 KiB", PROXIES, AtLeast(1.0)),
    row("cpu-2mib", "CPU seconds of sidewing per GB, messages of 2 MiB", "", AtMost(0.5)),
    row("cpu-64kib", "the same, messages of 64 KiB", "", AtMost(0.5)),
    row(
        "append",
        "ms from emission to sight by a query, p50",
        "less a direct subscriber's, p50",
        AtMost(1.0),
    ),
    row(
        "one-row",
        "ms that a federated one-row query takes more than a direct one, p50",
        "Envoy's",
        AtMost(1.0),
    ),
    row("queries-64", "federated one-row queries a second, 64 in flight", "Envoy's", AtLeast(1.0)),
    row(
        TPCH_DUCKDB,
        "total time of the 22 TPC-H queries, SF1, accelerated",
        "DuckDB in-process",
        AtMost(1.0),
    ),
    row(TPCH_DATAFUSION, "the same", "plain DataFusion, MemTable, in-process", AtMost(0.8)),
    row("key-lookup", "one row by its key in 10 M rows, DoGet, p50", "`SELECT 1`", AtMost(1.3)),
    row("key-lookup-info", "the same, GetFlightInfo and DoGet, p50", "`SELECT 1`", AtMost(1.3)),
    row("cached-flight", "a cached row over Flight, p50", "gRPC health check", AtMost(1.3)),
    row("cached-http", "a cached row over HTTP, p50", "GET /health", AtMost(1.3)),
    row("wire-bytes", "bytes of `SELECT * FROM orders`, kept as string views", "compact utf8", AtMost(1.1)),
    row("http-json", "MB/s of 1 M rows as JSON over HTTP", "arrow-json into memory", AtLeast(0.7)),
    row("full-load", "rows/s of a full load of 10 M rows", "a plain DoGet into memory", AtLeast(0.8)),
    row("idle-memory", "MB resident of an idle sidecar", "", Below(40.0)),
    row("start", "ms from the start of the process to both listeners", "", Below(50.0)),
    row("binary", "MB of the stripped binary", "", Below(90.0)),
    row("growth-pass", "time of a federated DoGet of 1 GB", "of 100 MB", AtMost(11.0)),
    row("growth-tpch", "total time of the 22 TPC-H queries, SF1", "SF 0.1", AtMost(11.0)),
    row("growth-lookup", "one row by its key in 10 M rows, DoGet, p50", "in 1 M", AtMost(11.0)),
    row("growth-json", "time of 1 M rows as JSON over HTTP", "of 100,000", AtMost(11.0)),
    row("growth-load", "time of a full load of 10 M rows", "of 1 M", AtMost(11.0)),
    row("datasets-start", "time per dataset until 2000 are ready", "of 1000", Goal::Linear),
    row("datasets-memory", "memory per dataset of 2000", "of 1000", Goal::Linear),
    row("connections", "memory per idle HTTP/2 connection of 10,000", "of 1,000", Goal::Linear),
];

const PROXIES: &str = "the better of nginx and Envoy";

const fn row(name: &'static str, measured: &'static str, against: &'static str, goal: Goal) -> Row {
    Row { name, measured, against, goal }
}

pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
