//! What the upstream's count says of what is held. Pure.
//!
//! What is held is a part of what the upstream has. So an equal count proves that it is all of it, a greater one that
//! something is missing or on its way, and a smaller one that the upstream has lost rows, which only it can know. After
//! a reconnect the upstream may have lost all and have as many again: then rows count when they were sent once more.

use std::time::Duration;

/// Rows are on their way for at least so long after the last one came.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// The same where the rows that are missing may be among those that were left out.
const QUIET_UNSETTLED: Duration = Duration::from_millis(200);
/// Rows that keep coming are waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One count, and what was held around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub upstream: u64,
    /// Rows held when it was asked.
    pub before: u64,
    /// Rows held when it was answered.
    pub after: u64,
    /// Rows that were left out and may be new.
    pub unsettled: u64,
    /// Every row that is held was sent, or found by a query, since the connection began: none is of an upstream that
    /// has lost its rows since.
    pub is_covered: bool,
    /// Since the last row came.
    pub quiet: Duration,
    /// Since the counts last agreed, or the first count after that.
    pub apart: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was held as the count was asked is all there was: a proof.
    Whole,
    /// What came meanwhile makes up for the difference: rows are coming, and nothing speaks against their being all.
    Following,
    /// Count again after so long.
    Wait(Duration),
    /// Rows are missing, and none are coming.
    Missing,
    /// The upstream has fewer.
    Fewer,
}

pub(super) fn judge(counted: &Counted) -> Verdict {
    let Counted { upstream, before, after, unsettled, is_covered, quiet, apart } = *counted;
    if upstream < before {
        return Verdict::Fewer;
    }
    if upstream == before && is_covered {
        return Verdict::Whole;
    }
    if upstream <= after && is_covered && unsettled == 0 {
        return Verdict::Following;
    }
    let missing = upstream.saturating_sub(after);
    let enough = if unsettled > 0 && unsettled >= missing { QUIET_UNSETTLED } else { QUIET };
    match quiet >= enough || apart >= PATIENCE {
        true => Verdict::Missing,
        false => Verdict::Wait((apart / 4).clamp(PAUSE_MIN, PAUSE_MAX).min(enough - quiet)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn counted(
        upstream: u64,
        before: u64,
        after: u64,
        unsettled: u64,
        quiet_ms: u64,
        apart_ms: u64,
    ) -> Counted {
        let (quiet, apart) = (Duration::from_millis(quiet_ms), Duration::from_millis(apart_ms));
        Counted { upstream, before, after, unsettled, is_covered: true, quiet, apart }
    }

    #[test]
    fn an_equal_count_of_rows_that_were_not_seen_again_proves_nothing() {
        let of = |quiet_ms| Counted { is_covered: false, ..counted(5, 5, 5, 0, quiet_ms, 0) };
        assert_eq!(judge(&of(0)), Verdict::Wait(PAUSE_MIN));
        assert_eq!(judge(&of(1_000)), Verdict::Missing);
    }

    #[test]
    fn what_a_count_says() {
        let verdicts = [
            counted(5, 5, 9, 3, 0, 0),
            counted(4, 5, 5, 0, 0, 0),
            counted(7, 5, 8, 0, 0, 0),
            counted(9, 5, 8, 0, 0, 0),
            counted(9, 5, 8, 0, 0, 2_000),
            counted(9, 5, 8, 0, 1_000, 0),
            counted(9, 5, 8, 1, 200, 0),
            counted(9, 5, 8, 0, 0, 10_000),
        ]
        .map(|counted| judge(&counted));
        let ms = Duration::from_millis;
        let expected = [
            Verdict::Whole,
            Verdict::Fewer,
            Verdict::Following,
            Verdict::Wait(ms(50)),
            Verdict::Wait(ms(500)),
            Verdict::Missing,
            Verdict::Missing,
            Verdict::Missing,
        ];
        assert_eq!(verdicts, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_left_open_for_ever(
            upstream in 0u64..9, before in 0u64..9, more in 0u64..9, unsettled in 0u64..5, quiet in 0u64..20_000, apart in 0u64..20_000,
        ) {
            let verdict = judge(&counted(upstream, before, before + more, unsettled, quiet, apart));
            prop_assert_eq!(verdict == Verdict::Whole, upstream == before);
            prop_assert_eq!(verdict == Verdict::Fewer, upstream < before);
            if let Verdict::Wait(pause) = verdict {
                prop_assert!(apart < 10_000 && quiet < 1_000 && pause <= Duration::from_secs(1));
            }
            if unsettled > 0 && upstream > before {
                prop_assert!(verdict != Verdict::Following, "what was left out is settled only by a proof or a query");
            }
        }
    }
}
