//! Whether an upstream that has fewer rows than are held is to be believed. Pure.
//!
//! A core that starts anew may be asked before its rows are there. So what is held is given up only for a number of rows
//! that two counts, some seconds apart, agree on; or when it has been fewer for a minute, whatever the counts were.

use std::time::Duration;

use tokio::time::Instant;

/// Between two counts that are to agree.
pub(super) const APART: Duration = Duration::from_secs(3);
const ENOUGH: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Confirm(Option<Doubt>);

#[derive(Debug, Clone, Copy)]
struct Doubt {
    first: Instant,
    since: Instant,
    rows: u64,
}

impl Confirm {
    /// There are as many rows as are held, or the question is another one.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.0.is_some()
    }

    /// The upstream has `rows` at `now`, fewer than are held; whether that is believed.
    pub(super) fn is_believed(&mut self, rows: u64, now: Instant) -> bool {
        let Some(doubt) = &mut self.0 else {
            self.0 = Some(Doubt { first: now, since: now, rows });
            return false;
        };
        if now.duration_since(doubt.first) >= ENOUGH {
            return true;
        }
        if doubt.rows != rows {
            (doubt.since, doubt.rows) = (now, rows);
            return false;
        }
        now.duration_since(doubt.since) >= APART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_counts_apart_have_to_agree() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut confirm = Confirm::default();
        let asked = [(5, 0), (5, 2), (5, 3), (6, 4), (6, 6), (6, 7)];
        let believed = asked.map(|(rows, seconds)| confirm.is_believed(rows, at(seconds)));
        assert_eq!(believed, [false, false, true, false, false, true]);
        confirm.forget();
        let grows = (0..60).map(|second| confirm.is_believed(second, at(second)));
        assert!(grows.into_iter().all(|believed| !believed));
        assert!(confirm.is_believed(1_000, at(60)), "fewer for a minute");
    }
}
