//! What stands on disk: after a kill, a full disk or damage a restart serves a whole generation, or says what is wrong.
//!
//! Restarts are made without the upstream, so that nothing but the files can answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Rows of a generation that a kill finds half written often enough.
const ROWS: i64 = 60_000;

fn many(generation: i64) -> Vec<RecordBatch> {
    // Values that compress badly: files of some size.
    let noise = (0..ROWS).map(|id| noise(id) ^ generation);
    batch([("id", ints(0..ROWS)), ("g", ints((0..ROWS).map(|_| generation))), ("noise", ints(noise))])
}

/// A number without any pattern, whose differences have none either.
pub(super) fn noise(id: i64) -> i64 {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9_u64 as i64);
    mixed ^ (mixed >> 27)
}

fn in_files(upstream: &Upstream, folder: &Path, settings: &str) -> Dataset {
    let params = format!("mode: file, params: {{file_path: {}}}, {settings}", folder.display());
    Dataset::of("t", upstream).accelerated(&params)
}

async fn said_ready(sidecar: &Sidecar) -> Option<String> {
    let told = status(sidecar).await;
    let when = told["acceleration"]["last_refresh"].as_str().map(str::to_owned);
    when.filter(|_| told["status"] == "Ready")
}

/// Refreshes with generation after generation until the deadline; the last one that was said to be ready.
async fn refresh_until(sidecar: &Sidecar, upstream: &Upstream, from: i64, dies: Duration) -> (i64, i64) {
    let begun = std::time::Instant::now();
    let (mut ready, mut offered) = (from, from);
    let mut last = said_ready(sidecar).await;
    'all: while begun.elapsed() < dies {
        offered += 1;
        upstream.swap("t", many(offered)).await;
        assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
        loop {
            let now = said_ready(sidecar).await;
            if now.is_some() && now != last {
                (last, ready) = (now, offered);
                break;
            }
            if begun.elapsed() >= dies {
                break 'all;
            }
        }
    }
    (ready, offered)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_in_a_loop_leaves_a_whole_generation() {
    kill_nine("resident: true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_in_a_loop_leaves_a_whole_generation_in_files_alone() {
    kill_nine("resident: false").await;
}

async fn kill_nine(resident: &str) {
    let rounds = if std::env::var_os("SIDEWING_LONG").is_some() { 50 } else { 8 };
    let mut dice = StdRng::seed_from_u64(9);
    let mut upstream = Upstream::builder().table("t", many(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let params =
        format!("mode: file, params: {{file_path: {}, {resident}}}", folder.path().join("t").display());
    let dataset = Dataset::of("t", &upstream).accelerated(&params);
    let mut sidecar = start(std::slice::from_ref(&dataset), "").await;
    let mut g = 1;
    for round in 0..rounds {
        sidecar.wait_until("it is ready", async || said_ready(&sidecar).await.is_some()).await;
        let dies = Duration::from_millis(dice.random_range(20..500));
        let (ready, offered) = refresh_until(&sidecar, &upstream, g, dies).await;
        sidecar.kill().await;
        upstream.stop().await;

        sidecar = start(std::slice::from_ref(&dataset), "").await;
        sidecar.wait_ready().await;
        let row = sidecar.sql("select min(g) as a, max(g) as b, count(*) as n, sum(id) as s from t").await;
        let row = row[0].clone();
        let context = format!("round {round}, killed after {dies:?}: {ready}..={offered} expected, {row}");
        assert_eq!(
            (&row["b"], &row["n"], &row["s"]),
            (&row["a"], &json!(ROWS), &json!(ROWS * (ROWS - 1) / 2)),
            "{context}"
        );
        let found = row["a"].as_i64().unwrap();
        assert!((ready..=offered).contains(&found), "{context}");
        g = offered + 1;
        upstream.swap("t", many(g)).await;
        upstream.restart().await;
        let is_new = async || sidecar.sql("select max(g) as g from t").await == json!([{"g": g}]);
        sidecar.wait_until("it refreshes again", is_new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_first_commit_leaves_nothing_and_says_so() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = in_files(&upstream, &folder.path().join("t"), "");
    upstream.inject(Method::DoGet, 1, Fault::Hang);
    let first = start(std::slice::from_ref(&dataset), "").await;
    first.wait_until("it loads", async || upstream.count(Method::DoGet) == 1).await;
    first.kill().await;
    upstream.stop().await;
    let second = start(&[dataset], "").await;
    let is_told = async || {
        let told = status(&second).await;
        told["error_message"].as_str().is_some_and(|text| text.contains("127.0.0.1"))
    };
    second.wait_until("the state says that the upstream is away", is_told).await;
    assert_eq!(second.http("/v1/ready").await.status, 503);
    let answer = second.sql_as("select 1 as one from t", "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("loading initial data for t"), "{}", answer.body);
}

async fn is_error(sidecar: &Sidecar, words: &str) -> bool {
    let told = status(sidecar).await;
    told["status"] == "Error" && told["error_message"].as_str().is_some_and(|text| text.contains(words))
}

/// A refresh that does not fit on the disk: told, nothing half, and the one before is there after a restart.
async fn fills_the_disk(folder: &Path, limits: &str, words: &str) {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let dataset = in_files(&upstream, folder, "refresh_retry_enabled: false");
    let pod = spicepod(std::slice::from_ref(&dataset), "");
    let first = Sidecar::builder().spicepod(&pod).limits(limits).start().await;
    first.wait_until("it is ready", async || said_ready(&first).await.is_some()).await;
    let large = |rows: i64| batch([("id", ints((0..rows).map(noise))), ("g", ints((0..rows).map(|_| 2)))]);
    upstream.swap("t", large(400_000)).await;
    assert_eq!(first.post(REFRESH, "").await.status, 201);
    first.wait_until("the state says that the disk is full", async || is_error(&first, words).await).await;
    let sql = "select min(g) as a, max(g) as b, count(*) as n from t";
    // What is not on disk was never shown.
    let before = json!([{"a": 1, "b": 1, "n": 10_000}]);
    assert_eq!(first.sql(sql).await, before);
    first.terminate().await;

    upstream.stop().await;
    let second = Sidecar::builder().spicepod(&pod).limits(limits).start().await;
    second.wait_ready().await;
    assert_eq!(second.sql(sql).await, before);
    let left: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| !name.ends_with(".tmp") && !name.starts_with("damaged")), "{left:?}");
    // What fits is taken again.
    upstream.swap("t", numbered(3)).await;
    upstream.restart().await;
    assert_eq!(second.post(REFRESH, "").await.status, 201);
    let is_new = async || second.sql("select max(g) as g from t").await == json!([{"g": 3}]);
    second.wait_until("it is refreshed", is_new).await;
    second.wait_until("and ready", async || said_ready(&second).await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow_keeps_the_generation_before() {
    let folder = tempfile::tempdir().unwrap();
    // The signal is ignored, so that writing fails as it does on a full disk; blocks of 512 or 1024 bytes.
    fills_the_disk(&folder.path().join("t"), "trap '' XFSZ; ulimit -f 200", "cannot write").await;
}

/// Where this machine lets us mount one.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_the_generation_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(folder.path());
    if !mount.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED a_full_disk_keeps_the_generation_before: no tmpfs can be mounted here");
        return;
    }
    let _mounted = Mounted(folder.path().to_owned());
    fills_the_disk(&folder.path().join("t"), "", "free space").await;
}

/// Unmounts, also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What happens to a file between two runs.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip,
    Cut,
    Empty,
    Lose,
}

fn hurt(path: &Path, harm: Harm) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 2;
    match harm {
        Harm::Flip => content[middle] ^= 0x10,
        Harm::Cut => content.truncate(middle),
        Harm::Empty => content.clear(),
        Harm::Lose => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, content).unwrap();
}

/// Files whose name begins so, by the number in it.
fn numbered_files(folder: &Path, begins: &str) -> Vec<PathBuf> {
    let number = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?.strip_prefix(begins)?.to_owned();
        name.parse::<u64>().ok()
    };
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| number(path).is_some()).collect();
    all.sort_by_key(number);
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_told_and_an_older_generation_is_served() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let writer = start(&[in_files(&upstream, &good, "")], "").await;
    writer.wait_until("it is ready", async || said_ready(&writer).await.is_some()).await;
    upstream.swap("t", numbered(2)).await;
    refresh(&writer, "").await;
    writer.terminate().await;
    upstream.stop().await;
    assert_eq!(numbered_files(&good, "manifest-").len(), 2);

    let cases = [
        ("chunk-", Harm::Flip, false),
        ("chunk-", Harm::Lose, false),
        ("manifest-", Harm::Cut, false),
        ("chunk-", Harm::Cut, true),
        ("manifest-", Harm::Empty, true),
    ];
    let run = async |at: usize, (begins, harm, all): (&str, Harm, bool)| {
        let context = format!("{harm:?} of {begins}, of all: {all}");
        let harmed = folder.path().join(format!("harmed-{at}"));
        copy(&good, &harmed);
        let mut files = numbered_files(&harmed, begins);
        let last = files.pop().unwrap();
        hurt(&last, harm);
        if all {
            files.iter().for_each(|file| hurt(file, harm));
        }
        let name = last.file_name().unwrap().to_str().unwrap().to_owned();
        let sidecar = start(&[in_files(&upstream, &harmed, "")], "").await;
        // The state names the file while the upstream is away, whatever else it says.
        let is_named = async || {
            let told = status(&sidecar).await;
            let reason = told["acceleration"]["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains(&name) && reason.contains("damaged")
        };
        sidecar.wait_until(&format!("{context}: {name} is named"), is_named).await;
        let sql = "select min(g) as a, max(g) as b, count(*) as n from t";
        if !all {
            // What is damaged is told before the rest is read.
            let is_read = async || sidecar.sql_as(sql, "application/json").await.status == 200;
            sidecar.wait_until(&format!("{context}: the rows are read"), is_read).await;
        }
        let answer = sidecar.sql_as(sql, "application/json").await;
        if all {
            assert_eq!(answer.status, 503, "{context}: {}", answer.body);
            assert_eq!(sidecar.http("/v1/ready").await.status, 503, "{context}");
        } else {
            assert_eq!(answer.body.trim(), r#"[{"a":1,"b":1,"n":10000}]"#, "{context}");
            sidecar
                .wait_until("it says that it is not fresh", async || is_error(&sidecar, &name).await)
                .await;
        }
        sidecar
    };
    let mut running = Vec::new();
    for (at, case) in cases.into_iter().enumerate() {
        running.push(run(at, case).await);
    }
    upstream.restart().await;
    for sidecar in running {
        let heals = async || {
            let told = status(&sidecar).await;
            told["status"] == "Ready" && told["acceleration"]["reason"].is_null()
        };
        sidecar.post(REFRESH, "").await;
        sidecar.wait_until("the next refresh heals it", heals).await;
        assert_eq!(
            sidecar.sql("select min(g) as a, count(*) as n from t").await,
            json!([{"a": 2, "n": 10_000}])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_served_before_the_upstream_is_asked_and_use_source_waits_for_it() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = "refresh_sql: 'select g, id from t where id < 100', on_zero_results: use_source";
    let dataset = in_files(&upstream, &folder.path().join("t"), settings);
    let first = start(std::slice::from_ref(&dataset), "").await;
    first.wait_until("it is ready", async || said_ready(&first).await.is_some()).await;
    first.terminate().await;
    upstream.stop().await;

    let second = start(&[dataset], "").await;
    second.wait_ready().await;
    let inside = "select g, id from t where id = 7";
    let outside = "select g, id from t where id = 700";
    assert_eq!(second.sql(inside).await, json!([{"g": 1, "id": 7}]));
    let answer = second.sql_as(outside, "application/json").await;
    assert_ne!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("no row is held"), "{}", answer.body);
    second.wait_until("the state says who is away", async || is_error(&second, "127.0.0.1").await).await;
    let told = second.http("/v1/ready?verbose=true").await;
    assert_eq!(told.status, 200, "{}", told.body);

    upstream.restart().await;
    let is_reached = async || second.sql_as(outside, "application/json").await.status == 200;
    second.wait_until("the source is reached", is_reached).await;
    assert_eq!(second.sql(outside).await, json!([{"g": 1, "id": 700}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_definition_is_not_served_from_files() {
    let mut upstream = Upstream::builder().table("t", events(&[(10, "a"), (2_000, "b")])).start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let dataset = |format: &str, settings: &str| {
        in_files(&upstream, &path, &format!("refresh_mode: append, {settings}"))
            .field("time_column: at")
            .field(&format!("time_format: {format}"))
    };
    let (first, second) = (dataset("unix_seconds", ""), dataset("unix_millis", ""));
    let third = dataset("unix_millis", "indexes: {name: unique}");
    let sidecar = start(std::slice::from_ref(&first), "").await;
    sidecar.wait_until("it is ready", async || said_ready(&sidecar).await.is_some()).await;
    sidecar.terminate().await;
    // Read by another format the watermark would be a thousand times too late, and nothing would ever be new.
    let sidecar = start(std::slice::from_ref(&second), "").await;
    sidecar.wait_until("it is ready", async || said_ready(&sidecar).await.is_some()).await;
    assert_eq!(status(&sidecar).await["acceleration"]["watermark"], "1970-01-01T00:00:02.000Z");
    upstream.swap("t", events(&[(10, "a"), (2_000, "b"), (3_000, "b")])).await;
    refresh(&sidecar, "").await;
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 3}]));
    sidecar.terminate().await;
    // Rows that were never compared under a key must not pass for rows that keep it.
    let sidecar = start(std::slice::from_ref(&third), "").await;
    sidecar
        .wait_until("the key is named", async || {
            is_error(&sidecar, "two different rows have (name) = (b)").await
        })
        .await;
    assert_eq!(sidecar.sql_as("select 1 from t", "application/json").await.status, 503);
    upstream.stop().await;
}
