//! What happened, told outward: the log on standard error, the registry of metrics, the history of tasks and their
//! traces, and the exporter that sends the latter three to a collector.
//!
//! Hears every room and calls none. The only place that sets process-wide subscribers.

mod log;
mod metrics;
mod otlp;
mod trace;

use std::sync::Arc;

pub use log::{
    InvalidDirectives, LogFormat, Verbosity, init_log, init_log_to, log_directives, set_directives,
    set_verbosity, tell_repeats,
};
pub use metrics::{Family, Kind, Number, Registry, Series, reference};
pub use otlp::{Otlp, OtlpError, OtlpExporter, OtlpProtocol};
pub use trace::{
    Context, History, HistoryOptions, Ids, Labels, Output, Owner, Span, Task, TraceState, Traceparent,
    Tracer, shortened,
};

/// Writes the registry in Prometheus' text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Installs the registry of this process, with everything that is known beforehand announced at zero. Later calls give
/// the first one back.
#[must_use]
pub fn init_metrics() -> Registry {
    Registry::global()
}
