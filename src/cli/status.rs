//! `sidewing status`: what a running sidecar says of its datasets, as a table. The exit code says whether all can be
//! asked.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use http::StatusCode;

use super::sidecar::{Dataset, Kept, Sidecar, SidecarArgs};
use super::{fail, words};

/// Arguments of `sidewing status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    sidecar: SidecarArgs,
    /// Print what the API answers, as JSON
    #[arg(long)]
    json: bool,
}

const HEADS: [&str; 7] = ["DATASET", "STATE", "ROWS", "SIZE", "GENERATION", "REFRESHED", "LAG"];
/// The columns that are words; numbers stand to the right.
const WORDS: usize = 2;

/// Exits 0 when every dataset and view can be asked, else 1.
pub(super) async fn run(args: StatusArgs) -> ExitCode {
    match report(&args.sidecar.sidecar(), args.json).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => fail(&message),
    }
}

/// Prints it all; whether everything can be asked.
async fn report(sidecar: &Sidecar, as_json: bool) -> Result<bool, String> {
    let json = sidecar.datasets_json().await?;
    let (is_ready, told) = match sidecar.get("/v1/ready?verbose=true").await? {
        (StatusCode::OK, told) => (true, told),
        (StatusCode::SERVICE_UNAVAILABLE, told) => (false, told),
        (status, body) => return Err(sidecar.unexpected(status, &body)),
    };
    if as_json {
        // Whoever read it may have gone.
        let _ = std::io::stdout().write_all(&json).and_then(|()| writeln!(std::io::stdout()));
        return Ok(is_ready);
    }
    let datasets = sidecar.read_datasets(&json)?;
    say!("{}", page(&datasets, &String::from_utf8_lossy(&told)));
    let remarks = sidecar.process().await?.remarks();
    if !remarks.is_empty() {
        say!("\n{}", remarks.join("\n"));
    }
    Ok(is_ready)
}

/// The table, the loads that run, and the verdict with all that is not simply well.
fn page(datasets: &[Dataset], told: &str) -> String {
    let mut parts = vec![table(datasets)];
    let loads: Vec<String> = datasets.iter().filter_map(load_line).collect();
    if !loads.is_empty() {
        parts.push(loads.join("\n"));
    }
    let remarks = told.lines().filter(|line| !line.ends_with(" ok"));
    parts.push(remarks.collect::<Vec<_>>().join("\n"));
    parts.join("\n\n")
}

fn table(datasets: &[Dataset]) -> String {
    let heads = HEADS.map(str::to_owned);
    let rows: Vec<[String; HEADS.len()]> = std::iter::once(heads).chain(datasets.iter().map(cells)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let line = |row: &[String; HEADS.len()]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at < WORDS {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cells(dataset: &Dataset) -> [String; HEADS.len()] {
    let kept = dataset.acceleration.as_ref();
    let shown = |cell: fn(&Kept) -> Option<String>| kept.and_then(cell).unwrap_or_else(|| "-".to_owned());
    [
        dataset.name.clone(),
        dataset.status.clone(),
        shown(|kept| Some(words::grouped(kept.rows))),
        shown(|kept| Some(words::size(kept.bytes))),
        shown(|kept| kept.generation.map(|number| number.to_string())),
        shown(|kept| kept.refreshed_ago().map(|ago| format!("{} ago", words::span(ago)))),
        shown(|kept| kept.lag().map(words::span)),
    ]
}

fn load_line(dataset: &Dataset) -> Option<String> {
    let progress = dataset.acceleration.as_ref()?.progress()?;
    Some(format!("{} is being loaded: {}", dataset.name, words::progress(&progress)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_every_kind() {
        let kept = r#"{"reason": null, "since": "2026-01-02T03:04:05Z", "rows": 6001215, "bytes": 950000000,
            "generation": 12, "last_refresh": null, "last_refresh_seconds": 4.5, "watermark": null, "lag_seconds": 75.5,
            "progress": {"rows": 1200000, "bytes": 45000000, "elapsed_seconds": 3.7},
            "refreshes": {"asked": 1, "ended": 1, "failures": []}}"#;
        let first = r#"{"reason": "the upstream is away", "since": "2026-01-02T03:04:05Z", "rows": 0, "bytes": 0,
            "generation": null, "last_refresh": null, "last_refresh_seconds": null, "watermark": null,
            "lag_seconds": null, "refreshes": {"asked": 0, "ended": 0, "failures": []}}"#;
        let item = |name: &str, status: &str, rest: &str| {
            format!(
                r#"{{"from": "spice.ai:x", "name": "{name}", "replication_enabled": false,
                "acceleration_enabled": true, "status": "{status}"{rest}}}"#
            )
        };
        let json = [
            item("lineitem", "Refreshing", &format!(r#", "acceleration": {kept}"#)),
            item("sales.orders", "Error", &format!(r#", "acceleration": {first}"#)),
            item("stock", "Ready", ""),
        ];
        let sidecar = Sidecar::nowhere();
        let datasets = sidecar.read_datasets(format!("[{}]", json.join(",")).as_bytes()).unwrap();
        let told = "not ready\n[+] lineitem ok\n[-] sales.orders: the upstream is away\n[+] stock ok\n";
        insta::assert_snapshot!(page(&datasets, told));
        insta::assert_snapshot!(page(&[], "ready\n"), @r"
        DATASET  STATE  ROWS  SIZE  GENERATION  REFRESHED  LAG

        ready
        ");
    }
}
