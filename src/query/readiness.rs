//! Whether a dataset can be asked, as `/v1/ready` tells it: its state and the time now enter, a verdict leaves.
//!
//! Pure: the clock comes from outside.

use std::time::{Duration, SystemTime};

use super::{DatasetState, DatasetStatus, QueryError};

/// A dataset that was ready stays so while its upstream is away for less than this.
///
/// All pods with data of one core lose it at the same moment. Were each unready at once, a core that restarts, or a
/// network that blinks, would take every one of them out of its service; with queries that are retried and heal by
/// themselves, staying is the lesser harm. Longer than a restart takes, shorter than people wait for an answer.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// What `/v1/ready` says of one dataset or view.
#[derive(Debug)]
pub enum Readiness<'a> {
    Ready,
    /// Answered from what is kept here, which is older than it should be.
    Stale(&'a str),
    /// Its upstream is away, but not for long yet.
    Away {
        reason: &'a QueryError,
        elapsed: Duration,
    },
    /// Before its first success.
    Loading,
    Unready(&'a QueryError),
}

impl Readiness<'_> {
    /// Whether to send queries here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready | Self::Stale(_) | Self::Away { .. })
    }
}

impl DatasetStatus {
    /// Whether it can be asked at the time `now`.
    #[must_use]
    pub fn readiness(&self, now: SystemTime) -> Readiness<'_> {
        match &self.state {
            DatasetState::Ready => {
                let stale = self.acceleration.as_ref().and_then(|kept| kept.reason.as_deref());
                stale.map_or(Readiness::Ready, Readiness::Stale)
            }
            DatasetState::Initializing => Readiness::Loading,
            DatasetState::Error { reason, since, was_ready } => {
                // A clock that was set back meanwhile: it has just begun.
                let elapsed = now.duration_since(*since).unwrap_or(Duration::ZERO);
                match *was_ready && elapsed < AWAY_MAX {
                    true => Readiness::Away { reason, elapsed },
                    false => Readiness::Unready(reason),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::acceleration::{Phase, Status};

    use super::*;

    const BEGAN: SystemTime = SystemTime::UNIX_EPOCH;

    fn dataset(state: DatasetState) -> DatasetStatus {
        let name = "t".parse().unwrap();
        DatasetStatus { name, from: String::new(), endpoint: None, state, is_view: false, acceleration: None }
    }

    fn away(was_ready: bool) -> DatasetStatus {
        let reason = Arc::new(QueryError::Cancelled);
        dataset(DatasetState::Error { reason, since: BEGAN + Duration::from_secs(100), was_ready })
    }

    fn is_ready(dataset: &DatasetStatus, seconds: u64) -> bool {
        dataset.readiness(BEGAN + Duration::from_secs(seconds)).is_ready()
    }

    #[test]
    fn a_short_outage_is_sat_out() {
        for (seconds, expected) in [(100, true), (129, true), (130, false), (10_000, false)] {
            assert_eq!(is_ready(&away(true), seconds), expected, "{seconds}");
        }
        assert!(is_ready(&away(true), 50), "the clock was set back");
        assert!(matches!(
            away(true).readiness(BEGAN + Duration::from_secs(107)),
            Readiness::Away { elapsed, .. } if elapsed == Duration::from_secs(7)
        ));
    }

    #[test]
    fn before_its_first_success_nothing_is_ready() {
        assert!(!is_ready(&away(false), 100));
        assert!(!is_ready(&dataset(DatasetState::Initializing), 0));
    }

    #[test]
    fn what_is_kept_here_stays_ready_however_old() {
        let kept = Status {
            phase: Phase::Error,
            reason: Some("the upstream is away".to_owned()),
            ..Status::new(BEGAN)
        };
        let dataset = DatasetStatus { acceleration: Some(kept), ..dataset(DatasetState::Ready) };
        assert!(is_ready(&dataset, u64::from(u32::MAX)));
        assert!(matches!(dataset.readiness(BEGAN), Readiness::Stale("the upstream is away")));
    }
}
