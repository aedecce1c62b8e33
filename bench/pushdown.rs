//! Joins over two upstreams, with push-down on ÷ off: the bytes that the upstreams send, and the time.
//!
//! Five processes on one machine: this client, two upstreams with TPC-H data behind TLS, and two sidecars
//! over the same datasets, of which one has `push_down: off`. Both must give the same answer.
//! `bench/README.md` tells how to read the table.

mod process;
mod report;
mod sidecar;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::FlightClient;

use process::Process;
use report::{Section, Spread};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Rounds that count; one more runs first and does not.
const ROUNDS: usize = 7;
/// TPC-H scale factor: 0.1 is 600,000 line items.
const SCALE: &str = "0.1";

/// The datasets of each upstream, and what the upstream calls them.
const WEST: &[(&str, &str)] = &[("orders", "orders"), ("lineitem", "lineitem")];
const EAST: &[(&str, &str)] = &[
    ("region", "region"),
    ("nation", "nation"),
    ("customer", "customer"),
    ("supplier", "supplier"),
    ("part", "part"),
    ("partsupp", "partsupp"),
    ("orders_east", "orders"),
];

/// One row of the table.
struct Case {
    name: &'static str,
    sql: &'static str,
}

const CASES: [Case; 10] = [
    Case {
        name: "small dimension filtered ⋈ big fact",
        sql: "SELECT p_partkey, sum(l_quantity) AS quantity FROM lineitem JOIN part ON l_partkey = p_partkey \
              WHERE p_brand = 'Brand#23' AND p_size < 10 GROUP BY p_partkey",
    },
    Case {
        name: "(A ⋈ A aggregated) ⋈ B",
        sql: "SELECT c_mktsegment, sum(revenue) AS revenue FROM customer JOIN ( \
              SELECT o_custkey, sum(l_extendedprice * (1 - l_discount)) AS revenue \
              FROM orders JOIN lineitem ON o_orderkey = l_orderkey \
              WHERE o_orderdate < DATE '1992-03-01' GROUP BY o_custkey) ON c_custkey = o_custkey \
              GROUP BY c_mktsegment",
    },
    Case {
        name: "semi join",
        sql: "SELECT o_orderpriority, count(*) AS orders FROM orders WHERE o_custkey IN ( \
              SELECT c_custkey FROM customer WHERE c_nationkey = 7 AND c_acctbal > 9000) \
              GROUP BY o_orderpriority",
    },
    Case {
        name: "anti join",
        sql: "SELECT c_nationkey, count(*) AS idle FROM customer WHERE c_acctbal > 9500 AND NOT EXISTS ( \
              SELECT 1 FROM orders WHERE o_custkey = c_custkey) GROUP BY c_nationkey",
    },
    Case {
        name: "left join",
        sql: "SELECT s_name, count(l_orderkey) AS items FROM supplier \
              LEFT JOIN lineitem ON l_suppkey = s_suppkey AND l_returnflag = 'R' \
              WHERE s_nationkey = 3 GROUP BY s_name",
    },
    Case {
        name: "first 10 of a join",
        sql: "SELECT o_orderkey, o_totalprice, c_name FROM orders JOIN customer ON o_custkey = c_custkey \
              ORDER BY o_totalprice DESC, o_orderkey LIMIT 10",
    },
    Case {
        name: "5 keys",
        sql: "SELECT o_orderkey, o_totalprice, c_name, c_address FROM orders \
              JOIN customer ON o_custkey = c_custkey WHERE o_orderkey IN (1, 7, 33, 71, 100)",
    },
    Case {
        name: "A ⋈ B ⋈ A, where the A's have a key",
        sql: "SELECT c_mktsegment, count(*) AS items FROM orders JOIN customer ON o_custkey = c_custkey \
              JOIN lineitem ON l_orderkey = o_orderkey \
              WHERE o_orderdate < DATE '1992-03-01' AND l_shipmode = 'AIR' GROUP BY c_mktsegment",
    },
    Case {
        name: "first 10 of a UNION ALL",
        sql: "SELECT o_orderkey, o_totalprice FROM orders UNION ALL \
              SELECT o_orderkey, o_totalprice FROM orders_east ORDER BY o_totalprice DESC, o_orderkey LIMIT 10",
    },
    Case {
        name: "many to one, grouped by the one",
        sql: "SELECT n_name, sum(o_totalprice) AS total FROM orders JOIN customer ON o_custkey = c_custkey \
              JOIN nation ON c_nationkey = n_nationkey GROUP BY n_name",
    },
];

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { bench, write, scale } = Arguments::read()?;
    if !bench {
        println!("pushdown: measures only under `cargo bench`");
        return Ok(());
    }
    measure(write, &scale).await
}

