//! Random lives of a dataset in the real binary: inserts at the upstream (equal rows, equal and late times), refreshes,
//! faults in the middle of answers, restarts and kills. Whenever a refresh has ended, the table is what the upstream's
//! rows say: all of them, or for `upsert` and `drop` their fold by time, then arrival.
//!
//! Each seed is a life. `SIDEWING_SEED=n` (or `n..m`) replays, `SIDEWING_LONG=1` draws many. The same model without
//! sockets, for many more lives, is in `src/acceleration/refresh/tests`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::array::{Date32Array, TimestampMicrosecondArray, TimestampNanosecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const FORMATS: [&str; 6] = ["timestamp", "timestamptz", "unix_seconds", "unix_millis", "ISO8601", "date"];
const STEPS: usize = 22;
/// Rows come late by less, in ticks: what comes later still is not asked for.
const OVERLAP: i64 = 3;
/// The day of tick 0 after 1970.
const DAY: i64 = 19_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    All,
    Upsert,
    Drop,
}

/// What a life is of; drawn from its seed alone.
#[derive(Debug, Clone, Copy)]
struct Kind {
    seed: u64,
    format: &'static str,
    appends: bool,
    in_files: bool,
    /// Whether the rows are in memory too.
    is_resident: bool,
    fold: Fold,
    /// Whether the key is `(id, site)`, not `id`.
    is_compound: bool,
}

#[derive(Debug, Clone)]
struct Row {
    id: i64,
    site: &'static str,
    /// In ticks: days for `date`, else seconds.
    at: Option<i64>,
    value: i64,
}

struct Life {
    kind: Kind,
    dice: StdRng,
    upstream: Upstream,
    dataset: Dataset,
    sidecar: Option<Sidecar>,
    rows: Vec<Row>,
    done: Vec<String>,
}

impl Kind {
    fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let fold = [Fold::All, Fold::Upsert, Fold::Drop][seed as usize % 3];
        Self {
            seed,
            format: FORMATS[seed as usize % FORMATS.len()],
            appends: dice.random_bool(0.8),
            in_files: dice.random_bool(0.7),
            is_compound: dice.random(),
            // Files alone have no keys.
            is_resident: fold != Fold::All || dice.random(),
            fold,
        }
    }

    fn settings(self, folder: &Path) -> String {
        let mut all = Vec::new();
        if self.appends {
            let unit = if self.format == "date" { "d" } else { "s" };
            all.push(format!("refresh_mode: append, refresh_append_overlap: {OVERLAP}{unit}"));
        }
        if self.in_files {
            let (path, resident) = (folder.join("t"), self.is_resident);
            all.push(format!("mode: file, params: {{file_path: {}, resident: {resident}}}", path.display()));
        }
        let key = if self.is_compound { "(id, site)" } else { "id" };
        let action = match self.fold {
            Fold::All => return all.join(", "),
            Fold::Upsert => "upsert",
            Fold::Drop => "drop",
        };
        all.push(format!("primary_key: '{key}', on_conflict: {{'{key}': {action}}}"));
        all.join(", ")
    }

    fn batch(self, rows: &[Row]) -> Vec<RecordBatch> {
        let tick = |row: &Row| row.at.map(|at| DAY * 86_400 + at);
        let day = |row: &Row| row.at.map(|at| DAY + at);
        let at: ArrayRef = match self.format {
            "timestamp" => {
                let all = rows.iter().map(|row| tick(row).map(|at| at * 1_000_000_000));
                Arc::new(all.collect::<TimestampNanosecondArray>())
            }
            "timestamptz" => {
                let all = rows.iter().map(|row| tick(row).map(|at| at * 1_000_000));
                Arc::new(all.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            "unix_seconds" => Arc::new(rows.iter().map(tick).collect::<Int64Array>()),
            "unix_millis" => {
                Arc::new(rows.iter().map(|row| tick(row).map(|at| at * 1_000)).collect::<Int64Array>())
            }
            "ISO8601" => {
                let text = |at: i64| chrono::DateTime::from_timestamp(at, 0).unwrap().to_rfc3339();
                Arc::new(rows.iter().map(|row| tick(row).map(text)).collect::<StringArray>())
            }
            _ => Arc::new(rows.iter().map(|row| day(row).map(|day| day as i32)).collect::<Date32Array>()),
        };
        batch([
            ("id", ints(rows.iter().map(|row| row.id))),
            ("site", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.site)))),
            ("at", at),
            ("value", ints(rows.iter().map(|row| row.value))),
        ])
    }

    /// What the table holds of these rows.
    fn folded(self, rows: &[Row]) -> Vec<Row> {
        if self.fold == Fold::All {
            return rows.to_vec();
        }
        let mut fold: BTreeMap<(i64, &str), &Row> = BTreeMap::new();
        for row in rows {
            let held = fold.entry((row.id, if self.is_compound { row.site } else { "" })).or_insert(row);
            let takes = match self.fold {
                Fold::Upsert => row.at >= held.at,
                _ => row.at < held.at,
            };
            if takes {
                *held = row;
            }
        }
        fold.into_values().cloned().collect()
    }
}

