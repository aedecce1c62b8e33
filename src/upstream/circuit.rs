//! A [`Breaker`] with a clock, a voice and a memory: the log hears when it opens and closes, the metrics its state, and
//! whoever is refused reads since when, why, and until when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::breaker::{Breaker, Cause, Change, CircuitState, Outcome, Refused, Ticket};
use super::error::{ErrorKind, Step, UpstreamError};

/// The circuit of one endpoint.
pub(super) struct Circuit {
    endpoint: String,
    inner: Mutex<Inner>,
}

struct Inner {
    breaker: Breaker,
    /// The last opening.
    opened: Option<Opening>,
    last: Option<UpstreamError>,
}

#[derive(Clone, Copy)]
struct Opening {
    at: SystemTime,
    cause: Cause,
}

/// Leave for one call. Dropped without a word, it was given up.
pub(super) struct Pass {
    circuit: Arc<Circuit>,
    ticket: Option<Ticket>,
}

/// What is shown of a circuit.
pub(super) struct Shown {
    pub state: CircuitState,
    /// Since when it lets nothing through, probes apart.
    pub since: Option<SystemTime>,
    /// The last failure, while there was no success after it.
    pub last_error: Option<String>,
}

impl Circuit {
    pub fn new(endpoint: String) -> Self {
        let inner = Inner { breaker: Breaker::new(Instant::now()), opened: None, last: None };
        Self { endpoint, inner: Mutex::new(inner) }
    }

