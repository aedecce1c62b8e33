//! What the fields of a dataset that follows an append stream must agree in.

use super::super::Diagnostic;
use super::super::params::LAG_PARAM;
use super::super::types::Connector;
use super::super::yaml::Node;
use super::agree::{Judge, OF_RETENTION, is_zero};
use super::read::{Beside, flag, is_enabled, is_stream};

/// Fields that say nothing beside an append stream, and what to do about each.
const NOT_OF_STREAMS: &[(&str, &str)] = &[
    ("refresh_sql", "a stream sends the whole table; remove it, or name a `time_column`"),
    ("refresh_cron", "`refresh_check_interval` says how often a stream is compared with its upstream"),
    ("refresh_data_window", "a stream sends the whole table; remove it, or name a `time_column`"),
    ("refresh_append_overlap", "a stream sends what comes late too; remove it, or name a `time_column`"),
    ("refresh_retry_enabled", "a stream is connected again without end; remove it"),
    ("refresh_retry_max_attempts", "a stream is connected again without end; remove it"),
    ("refresh_on_startup", "a stream begins with each start; remove it"),
    ("on_conflict", "the rows of a stream are those of its upstream; remove it, or name a `time_column`"),
];

const RETENTION_OF_STREAMS: &str =
    "the rows of a stream are those of its upstream: remove them there, or name a `time_column`";

impl Judge<'_, '_> {
    /// A stream equals its upstream, and is always on: what chooses rows or moments has nothing to choose.
    pub fn stream(&mut self, node: &Node, beside: &Beside<'_>) {
        // What is switched off asks for nothing.
        if beside.connector == Some(Connector::FlightSql) && is_enabled(node) {
            let what = "`acceleration.refresh_mode: append` without `time_column` is an append stream, which \
                        flightsql upstreams do not have";
            let help =
                "name the column that tells the age of a row: `time_column: created_at` of the dataset";
            self.against(node, "refresh_mode", what, help);
        }
        let beside_stream = |field: &str| {
            format!(
                "`acceleration.{field}` does nothing for an append stream (`refresh_mode: append` without \
                 `time_column`)"
            )
        };
        for (field, help) in NOT_OF_STREAMS {
            self.against(node, field, &beside_stream(field), help);
        }
        if flag(node, "retention_check_enabled") != Some(false) {
            for field in OF_RETENTION.iter().chain(&["retention_check_enabled"]) {
                self.against(node, field, &beside_stream(field), RETENTION_OF_STREAMS);
            }
        }
        if flag(node, "refresh_jitter_enabled") == Some(true) && is_zero(node, "refresh_check_interval") {
            let what = "`acceleration.refresh_jitter_enabled` does nothing with `refresh_check_interval: 0`";
            self.against(node, "refresh_jitter_enabled", what, "remove it, or say how often");
        }
    }

    /// Of a dataset that follows no stream it is a promise that nobody keeps.
    pub fn acceptable_lag(&mut self, beside: &Beside<'_>) {
        let Some(param) = beside.params.get(LAG_PARAM) else { return };
        if self.item.get("acceleration").is_some_and(|node| is_stream(self.item, node)) {
            return;
        }
        let what = format!("param `{}` is about append streams, and this dataset follows none", param.key);
        let help = "remove it, or follow one: `acceleration.refresh_mode: append` without `time_column`";
        let message = format!("{}: {what}", self.subject);
        self.decoder.problem(Diagnostic::new("InvalidValue", message).at(param.at).help(help));
    }
}
