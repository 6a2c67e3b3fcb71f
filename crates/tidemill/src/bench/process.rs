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

/// CPU time of this process's threads that are there now and have such a name, to the nanosecond; zero without `/proc`.
fn cpu_of_threads(named: impl Fn(&str) -> bool) -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|entry| entry.path());
    let named = threads.filter(|path| read_to_string(path.join("comm")).is_ok_and(|name| named(name.trim_end())));
    let nanos = named.filter_map(|path| {
        let stat = read_to_string(path.join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// CPU time of the engine's own threads: the conductor and the workers.
pub fn engine_cpu() -> Duration {
    cpu_of_threads(|name| name == "conductor" || name.starts_with("timely:"))
}

/// CPU time of all threads of this process that are there now.
pub fn own_cpu() -> Duration {
    cpu_of_threads(|_| true)
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
        let named = std::thread::Builder::new().name("conductor".into());
        let work = named.spawn(|| {
            let begun = engine_cpu();
            while engine_cpu() == begun {}
        });
        work.unwrap().join().unwrap();
        assert!(own_cpu() > Duration::ZERO);
    }
}
