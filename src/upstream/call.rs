//! A call to an upstream as a task of its own: it hangs on the query or refresh that runs, and ends with the last row.
//!
//! Where nothing runs (keepers look, handshakes are shared) there is no task, and nothing is said to the upstream.

use std::borrow::Cow;

use futures::StreamExt;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::error::UpstreamError;
use super::reader::{Passage, Received};
use crate::telemetry::{Context, Span, TraceState, Traceparent};

/// The task of every Flight request.
const TASK: &str = "flight_request";

/// One call with its retries. It is recorded when it is dropped.
pub(super) struct Call {
    span: Option<Span>,
    pub method: &'static str,
}

/// What a call has brought so far; told when it is dropped.
struct Brought {
    call: Call,
    received: Received,
    rows: u64,
}

impl Call {
    /// Begins now, below the current task. `input` is the statement that is sent.
    pub fn begin(method: &'static str, endpoint: &str, input: &str) -> Self {
        let span = Context::current().map(|current| current.child(TASK, input));
        let call = Self { span, method };
        call.label("method", method);
        call.label("endpoint", endpoint.to_owned());
        call
    }

    /// Where its requests happen.
    pub fn context(&self) -> Option<Context> {
        self.span.as_ref().map(|span| span.context().clone())
    }

    pub fn retried(&self, times: u32) {
        self.label("retries", times.to_string());
    }

    /// The text of an upstream's error holds no secret.
    pub fn failed(&self, error: &UpstreamError) {
        if let Some(span) = &self.span {
            span.fail(&error.to_string());
        }
    }

    /// The same rows; the call ends with them.
    pub fn follow(self, passage: Passage) -> Passage {
        if self.span.is_none() {
            return passage;
        }
        let mut brought = Brought { call: self, received: passage.received.clone(), rows: 0 };
        let parts = passage.parts.inspect(move |part| match part {
            Ok(part) => brought.rows += part.rows() as u64,
            Err(error) => brought.call.failed(error),
        });
        Passage { parts: parts.boxed(), ..passage }
    }

    fn label(&self, key: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(span) = &self.span {
            span.context().label(key, value);
        }
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        self.call.label("rows", self.rows.to_string());
        self.call.label("bytes", self.received.bytes().to_string());
    }
}

/// Says whose request it is: W3C Trace Context as metadata.
pub(super) fn say(caller: &Traceparent, metadata: &mut MetadataMap) {
    let texts = [
        ("traceparent", Some(caller.header())),
        ("tracestate", caller.state.as_ref().map(TraceState::as_str).map(str::to_owned)),
    ];
    for (name, text) in texts {
        // Both are visible ASCII.
        if let Some(value) = text.and_then(|text| MetadataValue::try_from(text).ok()) {
            metadata.insert(name, value);
        }
    }
}