struct Arguments {
    /// `cargo bench` adds it; a plain `cargo test --all-targets` does not, and is not kept waiting.
    bench: bool,
    write: bool,
    scale: String,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut found = Self { bench: false, write: false, scale: SCALE.to_owned() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => found.bench = true,
                "--write" => found.write = true,
                "--scale" => found.scale = arguments.next().ok_or("--scale needs a number")?,
                other => {
                    return Err(format!("unknown argument {other}: --write and --scale are known").into());
                }
            }
        }
        Ok(found)
    }
}

async fn measure(write: bool, scale: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let west = start_upstream(&directory.path().join("west"), scale).await?;
    let east = start_upstream(&directory.path().join("east"), scale).await?;
    let places = [
        Place { name: "west", address: west.address("flight")?, tables: WEST },
        Place { name: "east", address: east.address("flight")?, tables: EAST },
    ];
    let mut on = Side::start(directory.path(), "on", &places).await?;
    let mut off = Side::start(directory.path(), "off", &places).await?;

    let mut lines = Vec::new();
    for case in &CASES {
        let samples = compare(case, &mut on, &mut off).await?;
        lines.push(line(case, &samples));
    }
    let section = Section {
        title: "Joins over two upstreams, push-down on ÷ off",
        measured: format!(
            "TPC-H at scale {scale}; median of {ROUNDS} rounds, in brackets the least and the most"
        ),
        columns: &["join", "kB on", "kB off", "on ÷ off", "ms on", "ms off", "on ÷ off"],
        lines,
    };
    report::publish(&section, write)?;
    for process in [on.process, off.process, west, east] {
        process.stop().await?;
    }
    Ok(())
}

/// The demo's upstream: it leaves its CA and its key in `directory`.
async fn start_upstream(directory: &Path, scale: &str) -> Result<Process> {
    std::fs::create_dir(directory)?;
    let program = Path::new(env!("CARGO_BIN_EXE_sidewing"));
    let arguments = ["demo-upstream", "--dir", ".", "--scale", scale];
    Process::start(program, &arguments, directory, "flight").await
}

/// An upstream as a spicepod names it.
struct Place<'a> {
    name: &'static str,
    address: &'a str,
    tables: &'static [(&'static str, &'static str)],
}

/// A sidecar, and what is needed to measure it.
struct Side {
    process: Process,
    client: FlightClient,
    metrics: String,
}

/// One answer: its rows in an order of their own, what the upstreams sent for it, and the time it took.
struct Reading {
    rows: Vec<String>,
    bytes: f64,
    time: Duration,
}

