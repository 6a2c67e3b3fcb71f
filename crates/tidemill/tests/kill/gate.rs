//! Clients stop when the server dies, and go on when it is there again.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::server::{PATIENCE, Ports};

/// Where clients wait for a server.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Grows with each server that clients may use.
    generation: u64,
    ports: Option<Ports>,
    /// How many clients have come to wait since the last server.
    waiting: usize,
    ended: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no client has panicked")
    }

    /// Waits for a server after the one of that generation. `None`: there will be none.
    pub fn enter(&self, after: u64) -> Option<(u64, Ports)> {
        let mut state = self.state();
        state.waiting += 1;
        self.moved.notify_all();
        let state = self.moved.wait_while(state, |s| !s.ended && s.generation == after).expect("no panic");
        if state.ended { None } else { state.ports.map(|ports| (state.generation, ports)) }
    }

    /// Lets clients in.
    pub fn open(&self, ports: Ports) {
        let mut state = self.state();
        state.generation += 1;
        state.waiting = 0;
        state.ports = Some(ports);
        self.moved.notify_all();
    }

    /// Waits until that many clients wait: nothing is under way then.
    pub fn all_wait(&self, clients: usize) {
        let waited = self.moved.wait_timeout_while(self.state(), PATIENCE * 2, |s| s.waiting < clients);
        assert!(!waited.expect("no client has panicked").1.timed_out(), "a client hangs");
    }

    /// Sends everyone home.
    pub fn end(&self) {
        self.state().ended = true;
        self.moved.notify_all();
    }
}
