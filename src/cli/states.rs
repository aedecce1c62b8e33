//! The states of datasets on the start screen: a running sidecar enters, a line for each dataset leaves, and how far first
//! loads are.

use std::time::Duration;

use tokio::time::Instant;

use crate::acceleration::{Phase, Progress, Status};
use crate::app::Live;
use crate::query::{DatasetState, DatasetStatus, QueryError};

use super::screen::Screen;
use super::words;

/// How long the start screen waits before it tells the states that there are.
const FIRST_STATES_WAIT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where a dataset is on its way to its first answer.
enum Stage {
    /// Its upstream has not answered yet.
    Connecting,
    /// Its first load waits for its turn, or takes rows.
    Loading(Option<Progress>),
    Ready,
    Failed(String),
}

/// Each dataset with its first state, as soon as all have one or after a while; then, as they end, the first loads that
/// take longer.
pub(super) async fn print(live: &Live, screen: &mut Screen) {
    let until = Instant::now() + FIRST_STATES_WAIT;
    let mut datasets = live.engine().datasets();
    while datasets.iter().any(|dataset| stage(dataset).is_open()) && Instant::now() < until {
        datasets = look(live, screen).await;
    }
    screen.show(&loads(&datasets));
    let width = datasets.iter().map(|dataset| dataset.name.to_string().len()).max().unwrap_or(0);
    screen.beside(|| {
        datasets.iter().for_each(|dataset| print_state(dataset, width));
        if datasets.is_empty() {
            say!("  no datasets: only statements without tables can be answered");
        }
        say!();
    });
    // Whether others are connected later is for `sidewing status` and the log.
    let mut open: Vec<_> =
        datasets.iter().filter(|dataset| is_loading(dataset)).map(|it| &it.name).cloned().collect();
    while !open.is_empty() {
        let now = look(live, screen).await;
        let ended = now.iter().filter(|dataset| open.contains(&dataset.name) && !is_loading(dataset));
        let ended: Vec<_> = ended.collect();
        screen.beside(|| ended.iter().for_each(|dataset| print_state(dataset, width)));
        open.retain(|name| !ended.iter().any(|dataset| dataset.name == *name));
    }
}

/// Returns when every dataset is ready; shows how far loads are meanwhile.
///
/// # Errors
/// What is not ready `within` this time, and why.
pub(super) async fn wait_ready(
    live: &Live,
    screen: &mut Screen,
    within: Duration,
) -> Result<Vec<DatasetStatus>, String> {
    let until = Instant::now() + within;
    loop {
        let datasets = look(live, screen).await;
        let open = datasets.iter().find(|dataset| !matches!(stage(dataset), Stage::Ready));
        match open.map(|dataset| (dataset, stage(dataset))) {
            None => return Ok(datasets),
            Some((_, Stage::Failed(reason))) if Instant::now() > until => return Err(reason),
            Some((dataset, _)) if Instant::now() > until => {
                return Err(format!("dataset `{}` is not ready", dataset.name));
            }
            Some(_) => {}
        }
    }
}

async fn look(live: &Live, screen: &mut Screen) -> Vec<DatasetStatus> {
    tokio::time::sleep(POLL_INTERVAL).await;
    let datasets = live.engine().datasets();
    screen.show(&loads(&datasets));
    datasets
}

fn print_state(dataset: &DatasetStatus, width: usize) {
    say!("  {:width$}  {}", dataset.name.to_string(), line(dataset));
}

fn is_loading(dataset: &DatasetStatus) -> bool {
    matches!(stage(dataset), Stage::Loading(_))
}

/// The first loads that take rows now, each with how far it is.
fn loads(datasets: &[DatasetStatus]) -> Vec<(String, String)> {
    let each = datasets.iter().filter_map(|dataset| match stage(dataset) {
        Stage::Loading(Some(progress)) => Some((dataset.name.to_string(), words::progress(&progress))),
        _ => None,
    });
    each.collect()
}

impl Stage {
    /// Whether it is worth a moment's wait.
    fn is_open(&self) -> bool {
        matches!(self, Self::Connecting | Self::Loading(_))
    }
}

fn stage(dataset: &DatasetStatus) -> Stage {
    match (&dataset.state, first_load(dataset)) {
        (_, Some(Status { progress: Some(progress), .. })) => Stage::Loading(Some(*progress)),
        // Its files are being opened: they may have what the upstream cannot be asked for.
        (_, Some(Status { phase: Phase::Initializing, reason: None, .. })) => Stage::Loading(None),
        (DatasetState::Error { reason, .. }, _) => Stage::Failed(match reason.as_ref() {
            // The line begins with the dataset already.
            QueryError::Upstream { source, .. } => source.to_string(),
            QueryError::NotReady { reason, .. } => reason.clone(),
            other => other.to_string(),
        }),
        (_, Some(Status { reason: Some(reason), .. })) => Stage::Failed(reason.clone()),
        (_, Some(_)) => Stage::Loading(None),
        (DatasetState::Initializing, None) => Stage::Connecting,
        (DatasetState::Ready, None) => Stage::Ready,
    }
}

