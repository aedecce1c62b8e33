//! How long a wait is: an interval, a cron expression, or the pause before a retry, each with its jitter.
//!
//! The clock and the dice are arguments.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use rand::Rng;

use super::schedule::Until;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// When a dataset is refreshed by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cadence {
    pub when: When,
    /// Each wait differs from the plain one by at most this much.
    pub jitter_max: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum When {
    Never,
    /// So long after the end of the refresh before.
    Every(Duration),
    /// At these moments, UTC.
    At(Box<Cron>),
}

impl Cadence {
    /// From `now` until the next refresh; none when only being asked ends the wait.
    pub(super) fn wait(&self, until: Until, now: DateTime<Utc>, dice: &mut impl Rng) -> Option<Duration> {
        match until {
            Until::Asked => None,
            Until::Retry { failures } => Some(pause(failures, dice)),
            Until::Due => {
                let plain = match &self.when {
                    When::Never => return None,
                    When::Every(interval) => *interval,
                    When::At(cron) => (cron.find_next_occurrence(&now, false).ok()? - now).to_std().ok()?,
                };
                let jitter = self.jitter(dice);
                // Before the moment of a cron expression nothing is refreshed.
                let is_early = matches!(self.when, When::Every(_)) && dice.random();
                Some(if is_early { plain.saturating_sub(jitter) } else { plain.saturating_add(jitter) })
            }
        }
    }

    /// What a first load waits, so that many processes that start together do not ask together.
    pub(super) fn jitter(&self, dice: &mut impl Rng) -> Duration {
        self.jitter_max.map_or(Duration::ZERO, |most| most.mul_f64(dice.random_range(0.0..=1.0)))
    }
}

/// Twice as long after each failure, up to a minute; between half of it and the whole.
fn pause(failures: u32, dice: &mut impl Rng) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    RETRY_FIRST.saturating_mul(doubled).min(RETRY_MAX).mul_f64(dice.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn waits(cadence: &Cadence, until: Until) -> Vec<Option<Duration>> {
        let now = Utc.with_ymd_and_hms(2024, 2, 28, 23, 59, 30).unwrap();
        let mut dice = StdRng::seed_from_u64(7);
        (0..200).map(|_| cadence.wait(until, now, &mut dice)).collect()
    }

    #[test]
    fn jitter_goes_both_ways_around_an_interval_and_only_after_a_cron_moment() {
        let second = Duration::from_secs(1);
        let every = Cadence { when: When::Every(10 * second), jitter_max: Some(second) };
        let all: Vec<Duration> = waits(&every, Until::Due).into_iter().map(Option::unwrap).collect();
        assert!(all.iter().all(|wait| (9 * second..=11 * second).contains(wait)), "{all:?}");
        assert!(all.iter().any(|wait| *wait < 10 * second) && all.iter().any(|wait| *wait > 10 * second));

        let cron = Box::new("0 0 * * *".parse().unwrap());
        let daily = Cadence { when: When::At(cron), jitter_max: Some(second) };
        let all = waits(&daily, Until::Due);
        assert!(all.iter().flatten().all(|wait| (30 * second..=31 * second).contains(wait)), "{all:?}");
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let never = Cadence { when: When::Never, jitter_max: None };
        for (failures, longest) in [(1, 500), (2, 1_000), (5, 8_000), (9, 60_000), (u32::MAX, 60_000)] {
            let longest = Duration::from_millis(longest);
            let all = waits(&never, Until::Retry { failures });
            assert!(all.iter().flatten().all(|wait| (longest / 2..=longest).contains(wait)), "{failures}");
        }
        assert!(waits(&never, Until::Due).iter().all(Option::is_none));
    }
}
