//! The real binary as a child process: a spicepod enters, addresses and answers leave.
//!
//! The child sees nothing of the test's environment but what the builder gives it. It is killed by its
//! own process id when the [`Sidecar`] is dropped, and its output is then searched for secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sidewing::task::Scope;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::client::Client;
use super::moved;

/// How long a start may take on a busy machine before the test gives up.
const START_MAX: Duration = Duration::from_secs(30);
/// How long datasets may take to become ready, or any other awaited state.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often an awaited state is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// How long the harness' own client keeps an idle connection.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(5);

/// A free port of this machine.
const ANY: &str = "127.0.0.1:0";

/// A running sidecar.
pub struct Sidecar {
    child: Child,
    dir: TempDir,
    http: String,
    flight: String,
    metrics: String,
    output: Output,
    secrets: Vec<String>,
    client: reqwest::Client,
    readers: Scope,
}

/// What a sidecar will be given.
pub struct Builder {
    dir: TempDir,
    env: BTreeMap<String, String>,
    secrets: Vec<String>,
    args: Vec<String>,
    stdin: Option<String>,
    limits: Option<String>,
    http: String,
    flight: String,
}

/// What a finished process left.
#[derive(Debug)]
pub struct Finished {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

#[derive(Clone, Default)]
struct Output {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Builder {
    /// Writes the spicepod that the sidecar is started on.
    pub fn spicepod(self, yaml: &str) -> Self {
        self.file("spicepod.yaml", yaml)
    }

    /// Writes a file into the sidecar's working directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(name), text).expect("a file in the sidecar's directory");
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets an environment variable whose value must never be seen in any output.
    pub fn secret(mut self, key: &str, value: &str) -> Self {
        self.secrets.push(value.to_owned());
        self.env(key, value)
    }

    /// Further arguments.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(str::to_owned));
        self
    }

    /// What the command reads; nothing by default.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// Shell commands that limit the process before it begins: `ulimit -f 100`.
    pub fn limits(mut self, script: &str) -> Self {
        self.limits = Some(script.to_owned());
        self
    }

    /// Flight on this port of 127.0.0.1, where others will look for it after a restart.
    pub fn flight_port(mut self, port: u16) -> Self {
        self.flight = format!("127.0.0.1:{port}");
        self
    }

    /// HTTP and Flight at these addresses, such as `unix:/path`.
    pub fn listen(mut self, http: &str, flight: &str) -> Self {
        self.http = http.to_owned();
        self.flight = flight.to_owned();
        self
    }

    /// The sidecar's working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `sidewing run` on free ports; returns when the addresses are printed.
    pub async fn start(self) -> Sidecar {
        let ports = ["--http", &self.http, "--flight", &self.flight, "--metrics", ANY];
        let mut command = self.command("run");
        let mut child = command.args(ports).args(&self.args).spawn().expect("the sidewing binary starts");
        let output = Output::default();
        let readers = Scope::new();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        readers.spawn("sidecar stdout", collect(stdout.expect("piped"), Arc::clone(&output.stdout)));
        readers.spawn("sidecar stderr", collect(stderr.expect("piped"), Arc::clone(&output.stderr)));
        let addresses = wait_for_addresses(&mut child, &output).await;
        let address = |name: &str| addresses.get(name).cloned().expect("all three addresses");
        Sidecar {
            child,
            dir: self.dir,
            http: address("http"),
            flight: address("flight"),
            metrics: address("metrics"),
            output,
            secrets: self.secrets,
            client: client(),
            readers,
        }
    }

    /// Runs a subcommand on the spicepod to its end, e.g. `run` on a bad one, or `check`.
    pub async fn finish(self, subcommand: &str) -> Finished {
        let mut command = self.command(subcommand);
        let output = command.args(&self.args).output();
        let output = tokio::time::timeout(WAIT_MAX, output).await.expect("the command ends by itself");
        let output = output.expect("the sidewing binary starts");
        let finished = Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_no_secret(&self.secrets, &finished.stdout, &finished.stderr);
        finished
    }

