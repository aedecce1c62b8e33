//! The command line as a person meets it: the demo, ports that are taken, signals, and its help.
//!
//! `INSTA_UPDATE=always` rewrites the snapshots of the help texts.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::pki::Pki;
use crate::support::sidecar::{Sidecar, repository_file};

const EMPTY: &str = "version: v1\nkind: Spicepod\nname: empty\n";
const WAIT_MAX: Duration = Duration::from_secs(60);

fn sidewing() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sidewing"))
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help() {
    for command in ["run", "check", "status", "refresh", "health", "sql", "mcp", "demo", "schema"] {
        let (code, stdout, _) = run(sidewing().args([command, "--help"]));
        assert_eq!(code, Some(0), "{command}");
        insta::assert_snapshot!(format!("help_{command}"), stdout);
    }
}

#[test]
fn the_demo_answers_with_and_without_its_upstream_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let demo = &mut sidewing();
    demo.args(["demo", "--once", "--scale", "0.001"]).env("TMPDIR", dir.path()).stdin(Stdio::null());
    let (code, stdout, stderr) = run(demo);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}{stderr}");
    insta::assert_snapshot!(without_run(&stdout, dir.path()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the demo left files");
}

/// What the demo says, without what differs from run to run: times, ports, its directory, and which ports are taken.
fn without_run(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "DIR");
    let lines = text.lines().filter(|line| !line.ends_with("is taken, using a free port instead."));
    let lines: Vec<String> = lines.map(masked).collect();
    lines.join("\n")
}

/// Times, ports and the number of a temporary directory become `N`; addresses that a name stands for are left out.
fn masked(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let len = rest[at..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len() - at);
        let (before, number, after) = (&rest[..at], &rest[at..at + len], &rest[at + len..]);
        let units = [" ms", " s"].into_iter().find_map(|unit| after.strip_prefix(unit));
        let untimed = units.filter(|after| !after.starts_with(|next: char| next.is_alphanumeric()));
        shown.push_str(before);
        let is_port = ["localhost:", "127.0.0.1:"].iter().any(|host| shown.ends_with(host));
        shown.push_str(if untimed.is_some() || is_port { "N" } else { number });
        rest = untimed.unwrap_or(after);
    }
    shown.push_str(rest);
    if let Some((before, _)) = shown.split_once("held here: ") {
        shown = format!("{before}held here: ...");
    }
    if let Some((before, _)) = shown.split_once(" over TCP: ") {
        shown = format!("{before} over TCP: ...");
    }
    match shown.split_once("sidewing-demo-") {
        Some((before, after)) => {
            format!("{before}sidewing-demo-N{}", after.trim_start_matches(|c: char| c != '/'))
        }
        None => shown,
    }
}

/// The demo's upstream, by hand: it writes its files, serves, and ends with its standard input.
#[test]
fn the_demo_upstream_ends_with_its_parent_and_keeps_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let first = upstream_until_ready(dir.path());
    let second = upstream_until_ready(dir.path());
    assert_eq!(first, second, "a restart makes a new API key");
    let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn upstream_until_ready(dir: &Path) -> String {
    let mut child = sidewing()
        .args(["demo-upstream", "--while-stdin-open", "--scale", "0.001", "--dir"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains("https://localhost:"), "{line}");
    let key = std::fs::read_to_string(dir.join("core.env")).unwrap();
    drop(child.stdin.take());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > WAIT_MAX {
            child.kill().unwrap();
            panic!("the upstream outlives its parent");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    key
}

fn empty_pod(dir: &Path) -> PathBuf {
    let path = dir.join("spicepod.yaml");
    std::fs::write(&path, EMPTY).unwrap();
    path
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(sidewing().arg("run").arg(empty_pod(dir.path())).args(["--http", &address]));
    assert_eq!(code, Some(1), "{stderr}");
    for word in [address.as_str(), "for http", "--http ADDR"] {
        assert!(stderr.contains(word), "{word} is not in {stderr}");
    }
}

#[test]
fn addresses_are_read_as_in_a_spicepod() {
    let dir = tempfile::tempdir().unwrap();
    for front in ["--http", "--flight", "--metrics"] {
        let (code, _, stderr) =
            run(sidewing().arg("run").arg(empty_pod(dir.path())).args([front, "example.com:80"]));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("expected one such as `127.0.0.1:8090`"), "{stderr}");
    }
    let (code, _, stderr) = run(sidewing().args(["demo", "--scale", "7"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("above 0 and up to 1"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_well() {
    let sidecar = Sidecar::builder().spicepod(EMPTY).start().await;
    sidecar.wait_ready().await;
    assert_eq!(sidecar.sql("select 1 as one").await[0]["one"], 1);
    let metrics = sidecar.metrics().await;
    assert!(metrics.contains("sidewing_build_info{version="), "{metrics}");
    let finished = sidecar.terminate().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!finished.stderr.contains("warning:"), "{}", finished.stderr);
}

/// The examples as a person tries them first; what they name elsewhere (certificates, volumes, keys) is made up.
#[tokio::test]
async fn every_example_passes_check() {
    let pki = Pki::new();
    let mut checked = 0;
    for entry in std::fs::read_dir(repository_file("config")).unwrap() {
        let Ok(pod) = std::fs::read_to_string(entry.unwrap().path().join("spicepod.yaml")) else { continue };
        // Its stores are servers that nobody has all of; `secrets::` asks each by itself.
        if pod.contains("name: secret-stores") {
            continue;
        }
        let pod = pod.replace("/etc/sidewing/cluster-ca.pem", &pki.ca_file().to_string_lossy());
        let pod = pod.replace("/var/lib/sidewing", "data");
        let mut builder = Sidecar::builder().spicepod(&pod).args(["--offline"]);
        for key in ["CORE_API_KEY", "SIDECAR_API_KEY", "WAREHOUSE_PASSWORD"] {
            builder = builder.env(key, "invented");
        }
        let finished = builder.finish("check").await;
        assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
        checked += 1;
    }
    assert_eq!(checked, 4);
}
