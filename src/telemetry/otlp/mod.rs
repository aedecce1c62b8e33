//! To a collector: spans and numbers enter, OTLP leaves, over gRPC or over HTTP with protobuf.
//!
//! Messages and clients are `opentelemetry-proto`'s. `opentelemetry-otlp` itself exports what the SDK collects, and its
//! metrics cannot be built from outside; here both signals come from what Prometheus and SQL read, by one sender.
//!
//! Nothing waits for a collector: spans go through a bounded queue, and what does not fit, or is not taken after a few
//! tries, is dropped and counted.

mod connect;
mod numbers;
mod send;
mod spans;

use std::time::Duration;

use ::http::{HeaderMap, Uri};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use thiserror::Error;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::Registry;
use super::trace::{Task, Tracer};
use crate::task::at;
use send::Sender;

/// Spans that wait.
const QUEUE_MAX: usize = 4_096;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// The first span of a batch waits no longer than this.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Of one try.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the second try and the third.
const RETRY_WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// What is left at the end of the process has this long.
const LAST_SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtlpProtocol {
    #[default]
    Grpc,
    /// HTTP/1.1 with protobuf, to `/v1/traces` and `/v1/metrics` below the endpoint.
    Http,
}

/// A collector and what it is sent.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// `http://host:port` or `https://host:port`.
    pub endpoint: Uri,
    pub protocol: OtlpProtocol,
    /// Of each request; those that are secret are marked as such.
    pub headers: HeaderMap,
    /// Between two pushes of all metrics.
    pub push_interval: Duration,
    /// Names of the metrics that are pushed; all when empty.
    pub metrics: Vec<String>,
    /// What is said of this process, beside `service.name`.
    pub resource: Vec<(String, String)>,
}

/// Why a collector has not taken something.
#[derive(Debug, Error)]
pub enum OtlpError {
    #[error("no trusted certificates: {0}")]
    Roots(String),
    #[error("collector {endpoint}: no answer within {} s", SEND_TIMEOUT.as_secs())]
    Timeout { endpoint: String },
    #[error("collector {endpoint} was not reached: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("collector {endpoint} refused: {reason}")]
    Refused { endpoint: String, reason: String, may_pass: bool },
}

impl OtlpError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Roots(_) => false,
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Refused { may_pass, .. } => *may_pass,
        }
    }
}

/// Sends for as long as it is run.
pub struct OtlpExporter {
    sender: Sender,
    spans: Receiver<Task>,
    registry: Registry,
    resource: Resource,
    otlp: Otlp,
}

impl OtlpExporter {
    /// Takes the tracer's spans from now on.
    ///
    /// # Errors
    /// [`OtlpError::Roots`] for a collector with TLS on a machine without certificates.
    pub fn try_new(otlp: Otlp, tracer: &Tracer, registry: Registry) -> Result<Self, OtlpError> {
        let sender = Sender::try_new(&otlp)?;
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        tracer.export_to(queue);
        let resource = Resource { attributes: attributes(&otlp), ..Resource::default() };
        Ok(Self { sender, spans, registry, resource, otlp })
    }

    /// Sends until `stop`; what is left then is tried once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch: Vec<Task> = Vec::with_capacity(BATCH_MAX);
        let mut due = None;
        let mut pushes = interval(self.otlp.push_interval);
        pushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = BATCH_MAX - batch.len();
            let is_due = tokio::select! {
                () = stop.cancelled() => break,
                taken = self.spans.recv_many(&mut batch, room) => {
                    if taken == 0 {
                        break;
                    }
                    due.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
                    batch.len() == BATCH_MAX
                }
                () = at(due) => true,
                _ = pushes.tick() => {
                    self.push(&RETRY_WAITS).await;
                    false
                }
            };
            if is_due {
                due = None;
                self.export(std::mem::take(&mut batch), &RETRY_WAITS).await;
            }
        }
        while let Ok(task) = self.spans.try_recv() {
            batch.push(task);
        }
        let last = async {
            for some in batch.chunks(BATCH_MAX) {
                self.export(some.to_vec(), &[]).await;
            }
            self.push(&[]).await;
        };
        if timeout(LAST_SEND_TIMEOUT, last).await.is_err() {
            tracing::warn!("the collector did not take the last spans and metrics in time");
        }
    }

    async fn export(&self, tasks: Vec<Task>, waits: &[Duration]) {
        if tasks.is_empty() {
            return;
        }
        let count = tasks.len() as u64;
        let request = spans::request(self.resource.clone(), scope(), &tasks);
        let sent = self.trying(waits, || self.sender.spans(&request)).await;
        told("traces", count, &sent);
    }

    async fn push(&self, waits: &[Duration]) {
        let mut families = self.registry.families();
        families.retain(|family| self.otlp.metrics.is_empty() || self.otlp.metrics.contains(&family.name));
        let count = families.iter().map(|family| family.series.len() as u64).sum();
        let request = numbers::request(self.resource.clone(), scope(), &families, self.registry.started());
        let sent = self.trying(waits, || self.sender.numbers(&request)).await;
        told("metrics", count, &sent);
    }

    async fn trying<F>(&self, waits: &[Duration], send: impl Fn() -> F) -> Result<(), OtlpError>
    where
        F: Future<Output = Result<(), OtlpError>>,
    {
        let mut waits = waits.iter();
        loop {
            let late = || OtlpError::Timeout { endpoint: self.otlp.endpoint.to_string() };
            let error = match timeout(SEND_TIMEOUT, send()).await.unwrap_or_else(|_| Err(late())) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match waits.next().filter(|_| error.may_pass()) {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Err(error),
            }
        }
    }
}

fn told(signal: &'static str, count: u64, sent: &Result<(), OtlpError>) {
    match sent {
        Ok(()) => metrics::counter!("otel_export_items", "signal" => signal).increment(count),
        Err(error) => {
            metrics::counter!("otel_export_dropped", "signal" => signal).increment(count);
            tracing::warn!(signal, %error, "not exported, dropped");
        }
    }
}

fn attributes(otlp: &Otlp) -> Vec<KeyValue> {
    let own = [("service.name", "sidewing"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let is_given = |key: &str| otlp.resource.iter().any(|(given, _)| given == key);
    let own = own.into_iter().filter(|(key, _)| !is_given(key));
    own.chain(otlp.resource.iter().cloned()).map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "sidewing".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

/// Nanoseconds since the epoch.
fn nanoseconds(moment: std::time::SystemTime) -> u64 {
    let since = moment.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
