//! Settings that hold for as long as the process: two spicepods enter, the names of those that differ leave.

use std::fmt::Debug;

use crate::config::{Runtime, Spicepod};

/// The settings of one spicepod that hold for as long as the process that began with it, by what their values look like.
/// None of them holds a secret.
pub(super) struct Fixed(Vec<(&'static str, String)>);

impl Fixed {
    pub(super) fn of(runtime: &Runtime) -> Self {
        Self(settings(runtime).into())
    }

    /// The settings that are others in `spicepod`: they hold from the next start on.
    pub(super) fn changed(&self, spicepod: &Spicepod) -> Vec<&'static str> {
        let now = settings(&spicepod.runtime);
        let pairs = self.0.iter().zip(now);
        pairs.filter(|(begun, now)| **begun != *now).map(|((name, _), _)| *name).collect()
    }
}

fn settings(runtime: &Runtime) -> [(&'static str, String); 14] {
    fn shown(value: &dyn Debug) -> String {
        format!("{value:?}")
    }
    let temporary = runtime.memory.temp_directory.as_ref().map(|directory| &directory.path);
    [
        ("runtime.http.bind_address", shown(&runtime.http_bind)),
        ("runtime.flight.bind_address", shown(&runtime.flight_bind)),
        ("runtime.metrics.bind_address", shown(&runtime.metrics_bind)),
        ("runtime.flight.max_message_size", shown(&runtime.max_message_size)),
        ("runtime.tls (on or off)", shown(&runtime.tls.is_some())),
        ("runtime.metrics.tls (on or off)", shown(&runtime.metrics_tls.is_some())),
        ("runtime.cors", shown(&runtime.cors)),
        ("runtime.mcp", shown(&runtime.mcp)),
        ("runtime.query.memory_limit", shown(&runtime.memory.limit)),
        ("runtime.query.temp_directory", shown(&(temporary, runtime.memory.spill_compression))),
        (
            "runtime.params.upstream_*",
            shown(&(
                runtime.upstream_max_concurrent,
                runtime.upstream_establishment_timeout,
                runtime.upstream_name_server,
            )),
        ),
        ("runtime.telemetry", shown(&runtime.telemetry)),
        ("runtime.task_history", shown(&runtime.task_history)),
        ("runtime.shutdown_timeout", shown(&runtime.shutdown_timeout)),
    ]
}
