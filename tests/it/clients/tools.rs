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
    required("python", PYTHON.get_or_init(python_with_packages).clone())
}

/// What a script of `tests/clients` prints, as JSON; it must succeed.
pub async fn script(interpreter: &Path, script: &str, args: &[&str]) -> Value {
    let stdout = output(interpreter, script, args).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{script}: {error}\n{stdout}"))
}

/// The same as text.
pub async fn output(interpreter: &Path, script: &str, args: &[&str]) -> String {
    let path = repository_file("tests/clients").join(script);
    let output = tokio::process::Command::new(interpreter).arg(path).args(args).kill_on_drop(true).output();
    let output = tokio::time::timeout(SCRIPT_MAX, output).await.expect("the script ends");
    let output = output.expect("the interpreter starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} {args:?}:\n{stdout}{stderr}");
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

fn python_with_packages() -> Result<PathBuf, String> {
    let venv = repository_file("target/clients-venv");
    let (python, installed) = (venv.join("bin/python"), venv.join("requirements.txt"));
    let requirements = repository_file("tests/clients/requirements.txt");
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
