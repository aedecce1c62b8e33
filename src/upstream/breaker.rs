//! Whether an upstream is asked at all: outcomes of calls enter, leave to go or a refusal leaves. Pure: time and
//! chance are handed in.
//!
//! Failures in a row, or too large a part of the last calls, open it. While it is open nobody goes. Then one call at a
//! time goes as a probe: its success closes, its failure opens for twice as long.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures without a success between them open it.
pub(super) const FAILURES_IN_A_ROW: u32 = 5;
/// Half of the last outcomes open it too, when there were so many.
const RATE_OUTCOMES_MIN: u32 = 20;
/// The rate is that of so many seconds.
const WINDOW_SECONDS: usize = 10;
/// From the opening to the first probe, at most; half of it at least.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// From the beginning of a probe that failed to the next one, at most. With what a connection takes this stays below
/// the five seconds in which an upstream that came back is used again.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The breaker of one endpoint.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Counts openings, probes and closings: what was allowed before the last of them says nothing any more.
    era: u64,
    in_a_row: u32,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open {
        since: Instant,
        until: Instant,
        /// How long it was opened for, without chance.
        pause: Duration,
    },
    HalfOpen {
        since: Instant,
        pause: Duration,
        /// When the probe under way began.
        probe: Option<Instant>,
    },
}

/// Leave to make one call; whoever has it says how the call went, or that it was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    era: u64,
}

/// How a call went, as far as the upstream is to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The upstream answered, be it with the user's own error.
    Answered,
    Failed,
    /// Nobody waited for the end.
    GivenUp,
}

/// No leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub since: Instant,
    /// When the next probe may go; `None` while one is under way.
    pub next: Option<Instant>,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Opened(Cause),
    /// The probe failed.
    Reopened,
    Closed,
}

/// Why it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    InARow(u32),
    Rate { failed: u32, of: u32 },
}

/// What people call its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go.
    Closed,
    /// One call at a time goes, to find out.
    HalfOpen,
    /// No call goes.
    Open,
}

