//! How much memory this process may take: the limit of its control group (v2 or v1), or the machine's.
//!
//! Read once at start; nothing is written.

use std::fs;
use std::path::Path;

/// Part of the memory that queries and accelerated data may take, in percent. The rest is for what is not counted:
/// connections, messages on their way, plans, the allocator's own loss.
const SHARE_PERCENT: u64 = 90;

/// Where neither a control group nor the machine tells (other systems than Linux).
const MEMORY_UNKNOWN: u64 = 4 << 30;

/// `runtime.query.memory_limit` when the spicepod has none, in bytes.
pub(super) fn memory_limit_default() -> u64 {
    memory(Path::new("/")).unwrap_or(MEMORY_UNKNOWN) / 100 * SHARE_PERCENT
}

/// The least of the machine's memory and the limits of this process's control groups, under a root directory.
fn memory(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| memory_total(&text));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(Group::of_line).filter_map(|group| group.limit(root));
    limits.chain(machine).min()
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A control group that may limit memory.
struct Group<'a> {
    /// Where its hierarchy is mounted.
    mount: &'static str,
    /// The file of a limit.
    file: &'static str,
    path: &'a str,
}

impl<'a> Group<'a> {
    /// From a line of /proc/self/cgroup: `0::/path` (v2) or `4:memory:/path` (v1).
    fn of_line(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match (number, controllers) {
            ("0", "") => Some(Self { mount: "sys/fs/cgroup", file: "memory.max", path }),
            (_, names) if names.split(',').any(|name| name == "memory") => {
                Some(Self { mount: "sys/fs/cgroup/memory", file: "memory.limit_in_bytes", path })
            }
            _ => None,
        }
    }

    /// The least limit of the group and of those above it. Inside a container the path may be that of the host and
    /// not be there; the mount is the container's own group then.
    fn limit(&self, root: &Path) -> Option<u64> {
        let mount = root.join(self.mount);
        let path = Path::new(self.path.trim_start_matches('/'));
        let files = path.ancestors().map(|group| mount.join(group).join(self.file));
        // `max` means no limit and is no number; v1 writes a number beyond any machine.
        files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16000 kB\nMemFree:   1 kB\n");

    #[test]
    fn the_smallest_limit_holds() {
        let v2 = ("proc/self/cgroup", "0::/pod/box\n");
        let limit = ("sys/fs/cgroup/pod/box/memory.max", "9000000\n");
        assert_eq!(machine(&[MEMINFO, v2, limit]), Some(9_000_000));
        let above = ("sys/fs/cgroup/pod/memory.max", "8000000\n");
        assert_eq!(machine(&[MEMINFO, v2, limit, above]), Some(8_000_000));
        let open = ("sys/fs/cgroup/pod/box/memory.max", "max\n");
        assert_eq!(machine(&[MEMINFO, v2, open]), Some(16_000 * 1024));
        assert_eq!(machine(&[MEMINFO]), Some(16_000 * 1024));
        assert_eq!(machine(&[]), None);
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount() {
        let host = ("proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/abc\n");
        let own = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000000\n");
        assert_eq!(machine(&[MEMINFO, host, own]), Some(7_000_000));
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(machine(&[MEMINFO, host, unlimited]), Some(16_000 * 1024));
        let inside = ("proc/self/cgroup", "0::/\n");
        assert_eq!(machine(&[MEMINFO, inside, ("sys/fs/cgroup/memory.max", "6000000")]), Some(6_000_000));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_limit_default() > 1 << 20);
    }
}
