//! Accelerated datasets: how fast they load, what a refresh costs in memory and time, how a lookup and a restart do.
//!
//! Three processes on one machine: this client, the real binary, and an upstream whose tables grow and change when
//! they are told to. Memory is the resident set of the sidecar as the kernel counts it. `bench/README.md` tells how to
//! read the table.

mod growing;
mod memory;
mod process;
mod report;
mod sidecar;
mod upstream;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow_flight::{Action, FlightClient};
use futures::TryStreamExt;
use serde_json::Value;

use growing::{Growing, ROW_BYTES, name};
use process::Process;
use report::{Section, Spread};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const ROUNDS: usize = 5;
/// Lookups in a round; its time is divided by it.
const LOOKUPS: usize = 200;
/// Rows that come with each append.
const NEW_ROWS: usize = 1_000;

/// Table sizes in rows, before `--scale` divides them.
struct Sizes {
    few: usize,
    some: usize,
    many: usize,
    /// Of the table that is found on disk.
    filed: usize,
}

enum Mode {
    Upstream,
    Measure { write: bool, scale: usize },
    Nothing,
}

#[tokio::main]
async fn main() -> Result<()> {
    match mode()? {
        Mode::Upstream => upstream::serve(Growing::default()).await,
        Mode::Measure { write, scale } => measure(write, &Sizes::divided_by(scale)).await,
        Mode::Nothing => {
            println!("acceleration: measures only under `cargo bench`");
            Ok(())
        }
    }
}

/// `cargo bench` adds `--bench`; a plain `cargo test --all-targets` does not, and is not kept waiting.
fn mode() -> Result<Mode> {
    let (mut bench, mut write, mut scale) = (false, false, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--upstream" => return Ok(Mode::Upstream),
            "--bench" => bench = true,
            "--write" => write = true,
            "--scale" => scale = arguments.next().ok_or("--scale needs a number")?.parse()?,
            other => return Err(format!("unknown argument {other}: --write and --scale are known").into()),
        }
    }
    Ok(if bench { Mode::Measure { write, scale } } else { Mode::Nothing })
}

impl Sizes {
    fn divided_by(scale: usize) -> Self {
        let all = Self { few: 10_000, some: 1_000_000, many: 10_000_000, filed: 1_000_000_000 / ROW_BYTES };
        let by = |rows: usize| (rows / scale.max(1)).max(1);
        Self { few: by(all.few), some: by(all.some), many: by(all.many), filed: by(all.filed) }
    }
}

async fn measure(write: bool, sizes: &Sizes) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let upstream = Process::start(&program, &["--upstream"], directory.path(), "flight").await?;
    let address = upstream.address("flight")?.to_owned();
    let bench = Bench { directory: directory.path(), address };
    let mut lines = Vec::new();
    lines.extend(bench.loads(sizes).await?);
    lines.extend(bench.appends(sizes).await?);
    lines.push(bench.lookups(sizes).await?);
    lines.extend(bench.codes(sizes).await?);
    lines.push(bench.warm_start(sizes, upstream).await?);
    let section = Section {
        title: "Acceleration",
        measured: format!("Median of {ROUNDS} rounds where brackets show the least and the most"),
        columns: &["what", "figure", "beside", "ratio"],
        lines,
    };
    report::publish(&section, write)
}

struct Bench<'a> {
    directory: &'a Path,
    address: String,
}

/// A running sidecar.
struct Sidecar {
    process: Process,
    http: reqwest::Client,
}