impl Breaker {
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, era: 0, in_a_row: 0, window: Window::new(now) }
    }

    pub fn state(&self) -> CircuitState {
        match self.state {
            State::Closed => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// How many failures there were since the last success.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Whether a call would be refused now, and why; changes nothing.
    pub fn refusal(&self, now: Instant) -> Option<Refused> {
        match self.state {
            State::Open { since, until, .. } if now < until => Some(Refused { since, next: Some(until) }),
            State::HalfOpen { since, probe: Some(_), .. } => Some(Refused { since, next: None }),
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Whether the next call would be a probe.
    pub fn is_probe_due(&self, now: Instant) -> bool {
        self.state != State::Closed && self.refusal(now).is_none()
    }

    /// Leave for one call.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Refused> {
        if let Some(refused) = self.refusal(now) {
            return Err(refused);
        }
        if let State::Open { since, pause, .. } | State::HalfOpen { since, pause, .. } = self.state {
            self.state = State::HalfOpen { since, pause, probe: Some(now) };
            self.era += 1;
        }
        Ok(Ticket { era: self.era })
    }

    /// The end of a call that had leave. `jitter` is in `0.0..1.0`.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome, now: Instant, jitter: f64) -> Change {
        if ticket.era != self.era {
            return Change::Nothing;
        }
        match (self.state, outcome) {
            (State::HalfOpen { since, pause, .. }, Outcome::GivenUp) => {
                self.state = State::HalfOpen { since, pause, probe: None };
                self.era += 1;
                Change::Nothing
            }
            (_, Outcome::GivenUp) | (State::Open { .. }, Outcome::Answered) => Change::Nothing,
            (_, Outcome::Failed) => self.fail(now, jitter),
            (State::Closed, Outcome::Answered) => {
                self.in_a_row = 0;
                self.window.add(now, false);
                Change::Nothing
            }
            (State::HalfOpen { .. }, Outcome::Answered) => {
                *self = Self { era: self.era + 1, ..Self::new(now) };
                Change::Closed
            }
        }
    }

    /// A failure that no single call stands for: a connection that could not be made, or that died.
    pub fn fail(&mut self, now: Instant, jitter: f64) -> Change {
        self.in_a_row = self.in_a_row.saturating_add(1);
        match self.state {
            State::Closed => {
                self.window.add(now, true);
                let Some(cause) = self.cause(now) else { return Change::Nothing };
                let until = now + jittered(PAUSE_FIRST, jitter);
                self.state = State::Open { since: now, until, pause: PAUSE_FIRST };
                self.era += 1;
                Change::Opened(cause)
            }
            // What ends late belongs to the opening.
            State::Open { until, .. } if now < until => Change::Nothing,
            State::Open { since, pause, .. } => self.reopen(since, pause, now, now, jitter),
            State::HalfOpen { since, pause, probe } => {
                self.reopen(since, pause, probe.unwrap_or(now), now, jitter)
            }
        }
    }

    /// There is a sign that the upstream is back: the next call may go as a probe.
    pub fn invite(&mut self, now: Instant) {
        if let State::Open { until, .. } = &mut self.state {
            *until = now.min(*until);
        }
    }

    /// Counted from the probe's beginning: a probe that took its time was a pause already.
    fn reopen(
        &mut self,
        since: Instant,
        pause: Duration,
        begun: Instant,
        now: Instant,
        jitter: f64,
    ) -> Change {
        let pause = (pause * 2).min(PAUSE_MAX);
        let until = (begun + jittered(pause, jitter)).max(now);
        self.state = State::Open { since, until, pause };
        self.era += 1;
        Change::Reopened
    }

    fn cause(&self, now: Instant) -> Option<Cause> {
        if self.in_a_row >= FAILURES_IN_A_ROW {
            return Some(Cause::InARow(self.in_a_row));
        }
        let (failed, of) = self.window.sums(now);
        (of >= RATE_OUTCOMES_MIN && failed * 2 >= of).then_some(Cause::Rate { failed, of })
    }
}

/// Between half of `pause` and the whole of it, so that sidecars do not probe together.
fn jittered(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Outcomes by the second.
#[derive(Debug)]
struct Window {
    epoch: Instant,
    slots: [Slot; WINDOW_SECONDS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    failed: u32,
    of: u32,
}

impl Window {
    fn new(epoch: Instant) -> Self {
        Self { epoch, slots: [Slot::default(); WINDOW_SECONDS] }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    fn add(&mut self, now: Instant, has_failed: bool) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % WINDOW_SECONDS as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.of = slot.of.saturating_add(1);
        slot.failed = slot.failed.saturating_add(u32::from(has_failed));
    }

    /// Failures, and all outcomes.
    fn sums(&self, now: Instant) -> (u32, u32) {
        let oldest = self.second(now).saturating_sub(WINDOW_SECONDS as u64 - 1);
        let recent = self.slots.iter().filter(|slot| slot.second >= oldest);
        recent.fold((0, 0), |(failed, of), slot| (failed + slot.failed, of + slot.of))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(now: Instant, ms: u64) -> Instant {
        now + Duration::from_millis(ms)
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        for _ in 0..FAILURES_IN_A_ROW {
            breaker.fail(now, 1.0);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        for round in 0..3 {
            for _ in 0..4 {
                let ticket = breaker.admit(now).unwrap();
                assert_eq!(breaker.record(ticket, Outcome::Failed, now, 0.0), Change::Nothing, "{round}");
            }
            let ticket = breaker.admit(now).unwrap();
            breaker.record(ticket, Outcome::Answered, now, 0.0);
        }
        assert_eq!(breaker.state(), CircuitState::Closed);
        let mut last = Change::Nothing;
        for _ in 0..FAILURES_IN_A_ROW {
            let ticket = breaker.admit(now).unwrap();
            last = breaker.record(ticket, Outcome::Failed, now, 0.0);
        }
        assert!(matches!(last, Change::Opened(Cause::InARow(5) | Cause::Rate { .. })), "{last:?}");
        assert!(breaker.admit(now).is_err());
    }

    #[test]
    fn half_of_many_calls_open_it_and_old_ones_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let mut alternate = |times: u32, at: Instant| {
            let mut last = Change::Nothing;
            for _ in 0..times {
                for outcome in [Outcome::Answered, Outcome::Failed] {
                    let Ok(ticket) = breaker.admit(at) else { return last };
                    last = breaker.record(ticket, outcome, at, 0.0);
                }
            }
            last
        };
        assert_eq!(alternate(9, now), Change::Nothing);
        assert_eq!(alternate(9, after(now, 11_000)), Change::Nothing);
        assert_eq!(alternate(9, after(now, 12_000)), Change::Opened(Cause::Rate { failed: 10, of: 20 }));
    }

    #[test]
    fn one_probe_at_a_time_from_one_second_to_four() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let refused = breaker.admit(now).unwrap_err();
            let next = refused.next.unwrap();
            assert_eq!(refused.since, start);
            pauses.push((next - now).as_millis());
            now = next;
            let probe = breaker.admit(now).unwrap();
            assert_eq!(breaker.admit(now).unwrap_err().next, None, "a second probe");
            assert_eq!(breaker.record(probe, Outcome::Failed, now, 1.0), Change::Reopened);
        }
        assert_eq!(pauses, [1000, 2000, 4000, 4000, 4000]);
        now = after(now, 4000);
        let probe = breaker.admit(now).unwrap();
        assert_eq!(breaker.record(probe, Outcome::Answered, now, 1.0), Change::Closed);
        assert!(breaker.admit(now).is_ok() && breaker.admit(now).is_ok());
    }

    #[test]
    fn a_probe_that_was_slow_has_paused_already() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let begun = after(now, 1000);
        let probe = breaker.admit(begun).unwrap();
        let failed = after(begun, 3000);
        breaker.record(probe, Outcome::Failed, failed, 1.0);
        assert!(breaker.admit(failed).is_ok(), "two seconds from its beginning are over");
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_its_place_and_says_nothing_later() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let now = after(now, 1000);
        let gone = breaker.admit(now).unwrap();
        breaker.record(gone, Outcome::GivenUp, now, 1.0);
        let probe = breaker.admit(now).unwrap();
        assert_eq!(breaker.record(gone, Outcome::Answered, now, 1.0), Change::Nothing);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        assert_eq!(breaker.record(probe, Outcome::Answered, now, 1.0), Change::Closed);
    }

    #[test]
    fn what_was_allowed_before_it_opened_says_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let early = breaker.admit(now).unwrap();
        for _ in 0..FAILURES_IN_A_ROW {
            breaker.fail(now, 1.0);
        }
        assert_eq!(breaker.record(early, Outcome::Answered, now, 1.0), Change::Nothing);
        assert_eq!(breaker.state(), CircuitState::Open);
        breaker.invite(now);
        assert!(breaker.admit(now).is_ok());
    }

    /// What may happen to a breaker.
    #[derive(Debug, Clone)]
    enum Event {
        Wait(u64),
        Admit,
        /// One of the calls under way ends.
        End(prop::sample::Index, Outcome),
        Fail,
        Invite,
    }

    fn event() -> impl Strategy<Value = Event> {
        let outcome = prop_oneof![
            3 => Just(Outcome::Failed),
            2 => Just(Outcome::Answered),
            1 => Just(Outcome::GivenUp),
        ];
        prop_oneof![
            2 => (0u64..1500).prop_map(Event::Wait),
            4 => Just(Event::Admit),
            4 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, outcome)| Event::End(which, outcome)),
            1 => Just(Event::Fail),
            1 => Just(Event::Invite),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// Whatever happens: an open breaker refuses, for at most four seconds at a time; never are two probes under
        /// way; a closed one has fewer than five failures in a row; what fails is never what closes.
        #[test]
        fn no_history_breaks_its_promises(events in prop::collection::vec((event(), 0.0f64..1.0), 1..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(now);
            let mut calls: Vec<(Ticket, bool)> = Vec::new();
            let mut in_a_row = 0;
            for (event, jitter) in events {
                let was = breaker.state();
                let mut change = Change::Nothing;
                match event {
                    Event::Wait(ms) => now = after(now, ms),
                    Event::Admit => match breaker.admit(now) {
                        Ok(ticket) => {
                            let is_probe = breaker.state() == CircuitState::HalfOpen;
                            let probes = calls.iter().filter(|(t, is_probe)| *is_probe && t.era == breaker.era);
                            prop_assert_eq!(probes.count(), 0, "a second probe");
                            prop_assert_eq!(is_probe, was != CircuitState::Closed);
                            calls.push((ticket, is_probe));
                        }
                        Err(refused) => {
                            prop_assert_ne!(was, CircuitState::Closed);
                            if let Some(next) = refused.next {
                                prop_assert!(next > now && next - now <= PAUSE_MAX);
                            }
                        }
                    },
                    Event::End(which, outcome) if !calls.is_empty() => {
                        let (ticket, _) = calls.swap_remove(which.index(calls.len()));
                        change = breaker.record(ticket, outcome, now, jitter);
                        prop_assert!(change != Change::Closed || outcome == Outcome::Answered);
                        prop_assert!(change == Change::Nothing || outcome != Outcome::GivenUp);
                        if was == CircuitState::Closed {
                            match outcome {
                                Outcome::Answered if ticket.era == breaker.era => in_a_row = 0,
                                Outcome::Failed if change != Change::Nothing || ticket.era == breaker.era => in_a_row += 1,
                                _ => {}
                            }
                        }
                    }
                    Event::End(..) => {}
                    Event::Fail => {
                        change = breaker.fail(now, jitter);
                        in_a_row += 1;
                    }
                    Event::Invite => breaker.invite(now),
                }
                match change {
                    Change::Closed => in_a_row = 0,
                    Change::Opened(_) => prop_assert_eq!(was, CircuitState::Closed),
                    Change::Reopened => prop_assert_ne!(was, CircuitState::Closed),
                    Change::Nothing => {}
                }
                if breaker.state() == CircuitState::Closed {
                    prop_assert!(in_a_row < FAILURES_IN_A_ROW, "{in_a_row} failures");
                }
            }
        }
    }
}
