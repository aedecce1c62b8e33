//! When the upstream's rows are counted, one count at a time and never the most of what the upstream does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::super::error::RefreshError;
use super::origin::Origin;

/// Between two counts, beside four times what the last one took.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Counter {
    due: Option<Instant>,
    running: Option<Running>,
    /// No count before then.
    not_before: Option<Instant>,
}

struct Running {
    count: BoxFuture<'static, Result<u64, RefreshError>>,
    asked: Asked,
}

/// What was held when a count was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub at: Instant,
    pub rows: u64,
    pub unsettled: u64,
}

pub(super) enum Event {
    /// A count is due: [`Counter::ask`] or put it off.
    Due,
    Counted(Asked, Result<u64, RefreshError>),
}

impl Counter {
    /// Counts at `at`, or earlier where that is due already.
    pub(super) fn by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Counts at `at` and not before.
    pub(super) fn at(&mut self, at: Option<Instant>) {
        self.due = at;
    }

    pub(super) fn ask(&mut self, origin: &Arc<dyn Origin>, rows: u64, unsettled: u64) {
        let origin = Arc::clone(origin);
        let count = async move { origin.count().await }.boxed();
        self.due = None;
        self.running = Some(Running { count, asked: Asked { at: Instant::now(), rows, unsettled } });
    }

    /// A count that runs would be compared with other rows than it was asked for.
    pub(super) fn forget(&mut self) {
        (self.running, self.due) = (None, None);
    }

    /// Resolves when something is to be done; dropping it loses nothing.
    pub(super) async fn event(&mut self) -> Event {
        if let Some(running) = &mut self.running {
            let counted = Pin::new(&mut running.count).await;
            let asked = running.asked;
            self.running = None;
            let now = Instant::now();
            self.not_before = Some(now + PAUSE + 4 * now.duration_since(asked.at));
            return Event::Counted(asked, counted);
        }
        let Some(due) = self.due else { return std::future::pending().await };
        sleep_until(self.not_before.map_or(due, |earliest| earliest.max(due))).await;
        Event::Due
    }
}
