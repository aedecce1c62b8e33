//! What the kernel says of a process' memory.

use crate::Result;

/// A line of `/proc/PID/status`, such as `VmRSS` or `VmHWM`, in bytes.
pub fn of(process: u32, line: &str) -> Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let value = value.ok_or_else(|| format!("no {line}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}
