//! Metrics: what rooms count by the macros of `metrics` enters, families of numbers leave, for Prometheus, SQL and OTLP
//! alike.
//!
//! The registry is our own, of three hundred lines: the exporters at hand render text and keep the numbers to
//! themselves, and three readers must see the same ones.

mod buckets;
mod catalogue;
mod prometheus;
mod reference;
mod registry;

pub use catalogue::Kind;
pub use reference::reference;
pub use registry::{Family, Number, Registry, Series};
