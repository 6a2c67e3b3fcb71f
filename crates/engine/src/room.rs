//! Room for rows that have arrived and are not in an epoch yet: what slows a client down when it sends more than is done.

use std::sync::Arc;
use std::time::Duration;

use tidemill_sql::SqlError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client waits for room before it is sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// What room is counted in.
const UNIT: usize = 1024;

/// See the module.
pub(crate) struct Room {
    units: Arc<Semaphore>,
    all: u32,
    patience: Duration,
}

impl Room {
    /// Room for so many bytes in all.
    pub(crate) fn new(bytes: usize) -> Room {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Room { units: Arc::new(Semaphore::new(all as usize)), all, patience: PATIENCE }
    }

    /// Waits for room for so many bytes; it is free again when what this gives is dropped. What is larger
    /// than all there is gets all of it.
    pub(crate) async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, SqlError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.all);
        let waited = tokio::time::timeout(self.patience, self.units.clone().acquire_many_owned(units)).await;
        match waited {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(SqlError::internal("nobody takes rows any more")),
            Err(_) => Err(SqlError::new("53000", "more rows arrive than are taken in; these were not")
                .hint("Send them again in a second, and fewer at once.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_waits_and_then_is_sent_away() {
        let room = Arc::new(Room { patience: Duration::from_secs(600), ..Room::new(10 * UNIT) });
        let most = room.take(9 * UNIT).await.unwrap();
        let waits = tokio::spawn({
            let room = room.clone();
            async move { room.take(5 * UNIT).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(most);
        waits.await.unwrap().unwrap();
        // More than there is gets what there is.
        let room = Room { patience: Duration::from_millis(1), ..Room::new(10 * UNIT) };
        let _all = room.take(100 * UNIT).await.unwrap();
        assert_eq!(room.take(1).await.err().unwrap().code, "53000");
    }
}
