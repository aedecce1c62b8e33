//! Whether what is cached may answer a request: ages and wishes enter, a verdict leaves. No clock, no cache.

use std::time::Duration;

use super::CacheWishes;

/// How long a result that came from an upstream may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// `item_ttl`.
    pub fresh: Duration,
    /// `stale_while_revalidate_ttl`: how much longer, while it is fetched anew.
    pub stale: Duration,
}

/// How old a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Computed again it would be the same: it does not age.
    Exact,
    Of(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Hit,
    Stale {
        /// Whether it is to be fetched anew meanwhile.
        revalidate: bool,
    },
    Miss,
}

/// May a result of this age answer?
pub(super) fn judge(age: Age, lifetime: Lifetime, wishes: &CacheWishes) -> Verdict {
    if !wishes.may_read() {
        return Verdict::Miss;
    }
    let Age::Of(age) = age else { return Verdict::Hit };
    if wishes.max_age.is_some_and(|most| age > most) {
        return Verdict::Miss;
    }
    let fresh_for = lifetime.fresh.checked_sub(age).filter(|left| !left.is_zero());
    match (fresh_for, wishes.min_fresh) {
        (Some(left), Some(least)) if left < least => return Verdict::Miss,
        (Some(_), _) => return Verdict::Hit,
        (None, Some(_)) => return Verdict::Miss,
        (None, None) => {}
    }
    let stale = age.saturating_sub(lifetime.fresh);
    let revalidate = stale < lifetime.stale;
    match revalidate || wishes.max_stale.is_some_and(|most| stale <= most) {
        true => Verdict::Stale { revalidate },
        false => Verdict::Miss,
    }
}

/// May it answer because the statement could not be run (`stale-if-error`)?
pub(super) fn serves_instead(age: Age, lifetime: Lifetime, wishes: &CacheWishes) -> bool {
    let Some(most) = wishes.stale_if_error else { return false };
    match age {
        Age::Exact => true,
        Age::Of(age) => age.saturating_sub(lifetime.fresh) <= most,
    }
}

/// May the answer of a run that has begun already be waited for?
pub(super) fn may_follow(is_exact: bool, lifetime: Lifetime, wishes: &CacheWishes) -> bool {
    let is_fresh = wishes.max_age.is_none() && wishes.min_fresh.is_none() && !lifetime.fresh.is_zero();
    wishes.may_read() && (is_exact || is_fresh)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Lifetime = Lifetime { fresh: seconds(10), stale: seconds(5) };

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(age: u64, wishes: &CacheWishes) -> Verdict {
        judge(Age::Of(seconds(age)), LIFETIME, wishes)
    }

    #[test]
    fn an_age_passes_through_hit_stale_and_miss() {
        let plain = CacheWishes::default();
        let verdicts = [0, 9, 10, 14, 15, 100].map(|age| of(age, &plain));
        let stale = Verdict::Stale { revalidate: true };
        assert_eq!(verdicts, [Verdict::Hit, Verdict::Hit, stale, stale, Verdict::Miss, Verdict::Miss]);
        let never = Lifetime { fresh: Duration::ZERO, stale: Duration::ZERO };
        assert_eq!(judge(Age::Of(Duration::ZERO), never, &plain), Verdict::Miss);
        assert_eq!(judge(Age::Exact, never, &plain), Verdict::Hit);
    }

    #[test]
    fn wishes_narrow_and_widen() {
        let wish = |change: fn(&mut CacheWishes)| {
            let mut wishes = CacheWishes::default();
            change(&mut wishes);
            wishes
        };
        assert_eq!(of(0, &wish(|wishes| wishes.no_cache = true)), Verdict::Miss);
        assert_eq!(of(0, &wish(|wishes| wishes.no_store = true)), Verdict::Miss);
        assert_eq!(of(6, &wish(|wishes| wishes.min_fresh = Some(seconds(5)))), Verdict::Miss);
        assert_eq!(of(5, &wish(|wishes| wishes.min_fresh = Some(seconds(5)))), Verdict::Hit);
        assert_eq!(of(12, &wish(|wishes| wishes.min_fresh = Some(seconds(0)))), Verdict::Miss);
        assert_eq!(of(4, &wish(|wishes| wishes.max_age = Some(seconds(3)))), Verdict::Miss);
        let patient = wish(|wishes| wishes.max_stale = Some(seconds(20)));
        assert_eq!(of(30, &patient), Verdict::Stale { revalidate: false });
        assert_eq!(of(31, &patient), Verdict::Miss);
        let careless = wish(|wishes| wishes.stale_if_error = Some(seconds(20)));
        assert_eq!(of(30, &careless), Verdict::Miss);
        assert!(serves_instead(Age::Of(seconds(30)), LIFETIME, &careless));
        assert!(!serves_instead(Age::Of(seconds(31)), LIFETIME, &careless));
        assert!(!serves_instead(Age::Exact, LIFETIME, &CacheWishes::default()));
    }

    proptest! {
        /// Nothing that a request says of freshness makes an older answer good where a younger one is not.
        #[test]
        fn what_may_answer_may_answer_when_it_is_younger(
            age in 0_u64..40, younger in 0_u64..40,
            max_age in proptest::option::of(0_u64..40), max_stale in proptest::option::of(0_u64..40),
            min_fresh in proptest::option::of(0_u64..40),
        ) {
            let younger = younger.min(age);
            let wishes = CacheWishes {
                max_age: max_age.map(seconds), max_stale: max_stale.map(seconds),
                min_fresh: min_fresh.map(seconds), ..CacheWishes::default()
            };
            prop_assert!(of(age, &wishes) == Verdict::Miss || of(younger, &wishes) != Verdict::Miss);
        }
    }
}