impl Bench<'_> {
    /// A sidecar with one dataset for each: rows, and the fields of its acceleration.
    async fn sidecar(&self, datasets: &[(usize, &str)]) -> Result<Sidecar> {
        // What is measured is the work, not its repetition.
        let runtime = "runtime:\n  caching:\n    sql_results: {enabled: false}\n";
        let mut pod = format!("version: v1\nkind: Spicepod\nname: bench\n{runtime}datasets:\n");
        for (rows, acceleration) in datasets {
            let table = name(*rows);
            pod.push_str(&format!(
                "  - from: spice.ai:http://{}/{table}\n    name: {table}\n    time_column: at\n    \
                 time_format: unix_millis\n    acceleration: {{{acceleration}}}\n",
                self.address
            ));
        }
        std::fs::write(self.directory.join("spicepod.yaml"), pod)?;
        let process = sidecar::start(self.directory).await?;
        Ok(Sidecar { process, http: reqwest::Client::builder().no_proxy().build()? })
    }

    async fn act(&self, kind: &str, body: String) -> Result<()> {
        let mut client = sidecar::client(&self.address).await?;
        let done = client.do_action(Action::new(kind, body)).await?;
        done.try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// The time of a plain read of the table by a Flight client: what a load cannot beat.
    async fn plain_read(&self, rows: usize) -> Result<Duration> {
        let mut client = sidecar::client(&self.address).await?;
        let mut found = 0;
        let begun = Instant::now();
        sidecar::ask(&mut client, &format!("SELECT * FROM {}", name(rows)), |batch| {
            found += batch.num_rows()
        })
        .await?;
        match found >= rows {
            true => Ok(begun.elapsed()),
            false => Err(format!("{found} rows instead of {rows}").into()),
        }
    }

    /// Full loads: rows a second, and the memory that a refresh takes when nothing, a tenth, or all has changed.
    async fn loads(&self, sizes: &Sizes) -> Result<Vec<Vec<String>>> {
        let rows = sizes.many;
        // Encodes the table.
        self.plain_read(rows).await?;
        let idle = self.sidecar(&[]).await?;
        let idle_bytes = idle.resident_peak()?;
        idle.process.stop().await?;

        let mut lines = Vec::new();
        let sidecar = self.sidecar(&[(rows, "refresh_mode: full")]).await?;
        let table_bytes = sidecar.table_bytes(rows).await?;
        let (mut direct, mut loaded) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            direct.push(self.plain_read(rows).await?.as_secs_f64());
            loaded.push(sidecar.refresh(rows).await?.as_secs_f64());
        }
        let rate = |seconds: &Spread| rows as f64 / seconds.median / 1e6;
        let ratios: Vec<f64> = loaded.iter().zip(&direct).map(|(loaded, direct)| loaded / direct).collect();
        let (loaded, direct) = (Spread::of(loaded.into_iter()), Spread::of(direct.into_iter()));
        lines.push(vec![
            format!("full load of {rows} rows (nothing changed) ÷ a plain read"),
            format!("{}, {:.1} M rows/s", loaded.shown(1e3, 0, " ms"), rate(&loaded)),
            format!("{}, {:.1} M rows/s", direct.shown(1e3, 0, " ms"), rate(&direct)),
            Spread::of(ratios.into_iter()).shown(1.0, 2, ""),
        ]);
        sidecar.process.stop().await?;
        for (what, changed) in [("nothing", 0), ("a contiguous tenth", rows / 10), ("everything", rows)] {
            // A process of its own, so that one refresh's leftovers are not the next one's.
            let sidecar = self.sidecar(&[(rows, "refresh_mode: full")]).await?;
            let first = sidecar.resident_peak()?;
            self.act(
                "change",
                format!("{} {} {}", name(rows), rows / 2 - changed / 2, rows / 2 + changed / 2),
            )
            .await?;
            self.plain_read(rows).await?;
            sidecar.forget_peak()?;
            sidecar.refresh(rows).await?;
            let peak = sidecar.resident_peak()?.saturating_sub(idle_bytes) as f64;
            lines.push(vec![
                format!("peak of a refresh where {what} changed ÷ table"),
                format!("{:.0} MB (first load {:.0} MB)", peak / 1e6, (first - idle_bytes) as f64 / 1e6),
                format!("{:.0} MB", table_bytes / 1e6),
                format!("{:.2}", peak / table_bytes),
            ]);
            sidecar.process.stop().await?;
        }
        Ok(lines)
    }

    /// A thousand new rows on a table, and on one ten times as large.
    async fn appends(&self, sizes: &Sizes) -> Result<Vec<Vec<String>>> {
        let mut lines = Vec::new();
        for (what, fields) in
            [("", "refresh_mode: append"), (", with a primary key", "refresh_mode: append, primary_key: id")]
        {
            let sidecar = self.sidecar(&[(sizes.some, fields), (sizes.many, fields)]).await?;
            let (mut some, mut many) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                for (rows, times) in [(sizes.some, &mut some), (sizes.many, &mut many)] {
                    self.act("grow", format!("{} {NEW_ROWS}", name(rows))).await?;
                    times.push(sidecar.refresh(rows).await?.as_secs_f64());
                }
            }
            let ratios: Vec<f64> = many.iter().zip(&some).map(|(many, some)| many / some).collect();
            lines.push(vec![
                format!("append of {NEW_ROWS} rows to {} ÷ to {}{what}", sizes.many, sizes.some),
                Spread::of(many.into_iter()).shown(1e3, 1, " ms"),
                Spread::of(some.into_iter()).shown(1e3, 1, " ms"),
                Spread::of(ratios.into_iter()).shown(1.0, 2, ""),
            ]);
            sidecar.process.stop().await?;
        }
        Ok(lines)
    }

    /// One row by its key, from a large table and from a small one.
    async fn lookups(&self, sizes: &Sizes) -> Result<Vec<String>> {
        let fields = "primary_key: id";
        let sidecar = self.sidecar(&[(sizes.few, fields), (sizes.many, fields)]).await?;
        let mut client = sidecar::client(sidecar.process.address("flight")?).await?;
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            for (rows, times) in [(sizes.few, &mut few), (sizes.many, &mut many)] {
                let time = lookups(&mut client, rows).await?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        let ratios: Vec<f64> = many.iter().zip(&few).map(|(many, few)| many / few).collect();
        sidecar.process.stop().await?;
        Ok(vec![
            format!("lookup by key in {} rows ÷ in {}", sizes.many, sizes.few),
            Spread::of(many.into_iter()).shown(1e3, 3, " ms"),
            Spread::of(few.into_iter()).shown(1e3, 3, " ms"),
            Spread::of(ratios.into_iter()).shown(1.0, 2, ""),
        ])
    }

    /// A text of few values, as codes and plain: the column of an index stays plain.
    async fn codes(&self, sizes: &Sizes) -> Result<Vec<Vec<String>>> {
        let coded = self.sidecar(&[(sizes.many, "refresh_mode: full")]).await?;
        let plain = self.sidecar(&[(sizes.many, "refresh_mode: full, indexes: {kind: enabled}")]).await?;
        let mut lines = Vec::new();
        for (what, sql) in [
            ("count of each of 50 texts", "SELECT kind, count(*) FROM {} GROUP BY kind"),
            (
                "sum where a text begins so",
                "SELECT sum(value) FROM {} WHERE kind LIKE 'kind-00000000000001%'",
            ),
        ] {
            let sql = sql.replace("{}", &name(sizes.many));
            let (mut few, mut all) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                for (sidecar, times) in [(&coded, &mut few), (&plain, &mut all)] {
                    let mut client = sidecar::client(sidecar.process.address("flight")?).await?;
                    let begun = Instant::now();
                    sidecar::ask(&mut client, &sql, drop).await?;
                    if round > 0 {
                        times.push(begun.elapsed().as_secs_f64());
                    }
                }
            }
            let ratios: Vec<f64> = few.iter().zip(&all).map(|(coded, plain)| coded / plain).collect();
            lines.push(vec![
                format!("{what}, as codes ÷ plain"),
                Spread::of(few.into_iter()).shown(1e3, 0, " ms"),
                Spread::of(all.into_iter()).shown(1e3, 0, " ms"),
                Spread::of(ratios.into_iter()).shown(1.0, 2, ""),
            ]);
        }
        let (bytes, rows) = (coded.table_bytes(sizes.many).await?, sizes.many * ROW_BYTES);
        lines.push(vec![
            "memory of the table with its codes ÷ plain rows".to_owned(),
            format!("{:.0} MB", bytes / 1e6),
            format!("{:.0} MB", rows as f64 / 1e6),
            format!("{:.2}", bytes / rows as f64),
        ]);
        coded.process.stop().await?;
        plain.process.stop().await?;
        Ok(lines)
    }

    /// From the start of the process to the first right answer, with the upstream gone.
    async fn warm_start(&self, sizes: &Sizes, upstream: Process) -> Result<Vec<String>> {
        let fields = "mode: file, refresh_mode: full";
        // Encodes the table.
        self.plain_read(sizes.filed).await?;
        let begun = Instant::now();
        let first = self.sidecar(&[(sizes.filed, fields)]).await?;
        let cold = begun.elapsed().as_secs_f64();
        first.committed(sizes.filed).await?;
        let bytes = first.table_bytes(sizes.filed).await?;
        first.process.stop().await?;
        upstream.stop().await?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let again = self.sidecar(&[(sizes.filed, fields)]).await?;
            let mut client = sidecar::client(again.process.address("flight")?).await?;
            let mut rows = 0;
            sidecar::ask(&mut client, &format!("SELECT id FROM {}", name(sizes.filed)), |batch| {
                rows += batch.num_rows()
            })
            .await?;
            times.push(begun.elapsed().as_secs_f64());
            if rows != sizes.filed {
                return Err(format!("{rows} rows after the restart instead of {}", sizes.filed).into());
            }
            again.process.stop().await?;
        }
        let warm = Spread::of(times.into_iter());
        Ok(vec![
            format!("warm start of {:.0} MB in files, no upstream ÷ cold start", bytes / 1e6),
            format!("{}, {:.0} MB/s", warm.shown(1e3, 0, " ms"), bytes / 1e6 / warm.median),
            format!("{:.0} ms", cold * 1e3),
            format!("{:.2}", warm.median / cold),
        ])
    }
}

