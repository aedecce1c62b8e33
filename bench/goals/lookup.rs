//! One row by its key out of many, beside a statement that reads nothing.

use std::time::Instant;

use arrow_flight::{FlightClient, Ticket};
use futures::TryStreamExt;

use crate::Result;
use crate::context::{Bench, NO_CACHE, dataset};
use crate::growing::name;
use crate::sidecar;
use crate::table::{Finding, Findings};
use crate::ways::{Samples, percentile};

pub const ROWS: &[&str] = &["key-lookup", "key-lookup-info", "growth-lookup"];

const ROUNDS: usize = 9;
/// Of each kind in a round.
const CALLS: usize = 200;
const MANY: usize = 10_000_000;

/// What is asked, and how.
#[derive(Clone, Copy)]
enum Kind {
    Trivial,
    TrivialByInfo,
    Key,
    KeyByInfo,
    KeyOfTenth,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Trivial, Self::Key, Self::KeyOfTenth, Self::TrivialByInfo, Self::KeyByInfo];

    fn name(self) -> &'static str {
        match self {
            Self::Trivial => "SELECT 1",
            Self::TrivialByInfo => "SELECT 1 with GetFlightInfo",
            Self::Key => "by key",
            Self::KeyByInfo => "by key with GetFlightInfo",
            Self::KeyOfTenth => "by key in a tenth",
        }
    }

    /// The statement of the call `at`: no key is asked for twice.
    fn sql(self, rows: usize, at: usize) -> String {
        let rows = match self {
            Self::Trivial | Self::TrivialByInfo => return "SELECT 1".to_owned(),
            Self::Key | Self::KeyByInfo => rows,
            Self::KeyOfTenth => rows / 10,
        };
        // A prime that divides no size: all over the table, and each once.
        format!("SELECT value, name FROM {} WHERE id = {}", name(rows), at * 7919 % rows)
    }

    fn by_info(self) -> bool {
        matches!(self, Self::TrivialByInfo | Self::KeyByInfo)
    }
}

pub async fn measure(bench: &Bench) -> Result<Findings> {
    let rows = bench.scaled(MANY);
    let upstream = bench.upstream("--growing").await?;
    let address = upstream.address("flight")?;
    let fields = "acceleration: {primary_key: id}";
    let pod = [rows, rows / 10].map(|rows| dataset(address, &name(rows), fields)).concat();
    let sidecar = bench.sidecar(NO_CACHE, &pod).await?;
    // What is kept here does not need it any more.
    upstream.stop().await?;
    let mut client = sidecar::client(sidecar.address("flight")?).await?;
    let (mut samples, mut at) = (Samples::default(), 0);
    for round in 0..=ROUNDS {
        for kind in Kind::ALL {
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                at += 1;
                times.push(seconds(&mut client, kind, &kind.sql(rows, at)).await?);
            }
            if round > 0 {
                samples.add(kind.name(), percentile(&mut times, 50));
            }
        }
    }
    sidecar.stop().await?;
    let finding = |row, over: Kind, under: Kind| Finding {
        row,
        ratio: samples.ratio(over.name(), under.name()),
        figures: samples.pair(over.name(), under.name()).shown(1e3, 3, " ms"),
    };
    let all = vec![
        finding("key-lookup", Kind::Key, Kind::Trivial),
        finding("key-lookup-info", Kind::KeyByInfo, Kind::TrivialByInfo),
        finding("growth-lookup", Kind::Key, Kind::KeyOfTenth),
    ];
    Ok(all.into())
}

/// Of one call, decoded; there must be one row.
async fn seconds(client: &mut FlightClient, kind: Kind, sql: &str) -> Result<f64> {
    let (begun, mut found) = (Instant::now(), 0);
    if kind.by_info() {
        sidecar::ask(client, sql, |batch| found += batch.num_rows()).await?;
    } else {
        let mut batches = client.do_get(Ticket::new(sql.to_owned())).await?;
        while let Some(batch) = batches.try_next().await? {
            found += batch.num_rows();
        }
    }
    match found {
        1 => Ok(begun.elapsed().as_secs_f64()),
        _ => Err(format!("{found} rows for {sql}").into()),
    }
}
