//! `sidewing refresh`: asks a running sidecar to refresh a dataset that it keeps, and follows that refresh to its end.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::name::DatasetName;

use super::screen::Screen;
use super::sidecar::{Kept, Sidecar, SidecarArgs};
use super::{fail, words};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `sidewing refresh`.
#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// The dataset
    name: DatasetName,
    /// Fetch all rows, or what is newer; as the spicepod says, if not given
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What to fetch this once, instead of the spicepod's refresh_sql
    #[arg(long, value_name = "SELECT")]
    sql: Option<String>,
    /// Return as soon as the refresh is queued
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    sidecar: SidecarArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Full,
    Append,
}

/// What the sidecar says to a refresh that it has queued.
#[derive(Deserialize)]
struct Queued {
    refresh: u64,
}

/// Exits 0 when the refresh succeeded, or was queued with `--no-wait`; else 1 with the reason.
pub(super) async fn run(args: RefreshArgs) -> ExitCode {
    match refresh(&args).await {
        Ok(said) => {
            say!("{said}");
            ExitCode::SUCCESS
        }
        Err(message) => fail(&message),
    }
}

async fn refresh(args: &RefreshArgs) -> Result<String, String> {
    let sidecar = &args.sidecar.sidecar();
    let path = format!("/v1/datasets/{}/acceleration/refresh", encoded(&args.name.to_string()));
    let queued: Queued = match sidecar.post(&path, body(args)).await? {
        (StatusCode::CREATED, body) => serde_json::from_slice(&body)
            .map_err(|error| format!("the refresh was queued, but its number cannot be read: {error}"))?,
        // In the sidecar's own words: they name the dataset and what is wrong.
        (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS, body) => {
            return Err(String::from_utf8_lossy(&body).trim().to_owned());
        }
        (status, body) => return Err(sidecar.unexpected(status, &body)),
    };
    match args.no_wait {
        true => Ok(format!("{}: refresh {} is queued", args.name, queued.refresh)),
        false => follow(sidecar, &args.name, queued.refresh).await,
    }
}

fn body(args: &RefreshArgs) -> Bytes {
    let mut body = Map::new();
    if let Some(mode) = args.mode {
        let mode = match mode {
            Mode::Full => "full",
            Mode::Append => "append",
        };
        body.insert("refresh_mode".to_owned(), Value::from(mode));
    }
    if let Some(sql) = &args.sql {
        body.insert("refresh_sql".to_owned(), Value::from(sql.as_str()));
    }
    Value::Object(body).to_string().into()
}

/// Shows how far it is until refresh number `refresh` has ended; refreshes before it are shown too.
async fn follow(sidecar: &Sidecar, name: &DatasetName, refresh: u64) -> Result<String, String> {
    let mut screen = Screen::new();
    loop {
        let datasets = sidecar.datasets().await?;
        let kept =
            datasets.into_iter().find(|dataset| dataset.is(name)).and_then(|dataset| dataset.acceleration);
        let kept = kept.ok_or_else(|| format!("the sidecar does not keep `{name}` any more"))?;
        if let Some(ended) = outcome(&kept, refresh) {
            return ended.map(|()| done(name, &kept)).map_err(|why| format!("refresh of `{name}`: {why}"));
        }
        screen.show(&[(name.to_string(), shown(&kept))]);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// How refresh number `refresh` ended; none while it has not.
fn outcome(kept: &Kept, refresh: u64) -> Option<Result<(), String>> {
    let told = &kept.refreshes;
    if told.asked < refresh {
        return Some(Err("the sidecar was restarted meanwhile, and knows nothing of it".to_owned()));
    }
    if told.ended < refresh {
        return None;
    }
    let failure = told.failures.iter().find(|failure| failure.refresh == refresh);
    Some(failure.map_or(Ok(()), |failure| Err(failure.reason.clone())))
}

fn shown(kept: &Kept) -> String {
    match (kept.progress(), &kept.reason) {
        (Some(progress), _) => words::progress(&progress),
        // It waits behind one that does not succeed.
        (None, Some(reason)) => format!("waiting: {reason}"),
        (None, None) => "waiting".to_owned(),
    }
}

fn done(name: &DatasetName, kept: &Kept) -> String {
    let took = kept.last_refresh_took().map(|took| format!(", refreshed in {}", words::span(took)));
    let generation = kept.generation.map(|number| format!(", generation {number}"));
    let (rows, size) = (words::rows(kept.rows), words::size(kept.bytes));
    format!("{name}: {rows}, {size}{}{}", generation.unwrap_or_default(), took.unwrap_or_default())
}

/// As one segment of a path.
fn encoded(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => path.push(char::from(byte)),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(asked: u64, ended: u64, failed: &[u64]) -> Kept {
        let failures: Vec<Value> = failed
            .iter()
            .map(|refresh| serde_json::json!({"refresh": refresh, "reason": "broken"}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "rows": 1_000_000, "bytes": 35_000_000, "generation": 4, "last_refresh_seconds": 1.25,
            "refreshes": {"asked": asked, "ended": ended, "failures": failures},
        }))
        .unwrap()
    }

    #[test]
    fn it_is_known_whose_refresh_has_ended() {
        assert_eq!(outcome(&kept(3, 1, &[1]), 2), None);
        assert_eq!(outcome(&kept(3, 2, &[1]), 2), Some(Ok(())));
        assert_eq!(outcome(&kept(9, 8, &[2, 5]), 2), Some(Err("broken".to_owned())));
        assert!(outcome(&kept(1, 1, &[]), 2).unwrap().unwrap_err().contains("restarted"));
    }

    #[test]
    fn words_for_the_end_and_the_wait() {
        let name = "sales.orders".parse().unwrap();
        assert_eq!(
            done(&name, &kept(1, 1, &[])),
            "sales.orders: 1,000,000 rows, 35 MB, generation 4, refreshed in 1.2 s"
        );
        assert_eq!(shown(&kept(1, 0, &[])), "waiting");
    }

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(encoded("sales.orders"), "sales.orders");
        assert_eq!(encoded("\"a/b\" é"), "%22a%2Fb%22%20%C3%A9");
    }
}
