//! DuckDB as a peer: a Python process that holds the same rows and times itself.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;
use crate::install::Tool;
use crate::peers::cores;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/goals/duck.py");

/// A running one; it ends with its owner.
pub struct Duck {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Duck {
    /// Returns when it has taken `tables` from the upstream.
    pub async fn start(tool: &Tool, home: &Path, upstream: &str, tables: &[&str]) -> Result<Self> {
        let mut child = Command::new(&tool.program)
            .arg(SCRIPT)
            .arg(upstream)
            .arg(cores().to_string())
            .args(tables)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let mut duck = Self { child, input, output: BufReader::new(output).lines() };
        match duck.line().await?.as_str() {
            "ready" => Ok(duck),
            other => Err(format!("it says {other}").into()),
        }
    }

    /// Seconds that a statement took, and the rows of its answer.
    pub async fn run(&mut self, sql: &str) -> Result<(f64, usize)> {
        self.input.write_all((serde_json::to_string(sql)? + "\n").as_bytes()).await?;
        let line = self.line().await?;
        let (seconds, rows) = line.split_once(' ').ok_or_else(|| format!("it says {line}"))?;
        Ok((seconds.parse()?, rows.parse()?))
    }

    async fn line(&mut self) -> Result<String> {
        self.output.next_line().await?.ok_or_else(|| "DuckDB ended".into())
    }

    pub async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
