//! What a sidecar costs that has nothing to do: its memory, its start, its size.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::Result;
use crate::context::{Bench, dataset};
use crate::launch::Launch;
use crate::proc;
use crate::report::Spread;
use crate::shelf::SMALL;
use crate::sidecar;
use crate::table::{Finding, Findings};

pub const ROWS: &[&str] = &["idle-memory", "start", "binary"];

const STARTS: usize = 10;
/// After the first of them: what a start takes for a moment is given back by then.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Of the starts, those whose memory is looked at.
const LOOKS: usize = 3;

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let upstream = bench.upstream("--shelf").await?;
    let home = bench.spicepod("", &dataset(upstream.address("flight")?, SMALL, ""))?;
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for start in 0..STARTS {
        let sidecar = Launch::of(&home).await?;
        starts.push(sidecar.listening * 1e3);
        sidecar.ready().await?;
        if start < LOOKS {
            tokio::time::sleep(SETTLED_AFTER).await;
            memory.push(proc::resident(sidecar.id()?)? / 1e6);
        }
        sidecar.stop().await?;
    }
    upstream.stop().await?;
    let binary = sizes(&bench.home()?).await;
    let finding = |row, values: Vec<f64>, figures| Finding {
        row,
        ratio: Some(Spread::of(values.into_iter())),
        figures,
    };
    let rows = vec![
        finding("idle-memory", memory, format!("VmRSS in MB, one federated dataset, {LOOKS} starts")),
        finding("start", starts, format!("ms, {STARTS} starts")),
        match binary {
            Ok((whole, stripped)) => {
                finding("binary", vec![stripped], format!("{whole:.1} MB as it was built"))
            }
            Err(why) => Finding { row: "binary", ratio: None, figures: format!("not measured: {why}") },
        },
    ];
    Ok(rows.into())
}

/// MB of the binary as it is, and of a copy without symbols.
async fn sizes(home: &Path) -> Result<(f64, f64)> {
    let (program, copy) = (sidecar::program(), home.join("stripped"));
    std::fs::copy(&program, &copy)?;
    let status = Command::new("strip").arg(&copy).status().await;
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("strip: {status}").into()),
        Err(error) => return Err(format!("strip is missing: {error}").into()),
    }
    let megabytes = |file: &Path| Ok::<_, crate::Error>(std::fs::metadata(file)?.len() as f64 / 1e6);
    Ok((megabytes(&program)?, megabytes(&copy)?))
}
