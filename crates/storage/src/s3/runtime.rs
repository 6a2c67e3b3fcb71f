//! The thread that does the network's work of a store.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Runs futures on a thread of its own, which ends when this is dropped.
pub(super) struct Runtime {
    handle: Handle,
    /// The thread waits for its end.
    _running: oneshot::Sender<()>,
}

impl Runtime {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name("s3".into()).spawn(move || {
            let _ = runtime.block_on(dropped);
        })?;
        Ok(Runtime { handle, _running: running })
    }

    /// Waits for what a future comes to.
    pub(super) fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (tell, answer) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Nobody waits for it only if this thread panicked.
            let _ = tell.send(future.await);
        });
        answer.recv().map_err(|_| io::Error::other("the store's thread has ended"))
    }
}