    fn command(&self, subcommand: &str) -> Command {
        let stdin = match &self.stdin {
            None => Stdio::null(),
            Some(text) => {
                let path = self.dir.path().join("stdin");
                std::fs::write(&path, text).expect("a file in the sidecar's directory");
                std::fs::File::open(path).expect("the file just written").into()
            }
        };
        let binary = env!("CARGO_BIN_EXE_sidewing");
        let mut command = match &self.limits {
            None => Command::new(binary),
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{script}\nexec \"$0\" \"$@\"")).arg(binary);
                shell
            }
        };
        command
            .arg(subcommand)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.env)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Sidecar {
    pub fn builder() -> Builder {
        let dir = tempfile::tempdir().expect("a temporary directory for the sidecar");
        let (stdin, limits) = (None, None);
        Builder {
            dir,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            args: Vec::new(),
            stdin,
            limits,
            http: ANY.to_owned(),
            flight: ANY.to_owned(),
        }
    }

    /// `127.0.0.1:PORT` of the HTTP front end, or the path of its socket.
    pub fn http_addr(&self) -> &str {
        &self.http
    }

    /// `127.0.0.1:PORT` of the Flight front end, or the path of its socket.
    pub fn flight_addr(&self) -> &str {
        &self.flight
    }

    /// `127.0.0.1:PORT` of the metrics.
    pub fn metrics_addr(&self) -> &str {
        &self.metrics
    }

    /// The sidecar's working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a sidecar that runs")
    }

    /// The memory that the process holds now, in bytes.
    pub fn memory(&self) -> usize {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a Linux process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.output.stdout()
    }

    /// What it logged so far.
    pub fn stderr(&self) -> String {
        self.output.stderr()
    }

    /// GET of a path.
    pub async fn http(&self, path: &str) -> HttpAnswer {
        let request = self.client.get(format!("http://{}{path}", self.http));
        HttpAnswer::of(request).await.unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// The metrics, as Prometheus scrapes them.
    pub async fn metrics(&self) -> String {
        let request = self.client.get(format!("http://{}/metrics", self.metrics));
        let page = HttpAnswer::of(request).await.unwrap_or_else(|e| panic!("the metrics: {e}"));
        assert_eq!(page.status, 200, "{}", page.body);
        moved::note(&page.body);
        page.body
    }

    /// POST of a body to a path.
    pub async fn post(&self, path: &str, body: &str) -> HttpAnswer {
        let request = self.client.post(format!("http://{}{path}", self.http)).body(body.to_owned());
        HttpAnswer::of(request).await.unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// PATCH of a body to a path.
    pub async fn patch(&self, path: &str, body: &str) -> HttpAnswer {
        let request = self.client.patch(format!("http://{}{path}", self.http)).body(body.to_owned());
        HttpAnswer::of(request).await.unwrap_or_else(|e| panic!("PATCH {path}: {e}"))
    }

    /// POST /v1/sql; the answer with its status, whatever it is.
    ///
    /// # Errors
    /// A connection that ended before the answer did.
    pub async fn try_sql_as(&self, sql: &str, accept: &str) -> Result<HttpAnswer, reqwest::Error> {
        let request = self.client.post(format!("http://{}/v1/sql", self.http));
        HttpAnswer::of(request.header("accept", accept).body(sql.to_owned())).await
    }

    /// POST /v1/sql that must be answered, be it with an error.
    pub async fn sql_as(&self, sql: &str, accept: &str) -> HttpAnswer {
        self.try_sql_as(sql, accept).await.unwrap_or_else(|e| panic!("{sql}\n{e:?}\n{}", self.stderr()))
    }

    /// POST /v1/sql that must succeed, as JSON rows.
    pub async fn sql(&self, sql: &str) -> Value {
        let answer = self.sql_as(sql, "application/json").await;
        assert_eq!(answer.status, 200, "{sql}\n{}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{sql}\n{e}\n{}", answer.body))
    }

    /// A client of the Flight front end.
    pub async fn flight_client(&self) -> Client {
        Client::connect(&self.flight).await
    }

    /// Returns when `/v1/ready` says so.
    pub async fn wait_ready(&self) {
        self.wait_until("/v1/ready answers 200", async || self.http("/v1/ready").await.status == 200).await;
    }

    /// Returns when `done` is true.
    pub async fn wait_until(&self, what: &str, done: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !done().await {
            let ready = self.http("/v1/ready").await;
            assert!(
                started.elapsed() < WAIT_MAX,
                "waited for: {what}\nready: {} {}\n{}",
                ready.status,
                ready.body,
                self.stderr()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// SIGTERM, then the end.
    pub async fn terminate(self) -> Finished {
        self.signal();
        self.end().await
    }

    /// SIGTERM.
    pub fn signal(&self) {
        moved::note_last(&self.metrics);
        let pid = self.child.id().expect("a sidecar that still runs");
        let killed = std::process::Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status();
        assert!(killed.expect("a shell").success(), "the sidecar ended before SIGTERM:\n{}", self.stderr());
    }

    /// The end, after a signal.
    pub async fn end(mut self) -> Finished {
        let status: ExitStatus = tokio::time::timeout(WAIT_MAX, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the sidecar does not end after SIGTERM:\n{}", self.stderr()))
            .expect("a child process");
        // The readers end with the pipes.
        let _ = self.readers.shutdown(Duration::from_secs(1)).await;
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// SIGKILL, and gone.
    pub async fn kill(mut self) {
        moved::note_last(&self.metrics);
        self.child.kill().await.expect("a child process");
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            moved::note_last(&self.metrics);
        }
        // Fails only if it has ended already.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!("--- sidecar stdout\n{}--- sidecar stderr\n{}---", self.stdout(), self.stderr());
        } else {
            assert_no_secret(&self.secrets, &self.stdout(), &self.stderr());
        }
    }
}

impl Output {
    fn stdout(&self) -> String {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HttpAnswer {
    pub async fn of(request: reqwest::RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let status = response.status().as_u16();
        Ok(Self { status, content_type, body: response.text().await? })
    }
}

/// A client that lets go of idle connections before the sidecar does, after ten seconds: a request that crosses their end
/// on its way would be lost, and no client may send it again by itself.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(CLIENT_IDLE_MAX);
    client.build().expect("an HTTP client")
}

/// The path of a file of this repository.
pub fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

async fn collect(pipe: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&line);
        text.push('\n');
    }
}

async fn wait_for_addresses(child: &mut Child, output: &Output) -> BTreeMap<String, String> {
    let started = Instant::now();
    loop {
        let found = addresses(&output.stdout());
        if found.len() == 3 {
            return found;
        }
        let ended = child.try_wait().expect("a child process");
        let (stdout, stderr) = (output.stdout(), output.stderr());
        assert!(ended.is_none(), "the sidecar ended at once ({ended:?}):\n{stdout}{stderr}");
        assert!(started.elapsed() < START_MAX, "the sidecar printed no addresses:\n{stdout}{stderr}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The start screen's lines of a word and an address.
fn addresses(screen: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, rest) = line.trim_start().split_once(char::is_whitespace)?;
        let url = rest.split_whitespace().next()?;
        let prefixes = ["http://", "https://", "unix:"];
        let address = prefixes.iter().find_map(|prefix| url.strip_prefix(prefix))?;
        let known = matches!(name, "http" | "flight" | "metrics");
        known.then(|| (name.to_owned(), address.to_owned()))
    };
    screen.lines().filter_map(line).collect()
}

fn assert_no_secret(secrets: &[String], stdout: &str, stderr: &str) {
    for secret in secrets {
        // The secret itself stays out of this message too: a CI log is an output.
        assert!(!stdout.contains(secret.as_str()), "a secret appears on stdout");
        assert!(!stderr.contains(secret.as_str()), "a secret appears on stderr");
    }
}

#[test]
fn the_start_screen_is_read() {
    let screen = "sidewing 0.1\n  http    http://127.0.0.1:8090   (SQL, health)\n  flight  http://127.0.0.1:50051\nmetrics https://127.0.0.1:9090\nother http://x:1\n";
    let expected = [("flight", "127.0.0.1:50051"), ("http", "127.0.0.1:8090"), ("metrics", "127.0.0.1:9090")];
    let expected = expected.map(|(name, address)| (name.to_owned(), address.to_owned()));
    assert_eq!(addresses(screen), BTreeMap::from(expected));
}
