//! About how many rows each dataset has: what scans and FlightInfo say is remembered, and where a join's order
//! hangs on it, `SELECT count(*)` is asked in the background.
//!
//! A count is an estimate: a wrong one makes a join slower, never wrong. Reading it takes no lock, and no
//! statement waits for one longer than [`FIRST_WAIT`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use tokio::sync::oneshot;

use super::Federation;
use super::pushdown::{RemoteQuery, remote_table};
use super::registry::{Entry, Kind, State};
use super::scan::total_of;
use super::table::count_sql;
use crate::telemetry::Context;

/// How long a count is good; then it is asked again, and the old one serves until the answer.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long the statement that needs a count first waits for it: less than what a join built on the wrong side
/// costs, and not much to lose where the upstream counts slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// An upstream that counts longer is left in peace.
const COUNT_MAX: Duration = Duration::from_secs(10);
/// Pauses after failures, doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// The row count of one dataset.
#[derive(Debug, Default)]
pub(super) struct RowCount {
    known: ArcSwapOption<Known>,
    asking: Mutex<Asking>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    rows: u64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Asking {
    is_running: bool,
    /// In a row.
    failures: u32,
    not_before: Option<Instant>,
}

impl RowCount {
    /// The last count, however old.
    pub fn get(&self) -> Option<u64> {
        self.known.load().as_ref().map(|known| known.rows)
    }

    /// The table has so many rows now.
    pub fn learn(&self, rows: u64) {
        self.learn_at(rows, Instant::now());
    }

    fn learn_at(&self, rows: u64, at: Instant) {
        self.known.store(Some(Arc::new(Known { rows, at })));
    }

    /// Whether the caller is to ask now: nobody else does, and the count is missing or old. It must end with
    /// [`RowCount::asked`].
    fn begin(&self, now: Instant) -> bool {
        if self.known.load().as_ref().is_some_and(|known| now < known.at + FRESH) {
            return false;
        }
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if asking.is_running || asking.not_before.is_some_and(|then| now < then) {
            return false;
        }
        asking.is_running = true;
        true
    }

    fn asked(&self, answer: Option<u64>, now: Instant) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.is_running = false;
        match answer {
            Some(rows) => {
                asking.failures = 0;
                asking.not_before = None;
                self.learn_at(rows, now);
            }
            None => {
                let pause = PAUSE_FIRST.saturating_mul(1 << asking.failures.min(16)).min(PAUSE_MAX);
                asking.failures += 1;
                asking.not_before = Some(now + pause);
            }
        }
    }
}

/// Ends the asking as failed, unless an answer came first: also where the task is dropped.
struct Turn {
    rows: Arc<RowCount>,
    answer: Option<u64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.rows.asked(self.answer, Instant::now());
    }
}

impl Federation {
    /// Sees to it that the row counts that `plan`'s joins hang on are known or asked for. Waits a little for
    /// those that nobody has asked for before.
    pub async fn estimate_rows(&self, plan: &LogicalPlan) {
        if !self.inner.push_down {
            return;
        }
        let tables = match joined_tables(plan) {
            Ok(tables) => tables,
            // A plan that cannot be walked is planned without counts.
            Err(_) => return,
        };
        let asked = tables.iter().filter_map(|name| {
            let entry = self.inner.entries.iter().find(|entry| entry.name.to_string() == *name)?;
            self.ask(entry)
        });
        let asked: Vec<_> = asked.collect();
        // An answer that does not come in time serves the next statement.
        let _ = tokio::time::timeout(FIRST_WAIT, futures::future::join_all(asked)).await;
    }

    /// Starts asking where that is due; the receiver hears the end, where there is no count until then.
    fn ask(&self, entry: &Entry) -> Option<oneshot::Receiver<()>> {
        let Kind::Dataset { upstream, remote, rows } = &entry.kind else { return None };
        let scope = self.inner.background.get()?;
        if !matches!(entry.state.load().as_ref(), State::Ready { .. }) || !rows.begin(Instant::now()) {
            return None;
        }
        let is_first = rows.get().is_none();
        let mut turn = Turn { rows: Arc::clone(rows), answer: None };
        let (upstream, sql) = (Arc::clone(upstream), count_sql(remote));
        let (done, heard) = oneshot::channel();
        let dataset = entry.name.clone();
        let asked_by = Context::current();
        scope.spawn("row count", async move {
            let count = async {
                let batches: Vec<_> = upstream.query(&sql).await?.batches.try_collect().await?;
                Ok(total_of(&batches))
            };
            let count = tokio::time::timeout(COUNT_MAX, count);
            match Context::scope_in(asked_by, count).await {
                Ok(Ok(rows)) => turn.answer = rows.map(|rows| rows as u64),
                Ok(Err::<_, crate::upstream::UpstreamError>(error)) => {
                    tracing::debug!(%dataset, %error, "rows not counted");
                }
                Err(_) => tracing::debug!(%dataset, "rows not counted in time"),
            }
            drop(turn);
            // Nobody may wait any more.
            let _ = done.send(());
        });
        is_first.then_some(heard)
    }
}

/// The datasets that `plan` reads, by name, where their order in a join is to be chosen.
fn joined_tables(plan: &LogicalPlan) -> datafusion::error::Result<Vec<String>> {
    let (mut names, mut scans, mut has_join) = (Vec::new(), 0, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Join(_) | LogicalPlan::Subquery(_) => has_join = true,
            LogicalPlan::TableScan(scan) => {
                if let Some(table) = remote_table(scan) {
                    scans += 1;
                    names.push(table.name.to_string());
                }
            }
            LogicalPlan::Extension(extension) => {
                if let Some(query) = extension.node.as_any().downcast_ref::<RemoteQuery>() {
                    scans += 1;
                    names.extend(query.tables.datasets.iter().map(ToString::to_string));
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    names.sort_unstable();
    names.dedup();
    Ok(if scans > 1 && has_join { names } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_count_is_asked_once_kept_and_asked_again_when_old() {
        let (rows, begun) = (RowCount::default(), Instant::now());
        assert!(rows.begin(begun), "nothing is known");
        assert!(!rows.begin(begun), "somebody asks already");
        rows.asked(Some(7), begun);
        assert_eq!(rows.get(), Some(7));
        assert!(!rows.begin(begun + FRESH - MOMENT), "it is fresh");
        assert!(rows.begin(begun + FRESH));
        assert_eq!(rows.get(), Some(7), "an old count serves until the next");
    }

    #[test]
    fn failures_are_asked_again_after_growing_pauses() {
        let (rows, mut now) = (RowCount::default(), Instant::now());
        for pause in [PAUSE_FIRST, PAUSE_FIRST * 2, PAUSE_FIRST * 4] {
            assert!(rows.begin(now));
            rows.asked(None, now);
            assert!(!rows.begin(now + pause - MOMENT), "{pause:?} are not over");
            now += pause;
        }
        for _ in 0..40 {
            assert!(rows.begin(now));
            rows.asked(None, now);
            now += PAUSE_MAX;
        }
        assert_eq!(rows.get(), None);
    }

    #[test]
    fn an_abandoned_asking_counts_as_failed() {
        let (rows, now) = (Arc::new(RowCount::default()), Instant::now());
        assert!(rows.begin(now));
        drop(Turn { rows: Arc::clone(&rows), answer: None });
        assert!(!rows.begin(now), "it pauses");
        assert!(rows.begin(now + PAUSE_MAX));
    }
}
