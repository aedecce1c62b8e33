//! schemathesis from PyPI: what `/openapi.json` says, asked of the real sidecar with an accelerated dataset, a view and a key.
//!
//! `SIDEWING_LONG=1` asks twenty times as much.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::{Sidecar, repository_file};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const KEY: &str = "schemathesis-writes-and-reads";
/// Longer than any run takes on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(300);
const RUN_LONG_MAX: Duration = Duration::from_secs(3_600);

/// CPython 3.11 counts its recursion wrong now and then where threads parse sources, as hypothesis' do.
const CPYTHON_BUG: &str = "AST constructor recursion depth mismatch";

const REST: &str = "views:
  - name: small
    sql: SELECT id FROM items WHERE id < 2
runtime:
  auth:
    api-key:
      keys: ['${env:KEY}:rw']
";

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_does_what_its_document_says() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let datasets = [
        Dataset::of("items", &upstream).accelerated("refresh_mode: full"),
        Dataset::of("remote", &upstream).table("items"),
    ];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, REST)).secret("KEY", KEY).start().await;
    sidecar.wait_ready().await;
    let (examples, limit) = match std::env::var_os("SIDEWING_LONG") {
        Some(_) => ("500", RUN_LONG_MAX),
        None => ("25", RUN_MAX),
    };
    let asked = || async {
        let report = tokio::time::timeout(limit, run(&python, &sidecar, examples)).await;
        report.expect("schemathesis ends")
    };
    let mut report = asked().await;
    if report.contains(CPYTHON_BUG) {
        report = asked().await;
    }
    assert!(report.contains("No issues found"), "{report}\n{}", sidecar.stderr());
    assert_eq!(sidecar.http("/health").await.status, 200, "it lives on");
    println!("{report}");
}

/// The report, whatever it says.
async fn run(python: &Path, sidecar: &Sidecar, examples: &str) -> String {
    let script = repository_file("tests/clients/schemathesis/run.py");
    let url = format!("http://{}", sidecar.http_addr());
    let mut command = tokio::process::Command::new(python);
    command.arg(script).args([&url, KEY, examples]).current_dir(sidecar.dir()).kill_on_drop(true);
    let output = command.output().await.expect("the interpreter starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{stdout}{stderr}")
}
