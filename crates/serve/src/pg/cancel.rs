//! Cancel requests: they come on a connection of their own and name the session by number and secret.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use tokio::sync::Notify;

/// Whether one session's running statement should stop.
#[derive(Default)]
pub struct Cancel {
    wanted: AtomicBool,
    notify: Notify,
}

impl Cancel {
    /// Forgets requests that came before: they meant an earlier statement.
    pub fn reset(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// Waits for a request.
    pub async fn requested(&self) {
        loop {
            let notified = self.notify.notified();
            if self.wanted.swap(false, Ordering::SeqCst) {
                return;
            }
            notified.await;
        }
    }

    fn request(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

/// The sessions that can be cancelled.
#[derive(Default)]
pub struct Cancels {
    next: AtomicI32,
    sessions: Mutex<HashMap<i32, (u32, Arc<Cancel>)>>,
}

impl Cancels {
    /// Enters a session; it stays as long as what is returned.
    pub fn enter(self: &Arc<Self>) -> Entry {
        let pid = self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
        let secret = secret();
        let cancel = Arc::new(Cancel::default());
        self.lock().insert(pid, (secret, cancel.clone()));
        Entry { cancels: self.clone(), pid, secret, cancel }
    }

    /// Cancels what the session runs; nothing happens when number and secret do not fit.
    pub fn cancel(&self, pid: i32, secret: &[u8]) {
        if let Some((known, cancel)) = self.lock().get(&pid)
            && known.to_be_bytes() == secret
        {
            cancel.request();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, (u32, Arc<Cancel>)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that another client cannot guess: the standard library seeds its hash keys from the
/// system's randomness.
fn secret() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u32
}

/// A session's place among those that can be cancelled.
pub struct Entry {
    cancels: Arc<Cancels>,
    /// The session's number.
    pub pid: i32,
    /// Its secret.
    pub secret: u32,
    /// What a request sets.
    pub cancel: Arc<Cancel>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_secret_cancels() {
        let cancels = Arc::new(Cancels::default());
        let entry = cancels.enter();
        cancels.cancel(entry.pid, &[0; 3]);
        cancels.cancel(entry.pid, &entry.secret.wrapping_add(1).to_be_bytes());
        assert!(!entry.cancel.wanted.load(Ordering::SeqCst));
        cancels.cancel(entry.pid, &entry.secret.to_be_bytes());
        entry.cancel.requested().await;
        let pid = entry.pid;
        drop(entry);
        assert!(!cancels.lock().contains_key(&pid));
    }

    #[tokio::test]
    async fn a_request_between_statements_is_forgotten() {
        let cancel = Cancel::default();
        cancel.request();
        cancel.reset();
        let wait = tokio::time::timeout(std::time::Duration::from_millis(20), cancel.requested());
        assert!(wait.await.is_err());
    }
}
