//! The outside world behind one door.
//!
//! Engine code never asks the operating system for the time or for a file: it asks an [`Env`], so
//! that a run can be repeated exactly. The real world is [`Env::real`]; a test uses
//! [`Env::simulated`], moves its [`ManualClock`] itself and pulls the plug of its [`SimulatedDisk`].

#![allow(clippy::disallowed_methods, reason = "this crate is the door that the others are sent to")]

mod disk;

pub use disk::{Disk, DiskFile, DiskLock, Fate, Fault, Operation, ReadOnlyDisk, RealDisk, SimulatedDisk};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Wall-clock time in microseconds since the Unix epoch. May step backwards.
    fn now_micros(&self) -> i64;
    /// Nanoseconds since some fixed instant. Never steps backwards.
    fn monotonic_nanos(&self) -> u64;
}

/// The operating system's clock.
struct SystemClock {
    origin: Instant,
}

impl Clock for SystemClock {
    fn now_micros(&self) -> i64 {
        // A clock before 1970 is a misconfigured machine; zero is the least surprising answer.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

/// A clock that only moves when it is told to.
#[derive(Default)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance_micros(&self, by: i64) {
        self.micros.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> i64 {
        self.micros.load(Ordering::SeqCst)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.now_micros() as u64 * 1000
    }
}

/// Everything that engine code may ask of the outside world.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
}

impl Env {
    /// The operating system.
    pub fn real() -> Self {
        Env { clock: Arc::new(SystemClock { origin: Instant::now() }), disk: Arc::new(RealDisk) }
    }

    /// A world in which only the given clock moves, with an empty disk in memory.
    pub fn simulated(clock: Arc<ManualClock>) -> Self {
        Env { clock, disk: Arc::new(SimulatedDisk::default()) }
    }

    /// The same world with another disk.
    pub fn with_disk(self, disk: Arc<dyn Disk>) -> Self {
        Env { disk, ..self }
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Wall-clock time in microseconds since the Unix epoch.
    pub fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }

    /// Nanoseconds on a clock that never steps backwards; for measuring, never for results.
    pub fn monotonic_nanos(&self) -> u64 {
        self.clock.monotonic_nanos()
    }
}
