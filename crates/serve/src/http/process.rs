//! What the operating system says about this process.

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ProcessUse {
    /// Bytes of memory in use.
    pub resident_bytes: u64,
    /// Seconds of processor time used since the start, by all threads.
    pub cpu_seconds: f64,
}

/// Linux counts processor time for users in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc`; `None` where there is none.
pub(crate) fn process_use() -> Option<ProcessUse> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    Some(ProcessUse { resident_bytes: resident(&status)?, cpu_seconds: cpu(&stat)? })
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_forms() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\nThreads: 3\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        let stat = "42 (odd) name) S 1 42 42 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 1 0 100";
        assert_eq!(cpu(stat), Some(2.0));
    }
}
