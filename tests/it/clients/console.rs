//! The console in headless Chromium: what a person does with it, and what it may never do.
//!
//! `SIDEWING_SCREENSHOT=1 cargo test --test it clients::console::pictures` renews `docs/console.png`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::{Sidecar, repository_file};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::tpch;
use crate::support::upstream::{Fault, Method, Upstream};

/// Longer than a browser takes for all of it on a busy machine.
const STEPS_MAX: Duration = Duration::from_secs(300);
/// What the README may weigh.
const PICTURE_BYTES_MAX: u64 = 200 << 10;

const VIEWS: &str = "views:
  - name: item_names
    sql: SELECT name FROM items
";
const KEYS: &str = "runtime:
  auth:
    api-key:
      keys: ['${env:KEY}']
";
const REVENUE: &str = "views:
  - name: revenue_by_nation
    sql: SELECT n_name AS nation, sum(l_extendedprice * (1 - l_discount)) AS revenue FROM customer JOIN orders ON c_custkey = o_custkey JOIN lineitem ON l_orderkey = o_orderkey JOIN nation ON c_nationkey = n_nationkey GROUP BY n_name
";

/// A browser, its driver, and the interpreter that leads them.
struct Chromium {
    python: PathBuf,
    browser: PathBuf,
    driver: PathBuf,
}

impl Chromium {
    /// Nothing where it cannot be had and need not be.
    fn find() -> Option<Self> {
        let both = find("chromium").and_then(|browser| Ok((browser, find("chromedriver")?)));
        let (browser, driver) = tools::required("chromium", both)?;
        Some(Self { python: tools::python()?, browser, driver })
    }

    /// Runs steps of the script; `act` does what it asks for. What it has seen.
    async fn steps(&self, url: &str, steps: &[&str], mut act: impl AsyncFnMut(&str)) -> Value {
        let script = repository_file("tests/clients/console/console.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args([&self.browser, &self.driver]).arg(url).args(steps).kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the interpreter");
        let (mut stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut lines = BufReader::new(stdout).lines();
        let talk = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                let Some(asked) = line.strip_prefix("do: ") else { return line };
                act(asked).await;
                stdin.write_all(b"done\n").await.expect("a script that waits");
            }
            panic!("{steps:?} ended without a word: what it waited for is above");
        };
        let seen = tokio::time::timeout(STEPS_MAX, talk).await.expect("the script ends");
        assert!(child.wait().await.expect("a child process").success());
        serde_json::from_str(&seen).unwrap_or_else(|error| panic!("{error}: {seen}"))
    }
}

/// A program on the path.
fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| {
        format!("{program} is not on the PATH (Debian: apt-get install chromium chromium-driver)")
    })
}

/// Numbers beyond 2^53, no value, and a text that would be markup.
fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![3, 9_007_199_254_740_993, i64::MAX]));
    let markup = "<img src=x onerror=\"window.hit = 1\">";
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(markup)]));
    batch([("id", ids), ("name", names)])
}

async fn no_wish(asked: &str) {
    panic!("nothing is done for {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_what_they_need() {
    let Some(chromium) = Chromium::find() else { return };
    let tables = || Upstream::builder().tables(tpch::tables());
    let (mut upstream, elsewhere) = (tables().table("items", items()).start().await, tables().start().await);
    let mut late = Upstream::builder().table("late", items()).start().await;
    late.stop().await;
    let datasets = [
        Dataset::of("items", &upstream).accelerated("refresh_check_interval: 1s"),
        Dataset::of("lineitem", &upstream).accelerated(""),
        Dataset::of("orders", &elsewhere),
        Dataset::of("region", &elsewhere),
        Dataset::of("late", &late),
    ];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, VIEWS)).start().await;
    let url = format!("http://{}", sidecar.http_addr());
    let act = async |asked: &str| match asked {
        "start late" => late.restart().await,
        "stop upstream" => upstream.stop().await,
        "start upstream" => upstream.restart().await,
        "hang" => elsewhere.inject(Method::DoGet, 1, Fault::Hang),
        other => panic!("nothing is done for {other}"),
    };
    let seen = chromium.steps(&url, &["works"], act).await;

    let states = &seen["states"];
    assert_eq!(states["unready"], "Not ready: 1 of 6", "{states}");
    assert_eq!(states["figures"], json!(["3"]), "{states}");
    for reason in ["late", "failed"] {
        assert!(states[reason].as_str().is_some_and(|text| text.contains("connection refused")), "{states}");
    }
    rows_are_exact(&seen["rows"]);
    assert_eq!(
        seen["places"],
        json!({
            "SELECT count(*) AS n FROM items": ["local", "local"],
            "SELECT count(*) AS n FROM orders": ["pushed", "pushed to its upstream"],
            "SELECT count(*) AS n FROM orders JOIN items ON o_orderkey = id": ["federated", "federated"],
            "again": "from the cache",
            "failed": ["failed", true],
        })
    );
    assert_eq!(seen["refreshed"], "refreshed in TIME: 60,175 rows");
    ends_are_told(&seen["cancelled"]);
    drawn_and_reached(&seen);
    assert_eq!(seen["origins"], json!([url]), "nothing was asked of anybody else");
    assert_eq!(seen["complaints"], json!([]));
}

