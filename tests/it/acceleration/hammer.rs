//! Many readers through many refreshes and removals: each answer is of one whole generation. Through hundreds of
//! them, without sockets, in `src/acceleration/store/tests/querying.rs`; here with `SIDEWING_LONG=1`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;

use super::*;

const ROWS: i64 = 300;
/// Rows that the upstream has and retention takes out.
const STALE_ROWS: i64 = 40;
const READERS: usize = 8;
/// Between two questions of one reader: without it they would leave no time for refreshes on a small machine.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(60);

/// Every row carries the number of its generation; so many are there, and some that are not to be kept.
fn generation(g: i64) -> Vec<RecordBatch> {
    let rows = ROWS + g % 7;
    let stale = (0..rows + STALE_ROWS).map(|id| i64::from(id >= rows));
    batch([
        ("id", ints(0..rows + STALE_ROWS)),
        ("g", Arc::new(Int64Array::from_value(g, (rows + STALE_ROWS) as usize))),
        ("stale", ints(stale)),
    ])
}

/// One answer, by whichever door; it has one row of numbers.
async fn read(sidecar: &Sidecar, client: Option<&mut crate::support::client::Client>, sql: &str) -> Vec<i64> {
    match client {
        Some(client) => {
            let answer = client.query(sql).await.unwrap();
            let row = answer.batches.iter().find(|batch| batch.num_rows() > 0).expect("a row");
            row.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
        }
        None => {
            let rows = sidecar.sql(sql).await;
            let row = rows[0].as_object().unwrap();
            ["a", "b", "n", "stale", "c", "d"].iter().map(|name| row[*name].as_i64().unwrap()).collect()
        }
    }
}

async fn hammer(settings: &str, refreshes: i64) {
    let upstream = Upstream::builder().table("t", generation(1)).start().await;
    let retention = "retention_check_enabled: true, retention_check_interval: 20ms, \
                     retention_sql: 'DELETE FROM t WHERE stale = 1'";
    let settings = format!("refresh_check_interval: 1ms, {retention}, {settings}");
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(&settings)], "").await;
    sidecar.wait_ready().await;
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = |at: usize| {
        let (sidecar, done, answers) = (&sidecar, &done, &answers);
        // The join reads the table twice; the filter keeps the answer from coming out of the statistics.
        let sql = match at % 2 {
            0 => {
                "select min(g) as a, max(g) as b, count(*) as n, max(stale) as stale, min(g) as c, max(g) as d from t"
            }
            _ => {
                "select min(x.g) as a, max(x.g) as b, count(*) as n, max(x.stale) as stale, min(y.g) as c, \
                 max(y.g) as d from t x join t y on x.id = y.id where x.id >= 0"
            }
        };
        async move {
            let mut client = match at % 4 {
                0 | 1 => Some(sidecar.flight_client().await),
                _ => None,
            };
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let row = read(sidecar, client.as_mut(), sql).await;
                let g = row[0];
                assert_eq!(row, [g, g, ROWS + g % 7, 0, g, g], "a mixture");
                assert!(g >= last, "generation {g} after {last}");
                last = g;
                answers.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let writes = async {
        // Each generation is seen before the next one is made: none is skipped.
        for g in 2..=refreshes {
            upstream.swap("t", generation(g)).await;
            loop {
                let rows = sidecar.sql("select max(g) as g from t").await;
                if rows[0]["g"] == g {
                    break;
                }
                tokio::time::sleep(PAUSE / 8).await;
            }
        }
        done.store(true, Ordering::Release);
    };
    futures::join!(writes, futures::future::join_all((0..READERS).map(reader)));
    let told = status(&sidecar).await;
    assert!(told["acceleration"]["generation"].as_i64().unwrap() >= refreshes, "{told}");
    let answers = answers.into_inner();
    assert!(answers >= READERS * 3, "only {answers} answers");
}

/// How many refreshes, and how many in a long run.
fn refreshes(usual: i64, long: i64) -> i64 {
    if std::env::var_os("SIDEWING_LONG").is_some() { long } else { usual }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_one_generation_through_many_refreshes() {
    hammer("primary_key: id", refreshes(60, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_one_generation_of_a_table_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |resident: bool| {
        let path = folder.path().join(format!("t-{resident}"));
        format!("mode: file, params: {{file_path: {}, resident: {resident}}}", path.display())
    };
    let (memory, files, many) = (settings(true), settings(false), refreshes(12, 200));
    futures::join!(hammer(&memory, many), hammer(&files, many));
}
