//! W3C Trace Context of requests: headers or metadata enter, the caller's span leaves.

use ::http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::telemetry::Traceparent;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Of an HTTP request.
pub(super) fn of_headers(headers: &HeaderMap) -> Option<Traceparent> {
    let parent = headers.get(PARENT).and_then(|value| value.to_str().ok());
    read(parent, headers.get_all(STATE).iter().filter_map(|value| value.to_str().ok()))
}

/// Of a Flight call.
pub(super) fn of_metadata(metadata: &MetadataMap) -> Option<Traceparent> {
    let parent = metadata.get(PARENT).and_then(|value| value.to_str().ok());
    read(parent, metadata.get_all(STATE).iter().filter_map(|value| value.to_str().ok()))
}

/// None where there is none, or where it is not well formed: the request is answered all the same.
pub(super) fn read<'a>(
    parent: Option<&'a str>,
    state: impl IntoIterator<Item = &'a str>,
) -> Option<Traceparent> {
    let caller = Traceparent::read(parent, state);
    if let (Some(header), None) = (parent, &caller) {
        tracing::debug!(header, "a traceparent that is none, ignored");
    }
    caller
}
