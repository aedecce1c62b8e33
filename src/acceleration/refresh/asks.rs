//! Refreshes that somebody asks for: each gets a number, waits for its turn, and its end is remembered, so that whoever
//! asked can tell when it was theirs that ended, and how.

use std::collections::VecDeque;
use std::time::Duration;

use crate::name::DatasetName;

/// So many different refreshes may wait behind one that runs.
const WAITING_MAX: usize = 8;
/// So many failures are remembered: more than can wait, so that who looks now and then misses none.
const FAILURES_MAX: usize = 2 * WAITING_MAX;

/// A refresh that somebody asks for; what is not said is as the spicepod says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    pub sql: Option<String>,
    pub mode: Option<AskMode>,
    /// It begins after a random part of this.
    pub jitter_max: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskMode {
    Full,
    Append,
}

/// Why a refresh is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("Dataset {0} not found")]
    NotFound(String),
    #[error("Dataset {0} does not have acceleration enabled")]
    NotAccelerated(String),
    #[error("{0}")]
    Invalid(String),
    #[error("Dataset {0} has {WAITING_MAX} refreshes waiting already")]
    Busy(String),
}

/// What became of the refreshes that were asked for. They are numbered from 1 on, and end in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshes {
    /// The number of the last one.
    pub asked: u64,
    /// The number of the last one that has ended.
    pub ended: u64,
    /// The last ones that failed.
    pub failures: Vec<RefreshFailure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshFailure {
    pub refresh: u64,
    pub reason: String,
}

/// What waits, and what has ended.
#[derive(Default)]
pub(super) struct Asks {
    waiting: VecDeque<(u64, Ask)>,
    asked: u64,
    ended: u64,
    failures: VecDeque<RefreshFailure>,
}

impl Asks {
    /// Joins an equal one that waits, or queues. Its number.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn ask(&mut self, dataset: &DatasetName, ask: Ask) -> Result<u64, AskError> {
        if let Some((number, _)) = self.waiting.iter().find(|(_, waiting)| *waiting == ask) {
            return Ok(*number);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Err(AskError::Busy(dataset.to_string()));
        }
        self.asked += 1;
        self.waiting.push_back((self.asked, ask));
        Ok(self.asked)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<(u64, Ask)> {
        self.waiting.pop_front()
    }

    /// `number` has ended, badly where there is a reason.
    pub(super) fn end(&mut self, number: u64, failure: Option<String>) {
        self.ended = number;
        if let Some(reason) = failure {
            self.failures.push_back(RefreshFailure { refresh: number, reason });
        }
        if self.failures.len() > FAILURES_MAX {
            self.failures.pop_front();
        }
    }

    pub(super) fn told(&self) -> Refreshes {
        Refreshes { asked: self.asked, ended: self.ended, failures: self.failures.iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(sql: &str) -> Ask {
        Ask { sql: Some(sql.to_owned()), mode: Some(AskMode::Full), jitter_max: None }
    }

    #[test]
    fn equal_ones_that_wait_are_one_and_end_in_order() {
        let dataset: DatasetName = "t".parse().unwrap();
        let mut asks = Asks::default();
        let numbers = ["a", "b", "a"].map(|sql| asks.ask(&dataset, full(sql)).unwrap());
        assert_eq!(numbers, [1, 2, 1]);
        assert_eq!(asks.next(), Some((1, full("a"))));
        assert_eq!(asks.ask(&dataset, full("a")), Ok(3), "one that runs is not joined");
        asks.end(1, Some("broken".to_owned()));
        assert_eq!(asks.next().map(|(number, _)| number), Some(2));
        asks.end(2, None);
        let failures = vec![RefreshFailure { refresh: 1, reason: "broken".to_owned() }];
        assert_eq!(asks.told(), Refreshes { asked: 3, ended: 2, failures });
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let dataset: DatasetName = "t".parse().unwrap();
        let mut asks = Asks::default();
        for number in 0..WAITING_MAX {
            asks.ask(&dataset, full(&number.to_string())).unwrap();
        }
        assert_eq!(asks.ask(&dataset, full("0")), Ok(1));
        assert_eq!(asks.ask(&dataset, full("more")), Err(AskError::Busy("t".to_owned())));
        for number in 1..100 {
            asks.end(number, Some(String::new()));
        }
        assert_eq!(asks.told().failures.len(), FAILURES_MAX);
        assert_eq!(asks.told().failures.last().map(|failure| failure.refresh), Some(99));
    }
}
