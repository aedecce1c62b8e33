//! What the kernel says of a process: CPU seconds and resident memory.

use std::path::Path;

use crate::Result;
use crate::memory;

/// Ticks of a second in `/proc`: the kernel's ABI, 100 on every Linux platform that runs this.
const TICKS: f64 = 100.0;

/// CPU seconds that the processes have used, in their own code and in the kernel's.
pub fn cpu_seconds(ids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for id in ids {
        let fields = stat(*id)?;
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        ticks += field(11).ok_or("no utime")? + field(12).ok_or("no stime")?;
    }
    Ok(ticks / TICKS)
}

/// The process and those whose parent it is.
pub fn family(id: u32) -> Result<Vec<u32>> {
    let mut family = vec![id];
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Ok(child) = name.to_string_lossy().parse() else { continue };
        // One that has ended meanwhile is nobody's child.
        let parent = stat(child).ok().and_then(|fields| fields.get(1)?.parse().ok());
        if parent == Some(id) {
            family.push(child);
        }
    }
    Ok(family)
}

/// The fields after the name, which may hold spaces: state, parent, …
fn stat(id: u32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat"))?;
    let (_, fields) = text.rsplit_once(')').ok_or("no name in stat")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Resident memory in bytes.
pub fn resident(id: u32) -> Result<f64> {
    Ok(memory::of(id, "VmRSS")? as f64)
}