/// What is known of a dataset that is to be kept here, and whose first load has not ended.
fn first_load(dataset: &DatasetStatus) -> Option<&Status> {
    let kept = dataset.acceleration.as_ref()?;
    let is_first = match kept.phase {
        Phase::Initializing | Phase::Error => kept.generation.is_none(),
        // Rows are answered a moment before the refresh has ended: small chunks are joined after.
        Phase::Refreshing => !kept.is_restored && kept.last_refresh.is_none(),
        Phase::Ready | Phase::Disabled | Phase::ShuttingDown => false,
    };
    is_first.then_some(kept)
}

fn line(dataset: &DatasetStatus) -> String {
    let from = &dataset.from;
    match stage(dataset) {
        Stage::Connecting => format!("connecting  {from}"),
        Stage::Loading(None) => format!("loading     {from}"),
        Stage::Loading(Some(progress)) => format!("loading     {}  from {from}", words::progress(&progress)),
        Stage::Ready => match &dataset.acceleration {
            None => format!("ready       {from}"),
            Some(kept) => format!("ready       {}  from {from}", held(kept)),
        },
        // Whether a load is tried again hangs on its reason, and on the spicepod.
        Stage::Failed(reason) if dataset.acceleration.is_some() => format!("error       {reason}"),
        Stage::Failed(reason) => format!("error       {reason}; trying again"),
    }
}

/// `1,000,000 rows, 35 MB, loaded in 1.2 s`.
pub(super) fn held(kept: &Status) -> String {
    let (rows, size) = (words::rows(kept.rows), words::size(kept.bytes));
    match kept.last_refresh_took {
        Some(took) => format!("{rows}, {size}, loaded in {}", words::span(took)),
        None if kept.is_restored => format!("{rows}, {size}, found on disk"),
        None => format!("{rows}, {size}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    fn dataset(state: DatasetState, acceleration: Option<Status>) -> DatasetStatus {
        let from = "spice.ai:https://core:50051/t".to_owned();
        DatasetStatus {
            name: "t".parse().unwrap(),
            from,
            endpoint: None,
            state,
            is_view: false,
            acceleration,
        }
    }

    fn failed(reason: &str) -> DatasetState {
        let reason = QueryError::NotReady { dataset: "t".into(), endpoint: None, reason: reason.into() };
        DatasetState::Error { reason: Arc::new(reason), since: SystemTime::UNIX_EPOCH, was_ready: false }
    }

    #[test]
    fn every_state_has_its_line() {
        use DatasetState::{Initializing, Ready};
        let new = Status::new(SystemTime::UNIX_EPOCH);
        let progress = Progress { rows: 1_200_000, bytes: 45_000_000, elapsed: Duration::from_millis(3_700) };
        let loading = Status { phase: Phase::Refreshing, progress: Some(progress), ..new.clone() };
        let restored = Status {
            phase: Phase::Ready,
            rows: 1_000_000,
            is_restored: true,
            bytes: 35_000_000,
            generation: Some(3),
            ..new.clone()
        };
        let ended = (Some(SystemTime::UNIX_EPOCH), Some(Duration::from_millis(1_250)));
        let loaded = Status {
            last_refresh: ended.0,
            last_refresh_took: ended.1,
            is_restored: false,
            ..restored.clone()
        };
        let writing = Status {
            phase: Phase::Refreshing,
            is_restored: false,
            progress: Some(progress),
            ..restored.clone()
        };
        let disabled = Status { phase: Phase::Disabled, generation: Some(1), ..new.clone() };
        let broken = Status { phase: Phase::Error, reason: Some("the disk is full".into()), ..new.clone() };
        let refreshing = Status { progress: Some(progress), phase: Phase::Refreshing, ..loaded.clone() };
        let lines = [
            dataset(Initializing, None),
            dataset(Ready, None),
            dataset(failed("connecting to its upstream"), None),
            dataset(Initializing, Some(new)),
            dataset(Initializing, Some(loading.clone())),
            dataset(Ready, Some(loading)),
            dataset(Ready, Some(writing)),
            dataset(Ready, Some(loaded)),
            dataset(Ready, Some(refreshing)),
            dataset(Ready, Some(restored)),
            dataset(Ready, Some(disabled)),
            dataset(Ready, Some(broken)),
        ];
        insta::assert_snapshot!(lines.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
}
