//! Tasks and how they hang together: a caller's `traceparent` enters, spans are opened and closed, and leave into the
//! history of this process and, where one is configured, to a collector.
//!
//! A recorder of our own and not `tracing-opentelemetry`: tasks are few, of three kinds, and have to be a SQL table too;
//! the log's spans are many and for people. The current span reaches what it causes in two ways: [`Context::scope`] for
//! futures, and the session's config for plans, whose partitions run in tasks of their own.

mod context;
mod history;
mod ids;
mod labels;
mod ring;
mod span;

pub use context::{Context, Owner};
pub use history::{HistoryOptions, Output, Tracer};
pub use ids::{Ids, TraceState, Traceparent};
pub use labels::Labels;
pub use ring::History;
pub use span::{Span, Task, shortened};

#[cfg(test)]
mod tests;
