//! How long a token or a lease holds, and when to do something about it. Pure: the clock comes from outside.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// From when on, and for how long; none is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    begun: Instant,
    ttl: Option<Duration>,
    is_renewable: bool,
}

/// Where in its life something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Fresh,
    /// More than half is over, and it can be made longer.
    Renew,
    /// It is over, or will be soon and cannot be made longer.
    Over,
}

/// What is left when a thing that cannot be renewed is replaced: a tenth, so that nobody meets its end.
const RESERVE: u32 = 10;

impl Term {
    pub(super) fn new(begun: Instant, seconds: u64, is_renewable: bool) -> Self {
        Self { begun, ttl: (seconds > 0).then(|| Duration::from_secs(seconds)), is_renewable }
    }

    /// What a login or a renewal of a token answers.
    pub(super) fn of_auth(answer: &Value) -> Option<Self> {
        let auth = answer.get("auth")?;
        Some(Self::new(Instant::now(), auth["lease_duration"].as_u64()?, auth["renewable"].as_bool()?))
    }

    /// What a secret or the renewal of its lease answers.
    pub(super) fn of_lease(answer: &Value) -> Option<Self> {
        let seconds = answer["lease_duration"].as_u64().filter(|seconds| *seconds > 0)?;
        Some(Self::new(Instant::now(), seconds, answer["renewable"].as_bool().unwrap_or(false)))
    }

    pub(super) fn stage(&self, now: Instant) -> Stage {
        let Some(ttl) = self.ttl else { return Stage::Fresh };
        let age = now.saturating_duration_since(self.begun);
        match self.is_renewable {
            _ if age >= ttl => Stage::Over,
            true if age >= ttl / 2 => Stage::Renew,
            false if age >= ttl - ttl / RESERVE => Stage::Over,
            _ => Stage::Fresh,
        }
    }

    /// Until something has to be done.
    pub(super) fn renew_in(&self, now: Instant) -> Option<Duration> {
        let ttl = self.ttl?;
        let due = if self.is_renewable { ttl / 2 } else { ttl - ttl / RESERVE };
        Some((self.begun + due).saturating_duration_since(now))
    }

    /// Whether a renewal has given again at least half of what there was before.
    pub(super) fn is_as_long_as(&self, before: &Self) -> bool {
        match (self.ttl, before.ttl) {
            (Some(ttl), Some(before)) => ttl * 2 >= before,
            (ttl, _) => ttl.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_term_is_fresh_then_renewed_then_over() {
        let begun = Instant::now();
        let stages = |is_renewable| {
            let term = Term::new(begun, 100, is_renewable);
            [0, 49, 50, 89, 90, 99, 100].map(|s| term.stage(begun + Duration::from_secs(s)))
        };
        use Stage::{Fresh, Over, Renew};
        assert_eq!(stages(true), [Fresh, Fresh, Renew, Renew, Renew, Renew, Over]);
        assert_eq!(stages(false), [Fresh, Fresh, Fresh, Fresh, Over, Over, Over]);
        assert_eq!(Term::new(begun, 0, false).stage(begun + Duration::from_secs(1 << 30)), Fresh);
        assert!(!Term::new(begun, 10, true).is_as_long_as(&Term::new(begun, 21, true)));
        assert!(Term::new(begun, 10, true).is_as_long_as(&Term::new(begun, 20, true)));
    }

    proptest! {
        /// Whoever comes back when told to finds something to do, and comes in time.
        #[test]
        fn what_is_due_is_due(seconds in 1u64..100_000, is_renewable: bool, early in 0u64..1_000) {
            let begun = Instant::now();
            let term = Term::new(begun, seconds, is_renewable);
            let due = term.renew_in(begun).unwrap();
            prop_assert!(due < Duration::from_secs(seconds));
            prop_assert!(term.stage(begun + due) != Stage::Fresh);
            if let Some(before) = due.checked_sub(Duration::from_millis(early + 1)) {
                prop_assert_eq!(term.stage(begun + before), Stage::Fresh);
            }
        }
    }
}
