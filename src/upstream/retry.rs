//! Whether and when a failed call is made again: pure, time and chance are handed in.
//!
//! Only calls that change nothing come here, and only before their first batch.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{ErrorKind, UpstreamError};

/// The first attempt included.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// No new attempt after so long since the first. An attempt under way is never cut.
pub(super) const ATTEMPT_WINDOW: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One retry for so many requests.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries that are free, however few the requests.
const RETRIES_PER_SECOND: u64 = 10;
/// The budget counts over so many seconds.
const WINDOW_SECONDS: usize = 10;

/// The attempts of one call.
pub(super) struct Attempts {
    made: u32,
    started: Instant,
}

impl Attempts {
    pub fn start(now: Instant) -> Self {
        Self { made: 1, started: now }
    }

    pub fn made(&self) -> u32 {
        self.made
    }

    /// How long to wait before the next attempt; `None`: the error stands. `jitter` is in `0.0..1.0`.
    pub fn next(
        &mut self,
        error: &UpstreamError,
        budget: &mut Budget,
        now: Instant,
        jitter: f64,
    ) -> Option<Duration> {
        if !error.is_retryable() || error.kind == ErrorKind::Dns && self.made >= 2 {
            return None;
        }
        let wait = backoff(self.made, jitter);
        let is_late = now.saturating_duration_since(self.started) + wait > ATTEMPT_WINDOW;
        if self.made >= ATTEMPTS_MAX || is_late || !budget.withdraw(now) {
            return None;
        }
        self.made += 1;
        Some(wait)
    }
}

/// Doubles with every attempt; between half and all of it, so that callers spread out.
fn backoff(made: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << made.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// What the callers of one upstream may retry together: a fifth of their requests and ten a second, over
/// ten seconds.
pub(super) struct Budget {
    epoch: Instant,
    slots: [Slot; WINDOW_SECONDS],
}

#[derive(Clone, Copy, Default)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, slots: [Slot::default(); WINDOW_SECONDS] }
    }

    /// Counts a call, not its retries.
    pub fn deposit(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry, if there is one left.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        let oldest = self.second(now).saturating_sub(WINDOW_SECONDS as u64 - 1);
        let (requests, retries) = self
            .slots
            .iter()
            .filter(|slot| slot.second >= oldest)
            .fold((0, 0), |(requests, retries), slot| (requests + slot.requests, retries + slot.retries));
        let allowed = requests / REQUESTS_PER_RETRY + RETRIES_PER_SECOND * WINDOW_SECONDS as u64;
        if retries >= allowed {
            return false;
        }
        self.slot(now).retries += 1;
        true
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = self.second(now);
        let slot = &mut self.slots[(second % WINDOW_SECONDS as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::error::Step;
    use super::*;

    fn error(kind: ErrorKind) -> UpstreamError {
        UpstreamError::new(kind, Step::Query, "http://a:1", "no")
    }

    #[test]
    fn attempts_end_by_count_time_kind_and_budget() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let mut attempts = Attempts::start(now);
        let unavailable = error(ErrorKind::Unavailable);
        let waits: Vec<_> = std::iter::from_fn(|| attempts.next(&unavailable, &mut budget, now, 1.0))
            .map(|w| w.as_millis())
            .collect();
        assert_eq!(waits, [50, 100, 200, 400]);

        let late = now + ATTEMPT_WINDOW;
        assert_eq!(Attempts::start(now).next(&unavailable, &mut budget, late, 0.0), None);
        for kind in [ErrorKind::Auth, ErrorKind::Refused, ErrorKind::Tls, ErrorKind::ResourceExhausted] {
            assert_eq!(Attempts::start(now).next(&error(kind), &mut budget, now, 0.0), None);
        }
        while budget.withdraw(now) {}
        assert_eq!(Attempts::start(now).next(&unavailable, &mut budget, now, 0.0), None);
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let spent = std::iter::from_fn(|| budget.withdraw(now).then_some(())).count();
        assert_eq!(spent, 100);
        assert!(!budget.withdraw(now + Duration::from_secs(9)));
        assert!(budget.withdraw(now + Duration::from_secs(10)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_window_of_ten_seconds_exceeds_the_budget(
            steps in prop::collection::vec((0u64..400, 0u64..30, 0u64..60), 1..120)
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(start);
            let mut at = 0u64;
            let mut log: Vec<(u64, u64, u64)> = Vec::new();
            for (wait, requests, wanted) in steps {
                at += wait;
                let now = start + Duration::from_millis(at);
                for _ in 0..requests { budget.deposit(now); }
                let granted = (0..wanted).filter(|_| budget.withdraw(now)).count() as u64;
                log.push((at / 1000, requests, granted));
                let since = |seconds: u64| log.iter().filter(move |entry| entry.0 + seconds > at / 1000);
                let granted: u64 = since(10).map(|entry| entry.2).sum();
                // The oldest of these retries was paid for by requests of the ten seconds before it.
                let requests: u64 = since(19).map(|entry| entry.1).sum();
                prop_assert!(granted <= requests / 5 + 100);
            }
        }

        #[test]
        fn a_wait_lies_between_half_and_all_of_its_step(made in 1u32..40, jitter in 0.0f64..1.0) {
            let wait = backoff(made, jitter);
            prop_assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_MAX);
        }
    }
}