impl Side {
    async fn start(directory: &Path, push_down: &str, places: &[Place<'_>]) -> Result<Self> {
        let home = directory.join(push_down);
        std::fs::create_dir(&home)?;
        std::fs::write(home.join("spicepod.yaml"), spicepod(directory, push_down, places))?;
        let process = sidecar::start(&home).await?;
        let client = sidecar::client(process.address("flight")?).await?;
        let metrics = format!("http://{}/metrics", process.address("metrics")?);
        Ok(Self { process, client, metrics })
    }

    async fn read(&mut self, case: &Case) -> Result<Reading> {
        let before = self.received().await?;
        let started = Instant::now();
        let mut batches: Vec<RecordBatch> = Vec::new();
        sidecar::ask(&mut self.client, case.sql, |batch| batches.push(batch)).await?;
        let time = started.elapsed();
        let bytes = self.received().await? - before;
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Err(format!("{}: no rows: it shows nothing", case.name).into());
        }
        let table = pretty_format_batches(&batches)?.to_string();
        let mut rows: Vec<String> = table.lines().map(str::to_owned).collect();
        rows.sort();
        Ok(Reading { rows, bytes, time })
    }

    /// What all upstreams have sent it since it started, in bytes.
    async fn received(&self) -> Result<f64> {
        let text = reqwest::get(&self.metrics).await?.text().await?;
        let counters = text.lines().filter(|line| line.starts_with("upstream_received_bytes{"));
        let mut bytes = 0.0;
        for line in counters {
            bytes += line.rsplit(' ').next().ok_or("a counter without a value")?.parse::<f64>()?;
        }
        Ok(bytes)
    }
}

fn spicepod(directory: &Path, push_down: &str, places: &[Place<'_>]) -> String {
    let mut secrets = String::new();
    let mut datasets = String::new();
    for Place { name, address, tables } in places {
        let files = directory.join(name);
        let (key, ca) = (files.join("core.env"), files.join("ca.pem"));
        secrets.push_str(&format!(
            "  - {{from: env, name: {name}, params: {{file_path: '{}'}}}}\n",
            key.display()
        ));
        for (dataset, table) in *tables {
            datasets.push_str(&format!(
                "  - from: spice.ai:https://{address}/{table}\n    name: {dataset}\n    params:\n      \
                 spiceai_api_key: ${{{name}:CORE_API_KEY}}\n      \
                 spiceai_tls_ca_certificate_file: '{}'\n",
                ca.display()
            ));
        }
    }
    format!(
        "version: v1\nkind: Spicepod\nname: bench\nruntime: {{params: {{push_down: {push_down}}}}}\n\
         secrets:\n{secrets}datasets:\n{datasets}"
    )
}

/// One round, both ways.
struct Sample {
    on: Reading,
    off: Reading,
}

/// Rounds of both sides in turn, so that what the machine does besides hits both alike.
async fn compare(case: &Case, on: &mut Side, off: &mut Side) -> Result<Vec<Sample>> {
    let mut samples = Vec::with_capacity(ROUNDS + 1);
    for _ in 0..=ROUNDS {
        let sample = Sample { on: on.read(case).await?, off: off.read(case).await? };
        if sample.on.rows != sample.off.rows {
            let (on, off) = (sample.on.rows.join("\n"), sample.off.rows.join("\n"));
            return Err(format!("{}: the answers differ\non:\n{on}\noff:\n{off}", case.name).into());
        }
        samples.push(sample);
    }
    samples.remove(0);
    Ok(samples)
}

fn line(case: &Case, samples: &[Sample]) -> Vec<String> {
    let spread = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
    let bytes = |of: fn(&Sample) -> &Reading| spread(&|sample| of(sample).bytes).shown(1e-3, 1, "");
    let time =
        |of: fn(&Sample) -> &Reading| spread(&|sample| of(sample).time.as_secs_f64()).shown(1e3, 1, "");
    vec![
        case.name.to_owned(),
        bytes(|sample| &sample.on),
        bytes(|sample| &sample.off),
        spread(&|sample| sample.on.bytes / sample.off.bytes).shown(1.0, 3, ""),
        time(|sample| &sample.on),
        time(|sample| &sample.off),
        spread(&|sample| sample.on.time.as_secs_f64() / sample.off.time.as_secs_f64()).shown(1.0, 2, ""),
    ]
}
