//! Flight calls in the metrics: by method, and by what was asked for in words of our own. What clients make up makes no
//! series.

use std::time::Instant;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::{Action, FlightDescriptor};
use bytes::Bytes;
use metrics::{Counter, Histogram};

use super::command;
use crate::slots::Slots;

const OTHER: &str = "other";
const NONE: &str = "none";

const COMMANDS: [&str; 17] = [
    "CommandStatementQuery",
    "TicketStatementQuery",
    "CommandPreparedStatementQuery",
    "CommandGetCatalogs",
    "CommandGetDbSchemas",
    "CommandGetTables",
    "CommandGetTableTypes",
    "CommandGetSqlInfo",
    "CommandGetXdbcTypeInfo",
    "CommandGetPrimaryKeys",
    "CommandGetExportedKeys",
    "CommandGetImportedKeys",
    "CommandGetCrossReference",
    "CommandStatementUpdate",
    "CommandPreparedStatementUpdate",
    "CommandStatementSubstraitPlan",
    "CommandStatementIngest",
];
const ACTIONS: [&str; 4] =
    ["CreatePreparedStatement", "ClosePreparedStatement", "CancelQuery", "CancelFlightInfo"];

/// A call; counted when it is dropped, as its answer begins.
pub(super) struct Counted {
    method: &'static str,
    command: &'static str,
    begun: Instant,
}

impl Counted {
    /// A call that asks for nothing in particular.
    pub fn plain(method: &'static str) -> Self {
        Self { method, command: NONE, begun: Instant::now() }
    }

    pub fn ticket(method: &'static str, bytes: &Bytes) -> Self {
        Self { command: of_bytes(bytes), ..Self::plain(method) }
    }

    pub fn descriptor(method: &'static str, descriptor: &FlightDescriptor) -> Self {
        let command = match descriptor.r#type() {
            DescriptorType::Cmd => of_bytes(&descriptor.cmd),
            DescriptorType::Path => "path",
            DescriptorType::Unknown => OTHER,
        };
        Self { command, ..Self::plain(method) }
    }

    pub fn action(action: &Action) -> Self {
        Self { command: known(&ACTIONS, &action.r#type), ..Self::plain("DoAction") }
    }
}

/// The metrics of calls of a kind, looked up once.
struct Series {
    kind: [&'static str; 2],
    requests: Counter,
    duration: Histogram,
}

static SERIES: Slots<Series> = Slots::new();

impl Drop for Counted {
    fn drop(&mut self) {
        let kind = [self.method, self.command];
        let took = self.begun.elapsed().as_secs_f64() * 1e3;
        // Words of our own, and not many.
        let hash = kind.iter().fold(0, |hash: u64, word| hash.wrapping_mul(31) ^ word.as_ptr().addr() as u64);
        if let Some(series) = SERIES.at(hash).as_ref().filter(|series| series.kind == kind) {
            return series.tell(took);
        }
        let labels = [("method", self.method), ("command", self.command)];
        let series = Series {
            kind,
            requests: metrics::counter!("flight_requests", &labels),
            duration: metrics::histogram!("flight_request_duration_ms", &labels),
        };
        series.tell(took);
        SERIES.put(hash, series);
    }
}

impl Series {
    fn tell(&self, took: f64) {
        self.requests.increment(1);
        self.duration.record(took);
    }
}

fn of_bytes(bytes: &Bytes) -> &'static str {
    command::flight_sql(bytes).map_or("sql", |any| known(&COMMANDS, command::name(&any)))
}

fn known(words: &[&'static str], word: &str) -> &'static str {
    words.iter().find(|known| **known == word).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_is_other() {
        assert_eq!(of_bytes(&Bytes::from_static(b"SELECT 1")), "sql");
        assert_eq!(known(&COMMANDS, "CommandGetTables"), "CommandGetTables");
        assert_eq!(known(&COMMANDS, "CommandFromNowhere"), "other");
        let path = FlightDescriptor::new_path(vec!["t".to_owned()]);
        assert_eq!(Counted::descriptor("GetSchema", &path).command, "path");
    }
}