    /// Leave for one call.
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`]: what, since when, why, and when the next call may go.
    pub fn admit(self: &Arc<Self>) -> Result<Pass, UpstreamError> {
        let mut inner = self.lock();
        match inner.breaker.admit(Instant::now()) {
            Ok(ticket) => {
                if inner.breaker.state() == CircuitState::HalfOpen {
                    self.show(CircuitState::HalfOpen);
                }
                Ok(Pass { circuit: Arc::clone(self), ticket: Some(ticket) })
            }
            Err(refused) => Err(self.refusal(&inner, refused)),
        }
    }

    /// Whether a call would have leave now; takes none.
    ///
    /// # Errors
    /// As [`Circuit::admit`].
    pub fn check(&self) -> Result<(), UpstreamError> {
        let inner = self.lock();
        match inner.breaker.refusal(Instant::now()) {
            Some(refused) => Err(self.refusal(&inner, refused)),
            None => Ok(()),
        }
    }

    /// Whether the next call would be a probe.
    pub fn is_probe_due(&self) -> bool {
        self.lock().breaker.is_probe_due(Instant::now())
    }

    /// A failure that no single call stands for.
    pub fn fail(&self, error: &UpstreamError) {
        let mut inner = self.lock();
        inner.last = Some(error.clone());
        let change = inner.breaker.fail(Instant::now(), rand::random());
        self.tell(&mut inner, change);
    }

    /// There is a sign that the upstream is back.
    pub fn invite(&self) {
        self.lock().breaker.invite(Instant::now());
    }

    pub fn shown(&self) -> Shown {
        let inner = self.lock();
        let state = inner.breaker.state();
        let is_closed = state == CircuitState::Closed;
        Shown {
            state,
            since: inner.opened.filter(|_| !is_closed).map(|opening| opening.at),
            last_error: inner
                .last
                .as_ref()
                .filter(|_| !is_closed || inner.breaker.in_a_row() > 0)
                .map(|error| error.message.clone()),
        }
    }

    /// Shows the state in the metrics, from the start.
    pub fn announce(&self) {
        metrics::counter!("upstream_circuit_opened", "endpoint" => self.endpoint.clone()).absolute(0);
        let state = self.lock().breaker.state();
        self.show(state);
    }

    fn show(&self, state: CircuitState) {
        let value = match state {
            CircuitState::Closed => 0.0,
            CircuitState::HalfOpen => 1.0,
            CircuitState::Open => 2.0,
        };
        metrics::gauge!("upstream_circuit_state", "endpoint" => self.endpoint.clone()).set(value);
    }

    fn record(&self, ticket: Ticket, outcome: Outcome, error: Option<&UpstreamError>) {
        let mut inner = self.lock();
        if let Some(error) = error {
            inner.last = Some(error.clone());
        }
        let change = inner.breaker.record(ticket, outcome, Instant::now(), rand::random());
        self.tell(&mut inner, change);
    }

    fn tell(&self, inner: &mut Inner, change: Change) {
        let endpoint = &self.endpoint;
        let error = inner.last.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        match change {
            Change::Nothing => return,
            Change::Opened(cause) => {
                tracing::warn!(endpoint, error, cause = words(cause), "upstream circuit opened");
                metrics::counter!("upstream_circuit_opened", "endpoint" => endpoint.clone()).increment(1);
                inner.opened = Some(Opening { at: SystemTime::now(), cause });
            }
            Change::Reopened => tracing::debug!(endpoint, error, "upstream probe failed"),
            Change::Closed => tracing::info!(endpoint, "upstream circuit closed"),
        }
        self.show(inner.breaker.state());
    }

    fn refusal(&self, inner: &Inner, refused: Refused) -> UpstreamError {
        let now = Instant::now();
        let seconds = now.saturating_duration_since(refused.since).as_secs();
        let mut message = format!("nothing was sent there for {seconds} s");
        if let Some(Opening { at, cause }) = inner.opened {
            let at = DateTime::<Utc>::from(at).format("%Y-%m-%d %H:%M:%S");
            message = format!("{message}, since {at} UTC, because {}", words(cause));
        }
        let (message, help) = match &inner.last {
            Some(last) => (format!("{message}; the last: {}", last.message), last.help.clone()),
            None => (message, None),
        };
        let next = match refused.next {
            Some(next) => format!("the next call may try in {}", short(next.saturating_duration_since(now))),
            None => "a call tries it now".to_owned(),
        };
        let message = format!("UpstreamCircuitOpen: {message}; {next}");
        let help = help.unwrap_or_else(|| "check that the upstream runs".to_owned());
        UpstreamError::new(ErrorKind::CircuitOpen, Step::Query, &self.endpoint, message).with_help(help)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn words(cause: Cause) -> String {
    match cause {
        Cause::InARow(count) => format!("{count} failures came in a row"),
        Cause::Rate { failed, of } => format!("{failed} of {of} calls failed"),
    }
}

/// `0.8 s`.
fn short(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

impl Pass {
    /// The upstream answered.
    pub fn answered(mut self) {
        self.end(Outcome::Answered, None);
    }

    pub fn failed(mut self, error: &UpstreamError) {
        self.end(Outcome::Failed, Some(error));
    }

    fn end(&mut self, outcome: Outcome, error: Option<&UpstreamError>) {
        if let Some(ticket) = self.ticket.take() {
            self.circuit.record(ticket, outcome, error);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end(Outcome::GivenUp, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::FAILURES_IN_A_ROW;
    use super::*;

    #[test]
    fn who_is_refused_reads_what_since_when_and_why() {
        let circuit = Arc::new(Circuit::new("https://core:50051".to_owned()));
        let refused = UpstreamError::new(ErrorKind::Connect, Step::Tcp, "https://core:50051", "nobody there")
            .with_help("check that the upstream runs");
        for _ in 0..FAILURES_IN_A_ROW {
            circuit.admit().unwrap_or_else(|error| panic!("{error}")).failed(&refused);
        }
        let Err(error) = circuit.admit() else { panic!("a call went") };
        assert_eq!(error.kind, ErrorKind::CircuitOpen);
        let digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
        insta::assert_snapshot!(digits(&error.to_string()), @"upstream https://core:00000: UpstreamCircuitOpen: nothing was sent there for 0 s, since 0000-00-00 00:00:00 UTC, because 0 failures came in a row; the last: nobody there; the next call may try in 0.0 s (check that the upstream runs)");
        let shown = circuit.shown();
        assert_eq!((shown.state, shown.last_error.as_deref()), (CircuitState::Open, Some("nobody there")));
        assert!(shown.since.is_some());
    }

    #[test]
    fn a_dropped_pass_frees_the_probe() {
        let circuit = Arc::new(Circuit::new("https://core:50051".to_owned()));
        let error = UpstreamError::new(ErrorKind::Unavailable, Step::Query, "https://core:50051", "busy");
        for _ in 0..FAILURES_IN_A_ROW {
            circuit.fail(&error);
        }
        circuit.invite();
        let probe = circuit.admit().unwrap_or_else(|error| panic!("{error}"));
        assert!(circuit.check().is_err());
        drop(probe);
        assert!(circuit.is_probe_due());
        circuit.admit().unwrap_or_else(|error| panic!("{error}")).answered();
        assert_eq!(circuit.shown().state, CircuitState::Closed);
    }
}
