//! Rows that go by themselves: those of tables with `retention`.
//!
//! A thread looks at these tables now and then, and has rows deleted as a statement would: under the lock that keeps
//! others from changing what is read meanwhile, in an epoch, so that views and sinks see it and the journal has it. Only the decision
//! what is too old is made by the clock, once. A look at a table reads one column of its rows, and with a limit on their
//! bytes all of them; it is made as rarely as is needed for
//! it to take little of a processor.

mod find;
mod size;

use std::collections::{BTreeMap, HashSet};
use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tidemill_delta::{Epoch, Micros};
use tidemill_plan::RelationId;
use tidemill_sql::{Relation, Retention, SqlError};
use tidemill_state::Collection;

use self::find::{Found, find};
use crate::conductor::Request;
use crate::engine::Inner;

/// How often tables are looked at, at most.
const EVERY: Duration = Duration::from_secs(1);
/// A look may take this part of the time.
const PART: u64 = 50;
/// Epochs for which statements that delete have to wait.
const EPOCHS: usize = 16;

/// Starts the thread. It ends when what this gives is dropped.
pub(crate) fn start(inner: Weak<Inner>) -> std::io::Result<Sender<()>> {
    let (running, ended) = bounded(0);
    std::thread::Builder::new().name("retention".into()).spawn(move || {
        Cleaner { inner, tables: BTreeMap::new() }.run(&ended);
    })?;
    Ok(running)
}

/// What is known of a table since the last look.
#[derive(Clone, Copy)]
struct Look {
    /// The table's last change then.
    epoch: Epoch,
    /// How old the eldest row that was left is, as a time.
    eldest: Option<Micros>,
    /// When it may be looked at again, by the monotonic clock.
    next: u64,
}

struct Cleaner {
    inner: Weak<Inner>,
    tables: BTreeMap<RelationId, Look>,
}

impl Cleaner {
    fn run(mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            let Some(inner) = self.inner.upgrade() else { return };
            let tables = inner.catalog().with_retention();
            let there: HashSet<RelationId> = tables.iter().map(|table| table.id).collect();
            self.tables.retain(|id, _| there.contains(id));
            for table in &tables {
                let Some(retention) = &table.retention else { continue };
                if let Err(error) = self.clean(&inner, table, retention) {
                    // The next look tries again.
                    tracing::debug!(table = table.name, %error, "rows that are too old stay for now");
                }
            }
        }
    }

    fn clean(&mut self, inner: &Inner, table: &Relation, retention: &Retention) -> Result<(), SqlError> {
        let began = inner.env.monotonic_nanos();
        let oldest = retention.age.map(|age| inner.env.now_micros().saturating_sub(age));
        if self.tables.get(&table.id).is_some_and(|look| !look.is_due(began, oldest, || last_change(inner, table.id))) {
            return Ok(());
        }
        let epoch = last_change(inner, table.id);
        let eldest = loop {
            // Nobody deletes the same rows meanwhile.
            let _one_at_a_time = inner.dml.blocking_lock();
            let Some((mut seen, rows)) = rows_of(inner, table.id) else { return Ok(()) };
            let Found { gone, eldest } =
                find(&rows, retention, oldest).map_err(|e| SqlError::internal(e.to_string()))?;
            let more = gone.len() > EPOCHS;
            for rows in gone.into_iter().take(EPOCHS) {
                // Others would wait for the lock, and not be told why.
                inner.refuse_while_full()?;
                seen = inner.ask_blocking(|reply| Request::Expire { table: table.id, rows, seen, reply })?;
            }
            if !more {
                break eldest;
            }
        };
        let took = inner.env.monotonic_nanos().saturating_sub(began);
        let next = began.saturating_add(took.saturating_mul(PART));
        self.tables.insert(table.id, Look { epoch, eldest, next });
        Ok(())
    }
}

impl Look {
    fn is_due(&self, now: u64, oldest: Option<Micros>, last_change: impl Fn() -> Epoch) -> bool {
        let aged = || oldest.is_some_and(|oldest| self.eldest.is_some_and(|eldest| eldest < oldest));
        now >= self.next && (aged() || last_change() != self.epoch)
    }
}

fn last_change(inner: &Inner, table: RelationId) -> Epoch {
    inner.published.state.read().shown.get(&table).map_or(0, |shown| shown.last_epoch)
}

/// A table's rows, and the epoch of which they are.
fn rows_of(inner: &Inner, table: RelationId) -> Option<(Epoch, Collection)> {
    let state = inner.published.state.read();
    Some((state.epoch, state.shown.get(&table)?.rows.clone()?))
}