/// The mean time of a lookup, in seconds.
async fn lookups(client: &mut FlightClient, rows: usize) -> Result<f64> {
    let begun = Instant::now();
    for at in 0..LOOKUPS {
        let sql = format!("SELECT value, name FROM {} WHERE id = {}", name(rows), at * 7919 % rows);
        let mut found = 0;
        sidecar::ask(client, &sql, |batch| found += batch.num_rows()).await?;
        if found != 1 {
            return Err(format!("{found} rows for {sql}").into());
        }
    }
    Ok(begun.elapsed().as_secs_f64() / LOOKUPS as f64)
}

impl Sidecar {
    /// Asks for a refresh and returns how long it took, as the sidecar measured it.
    async fn refresh(&self, rows: usize) -> Result<Duration> {
        let before = self.refreshes(rows).await?;
        let path = format!("/v1/datasets/{}/acceleration/refresh", name(rows));
        self.http.post(self.url("http", &path)?).send().await?.error_for_status()?;
        loop {
            let now = self.refreshes(rows).await?;
            if now.0 > before.0 {
                return Ok(Duration::from_secs_f64((now.1 - before.1) / 1e3));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns when the refresh has ended: what is shown is on disk before, small chunks are joined after.
    async fn committed(&self, rows: usize) -> Result<()> {
        while self.status(rows).await?["status"] != "Ready" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// How many refreshes have ended well, and their time in ms.
    async fn refreshes(&self, rows: usize) -> Result<(f64, f64)> {
        let text = self.http.get(self.url("metrics", "/metrics")?).send().await?.text().await?;
        let label = format!("dataset=\"{}\"", name(rows));
        let sum = |suffix: &str| {
            let metric = format!("dataset_acceleration_refresh_duration_ms_{suffix}{{");
            let lines = text.lines().filter(|line| line.starts_with(&metric) && line.contains(&label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        Ok((sum("count"), sum("sum")))
    }

    async fn table_bytes(&self, rows: usize) -> Result<f64> {
        let status = self.status(rows).await?;
        status["acceleration"]["bytes"].as_f64().ok_or_else(|| format!("no size in {status}").into())
    }

    async fn status(&self, rows: usize) -> Result<Value> {
        let text = self.http.get(self.url("http", "/v1/datasets?status=true")?).send().await?.text().await?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let found = all.into_iter().find(|dataset| dataset["name"] == name(rows).as_str());
        found.ok_or_else(|| format!("no dataset {} in {text}", name(rows)).into())
    }

    fn url(&self, service: &str, path: &str) -> Result<String> {
        Ok(format!("http://{}{path}", self.process.address(service)?))
    }

    /// The largest resident set since the last [`Sidecar::forget_peak`], in bytes.
    fn resident_peak(&self) -> Result<u64> {
        Ok(memory::of(self.process.id()?, "VmHWM")? as u64)
    }

    fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.process.id()?), "5")?)
    }
}
