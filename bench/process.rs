//! A child process that says on its standard output where it listens, and ends with its owner.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sidewing::task::Scope;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Result;

const STARTED_WITHIN: Duration = Duration::from_secs(60);
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// A running child and the addresses that it printed, as `flight  http://127.0.0.1:50051`.
pub struct Process {
    child: Child,
    addresses: BTreeMap<String, String>,
    scope: Scope,
}

impl Process {
    /// Starts `program` and reads its output until it has named the address of `last` and those above it.
    pub async fn start(program: &Path, arguments: &[&str], directory: &Path, last: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("a child without standard output")?;
        let mut lines = BufReader::new(output).lines();
        let addresses = tokio::time::timeout(STARTED_WITHIN, addresses(&mut lines, last)).await??;
        // Whatever else it prints is taken off the pipe, which would otherwise fill up.
        let scope = Scope::new();
        scope.spawn("output", async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, addresses, scope })
    }

    /// `host:port` of one of its services.
    pub fn address(&self, service: &str) -> Result<&str> {
        let known = self.addresses.get(service).map(String::as_str);
        known.ok_or_else(|| format!("no {service} address on the start screen").into())
    }

    /// As the kernel counts it.
    pub fn id(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "it has ended".into())
    }

    /// Ends it and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.id()?;
        end(&mut self.child).await.map_err(|error| format!("process {id} cannot be ended: {error}"))?;
        self.scope.cancel();
        Ok(())
    }
}

/// Asks `child` to end, and waits: one that counts what it does (`docker/dist`) writes its counts as it goes.
pub async fn end(child: &mut Child) -> Result<()> {
    ask_to_end(child);
    match tokio::time::timeout(ENDED_WITHIN, child.wait()).await {
        Ok(ended) => ended.map(drop).map_err(Into::into),
        Err(_) => Ok(child.kill().await?),
    }
}

pub fn ask_to_end(child: &Child) {
    if let Some(id) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // It may have ended already.
        let _ = kill_process(id, Signal::TERM);
    }
}

async fn addresses(
    lines: &mut Lines<BufReader<ChildStdout>>,
    last: &str,
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((service, address)) = address(&line) {
            found.insert(service.to_owned(), address.to_owned());
        }
        if found.contains_key(last) {
            return Ok(found);
        }
    }
    Err("it ended before it said where it listens".into())
}

/// `flight  http://127.0.0.1:50051 …` becomes the name and `127.0.0.1:50051`.
fn address(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let service = words.next().filter(|word| matches!(*word, "http" | "flight" | "metrics"))?;
    let (_, address) = words.next()?.split_once("://")?;
    Some((service, address))
}