impl Life {
    async fn new(kind: Kind, folder: &Path) -> Self {
        let upstream = Upstream::builder().table("t", kind.batch(&[])).start().await;
        let dataset = Dataset::of("t", &upstream)
            .accelerated(&kind.settings(folder))
            .field("time_column: at")
            .field(&format!("time_format: {}", kind.format));
        let dice = StdRng::seed_from_u64(!kind.seed);
        Self { kind, dice, upstream, dataset, sidecar: None, rows: Vec::new(), done: Vec::new() }
    }

    fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().expect("it runs")
    }

    /// Starts, and returns when the first refresh has ended.
    async fn start(&mut self) {
        let sidecar = start(std::slice::from_ref(&self.dataset), "").await;
        let is_loaded = async || {
            let told = status(&sidecar).await;
            told["status"] == "Ready" && !told["acceleration"]["last_refresh"].is_null()
        };
        sidecar.wait_until(&format!("{}: it is loaded", self.context()), is_loaded).await;
        self.sidecar = Some(sidecar);
        self.check().await;
    }

    async fn insert(&mut self) {
        let front = self.rows.iter().filter_map(|row| row.at).max().unwrap_or(0);
        for _ in 0..self.dice.random_range(1..8) {
            let at = front + self.dice.random_range(-OVERLAP..4);
            let row = Row {
                id: self.dice.random_range(0..5),
                site: ["a", "b"][self.dice.random_range(0..2)],
                at: (!self.dice.random_bool(0.07)).then_some(at),
                value: self.dice.random_range(0..3),
            };
            let copies = if self.dice.random_bool(0.2) { 2 } else { 1 };
            self.rows.extend(std::iter::repeat_n(row, copies));
        }
        self.upstream.swap("t", self.kind.batch(&self.rows)).await;
    }

    async fn check(&self) {
        let answer = self.sidecar().flight_client().await.query("select * from t").await.unwrap();
        let expected = self.kind.batch(&self.kind.folded(&self.rows));
        assert_same(&self.context(), &answer.batches, &expected, Order::Any);
    }

    async fn step(&mut self) {
        let what = match self.dice.random_range(0..20) {
            0..7 => {
                self.insert().await;
                "insert"
            }
            7..12 => {
                refresh(self.sidecar(), "").await;
                self.check().await;
                "refresh"
            }
            12..15 => {
                let fault = match self.dice.random_range(0..4) {
                    0 => Fault::BreakAfter { batches: 0, status: Status::internal("broken") },
                    1 => Fault::BreakAfter { batches: 1, status: Status::unavailable("gone") },
                    2 => Fault::Reset,
                    _ => Fault::Http503,
                };
                self.upstream.inject(Method::DoGet, 1, fault);
                // It is tried again by itself.
                refresh(self.sidecar(), "").await;
                self.upstream.heal();
                self.check().await;
                "refresh through a fault"
            }
            15..17 => {
                self.sidecar.take().expect("it runs").terminate().await;
                self.start().await;
                "restart"
            }
            17..19 => {
                // Somewhere in a refresh that brings something new.
                self.insert().await;
                self.sidecar().post(REFRESH, "").await;
                tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..25))).await;
                self.sidecar.take().expect("it runs").kill().await;
                self.start().await;
                "kill"
            }
            _ => {
                refresh(self.sidecar(), r#"{"refresh_mode": "full"}"#).await;
                self.check().await;
                "full refresh"
            }
        };
        self.done.push(format!("{what} ({} rows)", self.rows.len()));
    }

    /// Who this is, what it has done, and how to see it again.
    fn context(&self) -> String {
        let Self { kind, done, .. } = self;
        format!("SIDEWING_SEED={} cargo test --test it lives\n{kind:?}\n{}", kind.seed, done.join(", "))
    }
}

async fn live(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut life = Life::new(Kind::of(seed), folder.path()).await;
    life.start().await;
    for _ in 0..STEPS {
        life.step().await;
    }
    refresh(life.sidecar(), "").await;
    life.check().await;
}

fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SIDEWING_SEED").ok();
    let bounds = given.as_deref().map(|text| text.split_once("..").unwrap_or((text, "")));
    match bounds.map(|(from, to)| (from.parse::<u64>().unwrap(), to.parse::<u64>().ok())) {
        Some((from, to)) => from..to.unwrap_or(from + 1),
        None if std::env::var_os("SIDEWING_LONG").is_some() => 0..300,
        None => 0..6,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lives_of_a_dataset_hold_what_the_upstream_says() {
    // Some at a time: more would only wait for each other.
    futures::StreamExt::for_each_concurrent(futures::stream::iter(seeds()), 6, live).await;
}

#[test]
fn the_lives_of_a_usual_run_have_every_kind() {
    let all: Vec<Kind> = (0..6).map(Kind::of).collect();
    let has = |is: fn(&Kind) -> bool| all.iter().any(is) && !all.iter().all(is);
    assert!(
        has(|kind| kind.appends) && has(|kind| kind.in_files) && has(|kind| kind.is_compound),
        "{all:#?}"
    );
    assert!(has(|kind| kind.is_resident || !kind.in_files), "{all:#?}");
}
