//! What came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Loops that only burn time: some faults show only when threads must wait for a core.
pub struct Burners(Arc<AtomicBool>);

impl Burners {
    pub fn start() -> Burners {
        let done = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let done = done.clone();
            std::thread::spawn(move || {
                let mut x = 0u64;
                while !done.load(Ordering::Relaxed) {
                    x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
                }
            });
        }
        Burners(done)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills, faults and times.
pub struct Report {
    workload: &'static str,
    seed: u64,
    began: Instant,
    /// Kills per phase.
    phases: BTreeMap<&'static str, usize>,
    /// How long each start took until clients were served.
    starts: Vec<Duration>,
    pub faults: Vec<String>,
    pub acknowledged: u64,
    /// Files of sinks.
    pub files: usize,
}

impl Report {
    pub fn new(workload: &'static str, seed: u64) -> Report {
        let (phases, starts, faults) = (BTreeMap::new(), Vec::new(), Vec::new());
        Report { workload, seed, began: Instant::now(), phases, starts, faults, acknowledged: 0, files: 0 }
    }

    pub fn kill(&mut self, phase: &'static str) {
        *self.phases.entry(phase).or_default() += 1;
    }

    pub fn kills(&self) -> usize {
        self.phases.values().sum()
    }

    pub fn started(&mut self, took: Duration) {
        self.starts.push(took);
    }

    /// The longest start so far.
    pub fn longest(&self) -> Duration {
        self.starts.iter().max().copied().unwrap_or_default()
    }

    /// Prints it; panics if there are faults.
    pub fn end(self) {
        let phases: Vec<String> = self.phases.iter().map(|(phase, kills)| format!("{phase} {kills}")).collect();
        let (kills, faults) = (self.kills(), self.faults.len());
        let mean = self.starts.iter().sum::<Duration>() / self.starts.len().max(1) as u32;
        println!(
            "{}: seed {}, {kills} kills ({}), {faults} faults, {} acknowledged, {} files of sinks, start at most {:.2?} (mean {mean:.2?}), in {:.0?}; \
             if none failed, at most {:.2} % of kills do (95 %)",
            self.workload,
            self.seed,
            phases.join(", "),
            self.acknowledged,
            self.files,
            self.longest(),
            self.began.elapsed(),
            300.0 / kills.max(1) as f64
        );
        assert!(faults == 0, "seed {}:\n{}", self.seed, self.faults.join("\n"));
    }
}
