//! A real collector, rotel from PyPI: spans and metrics arrive over gRPC and over HTTP, with the client's trace id.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{TRACE, items, sql_with, traceparent};
use crate::clients::tools;
use crate::support::port::ClosedPort;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;
use sidewing::task::Scope;

/// A collector that writes what it takes.
struct Rotel {
    _child: Child,
    said: Arc<Mutex<String>>,
    grpc: ClosedPort,
    http: ClosedPort,
    _readers: Scope,
}

impl Rotel {
    async fn start(program: &Path, dir: &Path) -> Self {
        // Held, so that nobody else gets them; who knows their numbers may listen.
        let (grpc, http) = (ClosedPort::any(), ClosedPort::any());
        let mut child = Command::new(program)
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", grpc.number())])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", http.number())])
            .arg("--pid-file")
            .arg(dir.join("rotel.pid"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("rotel starts");
        let (said, readers) = (Arc::<Mutex<String>>::default(), Scope::new());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let keep = |said: &Arc<Mutex<String>>, line: String| said.lock().unwrap().push_str(&(line + "\n"));
        let kept = Arc::clone(&said);
        readers.spawn("rotel stdout", async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&kept, line);
            }
        });
        let kept = Arc::clone(&said);
        readers.spawn("rotel stderr", async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&kept, line);
            }
        });
        let rotel = Self { _child: child, said, grpc, http, _readers: readers };
        while tokio::net::TcpStream::connect(("127.0.0.1", rotel.http.number())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rotel
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

fn program() -> Option<PathBuf> {
    let python = tools::python()?;
    let find = "import rotel, pathlib; print(pathlib.Path(rotel.__file__).parent / 'rotel-agent')";
    let found = tools::run(std::process::Command::new(python).args(["-c", find]));
    tools::required("rotel", found.map(|path| PathBuf::from(path.trim())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_takes_spans_and_metrics() {
    let Some(program) = program() else { return };
    let upstream = Upstream::builder().table("items", items()).start().await;
    for protocol in ["grpc", "http"] {
        let dir = tempfile::tempdir().unwrap();
        let rotel = Rotel::start(&program, dir.path()).await;
        let port = if protocol == "grpc" { rotel.grpc.number() } else { rotel.http.number() };
        let telemetry = format!(
            "runtime:\n  telemetry:\n    properties: {{deployment: test}}\n    otel_exporter:\n      \
             endpoint: http://127.0.0.1:{port}\n      protocol: {protocol}\n      push_interval: 1s\n      \
             headers: {{x-collector-key: '${{secrets:COLLECTOR_KEY}}'}}\n"
        );
        let yaml = spicepod(&[Dataset::of("items", &upstream)], &telemetry);
        let sidecar =
            Sidecar::builder().spicepod(&yaml).secret("COLLECTOR_KEY", "a-collectors-key").start().await;
        sidecar.wait_ready().await;
        sql_with(&sidecar, "SELECT * FROM items", &[("traceparent", &traceparent())]).await;
        let words = [TRACE, "sql_query", "flight_request", "query_duration_ms", "deployment"];
        sidecar
            .wait_until(&format!("{protocol}: the collector has it all"), async || {
                let said = rotel.said();
                words.iter().all(|word| said.contains(word))
            })
            .await;
        let finished = sidecar.terminate().await;
        assert_eq!(finished.code, Some(0));
        assert!(!finished.stderr.contains("not exported"), "{}", finished.stderr);
    }
}

/// Queries are answered as fast as ever, and what is dropped is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_nobody_up() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let yaml = spicepod(&[Dataset::of("items", &upstream)], "");
    let closed = ClosedPort::any();
    let endpoint = format!("http://127.0.0.1:{}", closed.number());
    let sidecar =
        Sidecar::builder().spicepod(&yaml).env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).start().await;
    sidecar.wait_ready().await;
    for _ in 0..20 {
        sidecar.sql("SELECT count(*) FROM items").await;
    }
    sidecar
        .wait_until("drops are counted", async || {
            let text = sidecar.metrics().await;
            !text.contains("otel_export_dropped{signal=\"traces\"} 0\n")
        })
        .await;
    assert!(sidecar.stderr().contains("was not reached"), "{}", sidecar.stderr());
    assert_eq!(sidecar.terminate().await.code, Some(0));
}