fn rows_are_exact(rows: &Value) {
    let markup = "<img src=x onerror=\"window.hit = 1\">";
    let expected = json!([["3", "a"], ["9007199254740993", "NULL"], ["9223372036854775807", markup]]);
    assert_eq!(rows["shown"], expected);
    assert_eq!(rows["nulls"], json!(["NULL"]));
    assert_eq!(rows["aligned"], json!(["right", "left"]));
    assert_eq!(rows["types"], json!([["id", "int64"], ["name", "utf8"]]));
    assert_eq!(rows["empty"], json!([[], 2]), "columns are named where no row is");
    assert!(rows["failure"].as_str().is_some_and(|text| text.contains("nowhere")), "{rows}");
    assert_eq!(rows["marked"], json!([1, null]), "the page's own icon is its only image");
    let exact = &rows["exact"];
    let parsed = r#"[true,[["12345678901234567890.10","\"\\\"}{é\""],["null","{\"c\":[1,\"]\"]}"]]]"#;
    assert_eq!(exact["ways"], json!([parsed]), "however the text is cut");
    assert_eq!(exact["cut"], json!(false));
    assert_eq!(exact["equal"], json!([["a", "1"], ["a", "2"]]));
    assert_eq!(exact["text"], "é");
}

fn ends_are_told(cancelled: &Value) {
    assert_eq!((&cancelled["running"], &cancelled["count"]), (&json!(1), &json!("1 running")), "{cancelled}");
    assert_eq!(cancelled["by_button"][1], "cancelled");
    assert!(cancelled["by_button"][0].as_str().is_some_and(|text| text.contains("cancelled")), "{cancelled}");
    let left = "its client went away before the end";
    assert_eq!(cancelled["by_escape"], json!(["Cancelled after TIME", left]));
}

fn drawn_and_reached(seen: &Value) {
    let note = "The first 1,000 of more than 10,000 rows: reading stopped there. Add a LIMIT, or ask /v1/sql for all of them.";
    assert_eq!(seen["many"], json!({"rows": 1_000, "note": note, "quick": true}));
    let chart = &seen["chart"];
    assert_eq!(
        (&chart["bars"], &chart["both"], &chart["lines"]),
        (&json!(5), &json!(10), &json!(1)),
        "{chart}"
    );
    assert_eq!(chart["name"], "orders by priority");
    assert!(chart["words"].as_str().is_some_and(|text| text.starts_with("Bars, 5 points: orders from ")));
    assert_eq!(chart["hidden"], json!(true));
    let keyboard = json!({
        "first": "Skip to the SQL editor", "after": "run", "missed": [], "stuck": [], "outlined": "solid",
    });
    assert_eq!(seen["keyboard"], keyboard);
    let recalled = &seen["recalled"];
    assert_eq!(recalled["listed"], "SELECT name FROM items WHERE id = 3");
    assert_eq!(recalled["inserted"], "SELECT * FROM items");
    assert_eq!(recalled["shown"], "SELECT * FROM items LIMIT 100");
    assert_eq!((&recalled["history"], &recalled["kept"]), (&json!(true), &json!(0)), "in this tab only");
    assert_eq!(seen["away"], json!({"words": "Not reachable since TIME", "kept": ["3"]}));
    assert_eq!(seen["resting"], json!({"asked": 0}));
    let schemes = json!([{"dark": false, "readable": true}, {"dark": true, "readable": true}]);
    assert_eq!(seen["schemes"], schemes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_shows_its_users_key() {
    let Some(chromium) = Chromium::find() else { return };
    let upstream = Upstream::builder().table("items", items()).start().await;
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], KEYS));
    let sidecar = sidecar.secret("KEY", "key-of-a-reader").start().await;
    sidecar.wait_ready().await;
    let url = format!("http://{}", sidecar.http_addr());
    let shut = sidecar.http("/").await;
    assert_eq!((shut.status, shut.body.as_str()), (401, "Invalid credentials\n"));
    let seen = chromium.steps(&url, &["locked"], no_wish).await;
    assert_eq!(seen["rows"], json!([["a"]]));
    assert_eq!(seen["origins"], json!([url]));
    assert_eq!(seen["complaints"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures() {
    let Some(chromium) = Chromium::find() else { return };
    let upstream = Upstream::builder().tables(tpch::tables()).start().await;
    let remote = ["orders", "nation", "part", "supplier"].map(|name| Dataset::of(name, &upstream));
    let kept = ["lineitem", "customer"].map(|name| Dataset::of(name, &upstream).accelerated(""));
    let datasets = [&kept[..], &remote[..]].concat();
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, REVENUE)).start().await;
    sidecar.wait_ready().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", sidecar.http_addr());
    let steps = ["pictures", &folder.path().to_string_lossy()];
    let seen = chromium.steps(&url, &steps, no_wish).await;
    assert_eq!(seen["wide"], json!({"console": 1280, "dark": 1280, "phone": 390}), "nothing hangs over");
    assert_eq!(seen["complaints"], json!([]));
    let picture = folder.path().join("console.png");
    assert!(std::fs::metadata(&picture).unwrap().len() < PICTURE_BYTES_MAX);
    if std::env::var_os("SIDEWING_SCREENSHOT").is_some() {
        keep(folder.path());
    }
}

/// The one of the README; the others lie beside the build for those who work on the page.
fn keep(folder: &Path) {
    let docs = repository_file("docs");
    std::fs::create_dir_all(&docs).unwrap();
    std::fs::copy(folder.join("console.png"), docs.join("console.png")).unwrap();
    for other in ["dark.png", "phone.png"] {
        std::fs::copy(folder.join(other), repository_file("target").join(other)).unwrap();
    }
}
