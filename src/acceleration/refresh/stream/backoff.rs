//! How long to wait before the next connection. The dice are handed in.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(30);

/// Twice as long after each connection that brought nothing; between half of it and the whole.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Duration,
}

impl Backoff {
    /// A connection has made the dataset whole: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The same for one that lived longer than was waited for it.
    pub(super) fn lived(&mut self, time: Duration) {
        if time > self.last.max(FIRST) {
            self.reset();
        }
    }

    pub(super) fn next(&mut self, dice: &mut impl Rng) -> Duration {
        let doubled = FIRST.saturating_mul(2u32.saturating_pow(self.failures.min(16))).min(MAX);
        self.failures = self.failures.saturating_add(1);
        self.last = doubled.mul_f64(dice.random_range(0.5..=1.0));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_begin_again() {
        let mut dice = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        for at in 0..40 {
            let whole = FIRST.saturating_mul(1 << at.min(16)).min(MAX);
            let wait = backoff.next(&mut dice);
            assert!(wait >= whole / 2 && wait <= whole, "{at}: {wait:?}");
        }
        backoff.lived(MAX / 4);
        assert!(backoff.next(&mut dice) >= MAX / 2);
        backoff.lived(MAX + FIRST);
        assert!(backoff.next(&mut dice) <= FIRST);
        let _ = backoff.next(&mut dice);
        backoff.reset();
        assert!(backoff.next(&mut dice) <= FIRST);
    }
}
