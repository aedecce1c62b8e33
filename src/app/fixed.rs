//! Settings that hold for as long as the process: two spicepods enter, the names of those that differ leave.

use std::fmt::Debug;

use crate::config::{Runtime, Spicepod};

/// The settings that have changed and hold from the next start on.
pub(super) fn changed(former: &Spicepod, now: &Spicepod) -> Vec<&'static str> {
    let (former, now) = (fixed(&former.runtime), fixed(&now.runtime));
    former.into_iter().zip(now).filter(|(former, now)| former != now).map(|((name, _), _)| name).collect()
}

/// By what their values look like; none of them holds a secret.
fn fixed(runtime: &Runtime) -> [(&'static str, String); 12] {
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
        ("runtime.shutdown_timeout", shown(&runtime.shutdown_timeout)),
    ]
}
