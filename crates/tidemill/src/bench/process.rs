//! What the operating system knows about a process.

use std::fs::read_to_string;
use std::time::Duration;

/// The kernel counts CPU time for `/proc` in hundredths of a second.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that a process used so far, user and system; `None` without `/proc` or such a process.
pub fn cpu(pid: &str) -> Option<Duration> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// Resident at most so far.
    pub peak: u64,
    /// Of what is resident now, what is its own: not the program's file.
    pub own: u64,
}

/// A process's memory; zero where `/proc` does not tell.
pub fn memory(pid: &str) -> Memory {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Memory { now: kib("VmRSS:") * 1024, peak: kib("VmHWM:") * 1024, own: kib("RssAnon:") * 1024 }
}

/// This process.
pub const SELF: &str = "self";

/// Bytes as mebibytes.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let memory = memory(SELF);
        assert!(memory.now > 0 && memory.peak >= memory.now);
        assert!(cpu(SELF).is_some());
    }
}
