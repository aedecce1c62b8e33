//! What foreign clients need: an interpreter with their packages, made on first use, or a loud word about its absence.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::support::sidecar::repository_file;

/// Longer than any script takes on a busy machine.
const SCRIPT_MAX: Duration = Duration::from_secs(120);

/// A Python interpreter with the packages of `tests/clients/requirements.txt`, or nothing where they cannot be had and
/// need not be.
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    required("python", PYTHON.get_or_init(|| python_with_packages("clients")).clone())
}

/// A program of the packages of `tests/servers/requirements.txt`; they are kept apart, because they ask for other versions
/// of what clients need as well.
#[cfg(feature = "aws")]
pub fn python_server(program: &str) -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = required(program, PYTHON.get_or_init(|| python_with_packages("servers")).clone())?;
    Some(python.with_file_name(program))
}

/// Node.js and a folder with a script of `tests/clients` and the packages of its `package.json`.
pub fn node(client: &str) -> Option<(PathBuf, PathBuf)> {
    let folder = repository_file("target/clients-node").join(client);
    let made = node_with_packages(&repository_file("tests/clients").join(client), &folder);
    required(client, made.map(|()| (PathBuf::from("node"), folder)))
}

/// A program of `tests/clients` that is a cargo package of its own: its dependencies are not ours.
pub fn cargo_program(client: &str) -> Option<PathBuf> {
    let manifest = repository_file("tests/clients").join(client).join("Cargo.toml");
    let target = repository_file("target/clients-rs");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(&manifest);
    let built = run(build.arg("--target-dir").arg(&target));
    required(client, built.map(|_| target.join("debug").join(client)))
}

/// What a program prints, as JSON; it must succeed.
pub async fn program(program: &Path, args: &[&str]) -> Value {
    let stdout = finished(tokio::process::Command::new(program).args(args)).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{program:?}: {error}\n{stdout}"))
}

/// What a script of `tests/clients` prints, as JSON; it must succeed.
pub async fn script(interpreter: &Path, script: &str, args: &[&str]) -> Value {
    let stdout = output(interpreter, script, args).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{script}: {error}\n{stdout}"))
}

/// The same as text.
pub async fn output(interpreter: &Path, script: &str, args: &[&str]) -> String {
    let path = repository_file("tests/clients").join(script);
    finished(tokio::process::Command::new(interpreter).arg(path).args(args)).await
}

/// What a command prints until it ends; it must succeed.
async fn finished(command: &mut tokio::process::Command) -> String {
    let output = tokio::time::timeout(SCRIPT_MAX, command.kill_on_drop(true).output()).await;
    let output = output.expect("the client ends").expect("the client starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{stdout}{stderr}");
    stdout.into_owned()
}

/// The client, or a loud word about its absence; a failure where absence is not allowed.
pub fn required<T>(client: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            let needed = std::env::var_os("SIDEWING_REQUIRE_CLIENTS").is_some();
            assert!(!needed, "{client} cannot be had: {why}");
            eprintln!("\n*** SKIPPED: {client} cannot be had: {why} ***\n");
            None
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// It does not start, or fails; with what it said.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The interpreter of `target/{folder}-venv`, with the packages of `tests/{folder}/requirements.txt`.
fn python_with_packages(folder: &str) -> Result<PathBuf, String> {
    let venv = repository_file("target").join(format!("{folder}-venv"));
    let (python, installed) = (venv.join("bin/python"), venv.join("requirements.txt"));
    let requirements = repository_file("tests").join(folder).join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    if std::fs::read_to_string(&installed).is_ok_and(|has| has == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(install).arg(&requirements))?;
    std::fs::write(&installed, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Copies the scripts beside their packages, which Node.js looks for from there.
fn node_with_packages(sources: &Path, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let wanted = std::fs::read_to_string(sources.join("package.json")).map_err(failed)?;
    std::fs::create_dir_all(folder).map_err(failed)?;
    for entry in std::fs::read_dir(sources).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().extension().is_some_and(|extension| extension == "js") {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).map_err(failed)?;
        }
    }
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|has| has == wanted) {
        return Ok(());
    }
    std::fs::write(folder.join("package.json"), &wanted).map_err(failed)?;
    let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    run(Command::new("npm").args(install).current_dir(folder))?;
    std::fs::write(installed, wanted).map_err(failed)
}
