//! `sidewing check`: parses a spicepod, resolves it, reaches every dataset, and prints a table of steps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;

use crate::app::Plan;
use crate::federation::RemoteDataset;
use crate::telemetry::{self, Verbosity};
use crate::upstream::{Step, UpstreamError, UpstreamId};

use super::misconfigured;

/// How many upstreams, and datasets of one upstream, are looked at together.
const PARALLEL: usize = 8;

/// How many datasets of one failure are named.
const NAMES_SHOWN_MAX: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A spicepod file, or a directory that holds spicepod.yaml.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Only parse and resolve, asking secret stores: reach no upstream.
    #[arg(long)]
    offline: bool,
}

/// One line of the table.
struct Row {
    dataset: String,
    /// `ok`, `failed` or `-` for each of [`STEPS`].
    steps: [&'static str; STEPS.len()],
    detail: String,
    /// Why the dataset cannot be reached; told below the table, where it has room.
    failure: Option<String>,
}

const STEPS: [(Step, &str); 5] = [
    (Step::Dns, "DNS"),
    (Step::Tcp, "TCP"),
    (Step::Tls, "TLS"),
    (Step::Handshake, "AUTH"),
    (Step::Schema, "SCHEMA"),
];

pub(super) async fn run(args: CheckArgs) -> ExitCode {
    telemetry::init_log(Verbosity::Quiet);
    let plan = match Plan::load(&args.path).await {
        Ok(plan) => plan,
        Err(problems) => return misconfigured(&problems),
    };
    let datasets = &plan.datasets;
    eprint!("{}", plan.spicepod.shown_warnings());
    say!(
        "{}: the spicepod is good ({}, {})",
        plan.spicepod.name,
        counted(datasets.len(), "dataset"),
        counted(plan.spicepod.views.len(), "view")
    );
    if args.offline || datasets.is_empty() {
        return ExitCode::SUCCESS;
    }
    say!();
    let rows = check_all(datasets).await;
    print_rows(&rows);
    print_failures(&rows);
    match rows.iter().filter(|row| row.failure.is_some()).count() {
        0 => ExitCode::SUCCESS,
        failed => {
            say!();
            say!("{failed} of {} cannot be reached", counted(rows.len(), "dataset"));
            ExitCode::FAILURE
        }
    }
}

/// `1 dataset`, `2 datasets`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Verifies each upstream once, then each of its datasets; rows in the order of the spicepod.
async fn check_all(datasets: &[RemoteDataset]) -> Vec<Row> {
    let mut upstreams: HashMap<UpstreamId, Vec<usize>> = HashMap::new();
    for (at, dataset) in datasets.iter().enumerate() {
        upstreams.entry(dataset.upstream.id().clone()).or_default().push(at);
    }
    let groups = upstreams.into_values().map(|members| check_upstream(datasets, members));
    let mut rows: Vec<(usize, Row)> = futures::stream::iter(groups).buffer_unordered(PARALLEL).concat().await;
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

async fn check_upstream(datasets: &[RemoteDataset], members: Vec<usize>) -> Vec<(usize, Row)> {
    let Some(first) = members.first() else { return Vec::new() };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&seen);
    let verified = datasets[*first]
        .upstream
        .verify(move |step, _detail| hear.lock().unwrap_or_else(PoisonError::into_inner).push(step))
        .await;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Err(error) = verified {
        return members.into_iter().map(|at| (at, Row::failed(&datasets[at], &seen, &error))).collect();
    }
    let seen = &seen;
    let checks = members.into_iter().map(|at| async move { (at, check_table(&datasets[at], seen).await) });
    futures::stream::iter(checks).buffer_unordered(PARALLEL).collect().await
}

async fn check_table(dataset: &RemoteDataset, seen: &[Step]) -> Row {
    match dataset.schema().await {
        Ok(schema) => {
            let steps = STEPS.map(|(step, _)| match step == Step::Schema || seen.contains(&step) {
                true => "ok",
                false => "-",
            });
            let detail =
                format!("{} from {}", counted(schema.fields().len(), "column"), dataset.upstream.endpoint());
            Row { dataset: dataset.name.to_string(), steps, detail, failure: None }
        }
        Err(error) => Row::failed(dataset, seen, &error),
    }
}

impl Row {
    fn failed(dataset: &RemoteDataset, seen: &[Step], error: &UpstreamError) -> Self {
        let at = error.step.min(Step::Schema);
        let steps = STEPS.map(|(step, _)| match step {
            step if step == at => "failed",
            step if seen.contains(&step) => "ok",
            _ => "-",
        });
        let detail = dataset.upstream.endpoint().to_owned();
        Self { dataset: dataset.name.to_string(), steps, detail, failure: Some(error.to_string()) }
    }
}

fn print_rows(rows: &[Row]) {
    let width = rows.iter().map(|row| row.dataset.len()).chain([7]).max().unwrap_or(7);
    let heads: Vec<String> = STEPS.iter().map(|(_, head)| format!("{head:<7}")).collect();
    say!("{:width$}  {}", "DATASET", heads.join(" ").trim_end());
    for row in rows {
        let steps: Vec<String> = row.steps.iter().map(|step| format!("{step:<7}")).collect();
        say!("{:width$}  {}  {}", row.dataset, steps.join(" "), row.detail);
    }
}

/// Each distinct failure once, with the datasets that it keeps away.
fn print_failures(rows: &[Row]) {
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(failure) = row.failure.as_deref() else { continue };
        match told.iter_mut().find(|(known, _)| *known == failure) {
            Some((_, datasets)) => datasets.push(&row.dataset),
            None => told.push((failure, vec![&row.dataset])),
        }
    }
    for (failure, datasets) in told {
        let shown: Vec<&str> = datasets.iter().take(NAMES_SHOWN_MAX).copied().collect();
        let more = match datasets.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        say!();
        say!("{}{more}: {failure}", shown.join(", "));
    }
}
