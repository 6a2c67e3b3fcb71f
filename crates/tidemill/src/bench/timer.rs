//! What things of one kind cost together.

use std::time::{Duration, Instant};

use super::process::engine_cpu;

/// CPU of the engine's threads and time, of all things of a kind together.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// CPU of the conductor and the workers.
    pub cpu: Duration,
    /// Time.
    pub wall: Duration,
}

impl Cost {
    /// Both together.
    pub fn and(self, other: Cost) -> Cost {
        Cost { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

/// CPU and time from one mark to the next.
pub struct Timer {
    cpu: Duration,
    at: Instant,
}

impl Timer {
    /// Starts now.
    pub fn start() -> Self {
        Timer { cpu: engine_cpu(), at: Instant::now() }
    }

    /// Adds what was since the last mark to a kind's cost; starts anew.
    pub fn note(&mut self, cost: &mut Cost) {
        let now = Timer::start();
        cost.cpu += now.cpu.saturating_sub(self.cpu);
        cost.wall += now.at - self.at;
        *self = Timer::start();
    }
}

/// Microseconds of each, of so many together.
pub fn micros_each(time: Duration, of: usize) -> f64 {
    time.as_secs_f64() * 1e6 / of.max(1) as f64
}
