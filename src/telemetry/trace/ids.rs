//! W3C Trace Context: headers enter, ids leave, and headers again.
//!
//! <https://www.w3.org/TR/trace-context/>. A header that is not well formed is no header: a trace begins here then.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use uuid::fmt::Simple;

/// Longer ones are not passed on.
const STATE_BYTES_MAX: usize = 512;
/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const PARENT_BYTES: usize = 55;
const SAMPLED: u8 = 1;

/// The ids of one span. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    pub trace: u128,
    pub span: u64,
}

/// `tracestate`: passed on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

/// The span of who asks, in whatever process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traceparent {
    pub ids: Ids,
    /// Whether its spans are to be exported.
    pub is_sampled: bool,
    pub state: Option<TraceState>,
}

impl Ids {
    /// The first span of a new trace.
    #[must_use]
    pub fn random() -> Self {
        Self { trace: rand::random::<u128>().max(1), span: random_span() }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span: random_span(), ..self }
    }

    /// The trace's id as 32 digits.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span's id as 16 digits.
    #[must_use]
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }
}

fn random_span() -> u64 {
    rand::random::<u64>().max(1)
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{:016x}", self.trace, self.span)
    }
}

impl TraceState {
    /// None for a text that cannot be passed on as a header, or that is longer than has to be passed on.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_passed = !text.trim().is_empty()
            && text.len() <= STATE_BYTES_MAX
            && text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
        is_passed.then(|| Self(text.trim().into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Traceparent {
    /// Reads the headers of one request. `state` may come in several headers, which are one list.
    ///
    /// ```
    /// use sidewing::telemetry::Traceparent;
    /// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let caller = Traceparent::read(Some(header), ["vendor=1"]).unwrap();
    /// assert_eq!(caller.ids.span_id(), "00f067aa0ba902b7");
    /// assert_eq!(caller.header(), header);
    /// assert!(Traceparent::read(Some("nonsense"), []).is_none());
    /// ```
    #[must_use]
    pub fn read<'a>(parent: Option<&str>, state: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let (ids, flags) = parse(parent?.trim())?;
        let state: Vec<&str> = state.into_iter().collect();
        Some(Self { ids, is_sampled: flags & SAMPLED != 0, state: TraceState::new(&state.join(",")) })
    }

    /// As a `traceparent` header.
    #[must_use]
    pub fn header(&self) -> String {
        let mut digits = [[0; Simple::LENGTH]; 2];
        let [trace, span] = &mut digits;
        let trace = Simple::from_uuid(Uuid::from_u128(self.ids.trace)).encode_lower(trace);
        let span = Simple::from_uuid(Uuid::from_u128(self.ids.span.into())).encode_lower(span);
        ["00-", trace, "-", &span[Simple::LENGTH / 2..], if self.is_sampled { "-01" } else { "-00" }].concat()
    }
}

/// Ids and flags. Of a version to come, what this one has is read.
fn parse(header: &str) -> Option<(Ids, u8)> {
    let known = header.get(..PARENT_BYTES)?;
    let rest = &header[PARENT_BYTES..];
    let [version, trace, span, flags] = known.split('-').collect::<Vec<_>>().try_into().ok()?;
    let version = u8::try_from(hex(version, 2)?).ok()?;
    if version == u8::MAX || (version == 0 && !rest.is_empty()) || !(rest.is_empty() || rest.starts_with('-'))
    {
        return None;
    }
    let ids = Ids { trace: hex(trace, 32)?, span: u64::try_from(hex(span, 16)?).ok()? };
    let flags = u8::try_from(hex(flags, 2)?).ok()?;
    (ids.trace != 0 && ids.span != 0).then_some((ids, flags))
}

/// Small letters alone, and so many digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_right = text.len() == digits && text.bytes().all(is_hex);
    is_right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(header: &str) -> Option<Traceparent> {
        Traceparent::read(Some(header), [])
    }

    /// The cases of the W3C's own test suite.
    #[test]
    fn headers_are_read_as_the_recommendation_says() {
        let flags = |header: &str| read(header).map(|caller| caller.is_sampled);
        assert_eq!(flags(&format!("00-{TRACE}-{SPAN}-01")), Some(true));
        assert_eq!(flags(&format!("00-{TRACE}-{SPAN}-00")), Some(false));
        assert_eq!(flags(&format!("00-{TRACE}-{SPAN}-ff")), Some(true));
        assert_eq!(flags(&format!("cc-{TRACE}-{SPAN}-01-what-comes-then")), Some(true));
        assert_eq!(flags(&format!("  00-{TRACE}-{SPAN}-01 ")), Some(true));
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{:032}-{SPAN}-01", 0),
            format!("00-{TRACE}-{:016}-01", 0),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}{SPAN}--01"),
            format!("00-{}é-{SPAN}-01", &TRACE[..30]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_is_passed_on_as_it_came() {
        let state = |states: &[&str]| {
            let header = format!("00-{TRACE}-{SPAN}-01");
            let caller = Traceparent::read(Some(&header), states.iter().copied()).unwrap();
            caller.state.map(|state| state.as_str().to_owned())
        };
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&[]), None);
        assert_eq!(state(&["a=\n1"]), None);
        assert_eq!(state(&["a".repeat(513).as_str()]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., is_sampled: bool) {
            let caller = Traceparent { ids: Ids { trace, span }, is_sampled, state: None };
            prop_assert_eq!(read(&caller.header()), Some(caller));
        }

        #[test]
        fn no_text_is_too_strange(header in "\\PC{0,80}") {
            let _ = read(&header);
        }
    }
}
