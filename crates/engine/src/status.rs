//! The engine at work: counters, and what `SHOW`, `/metrics` and the page are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidemill_connect::SinkCounts;
use tidemill_delta::Epoch;
use tidemill_plan::RelationId;
use tidemill_sql::Relation;
use tidemill_storage::{Log, State};

use crate::catalog::SinkEntry;
use crate::engine::{Engine, Inner};
use crate::sink::SinkProgress;

/// A table, source, view or sink at work, for `SHOW`, `/metrics` and the page.
#[derive(Clone, Debug)]
pub struct RelationStatus {
    /// What it is.
    pub relation: Arc<Relation>,
    /// `running`, `catching up`, `stopped`, `ended`, ...
    pub state: String,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Rows that came in (sources, tables).
    pub rows_in: u64,
    /// Of these, rows applied.
    pub applied: u64,
    /// Of these, late.
    pub late: u64,
    /// Of these, bad.
    pub bad: u64,
    /// Changes that came out (views): rows listed in deltas.
    pub changes: u64,
    /// Rows held now.
    pub rows: u64,
    /// Bytes held now, by the rows and the operators' state.
    pub bytes: u64,
    /// How often an operator without an incremental rule recomputed a partition or a group.
    pub recomputations: u64,
    /// The watermark in microseconds, if there is one.
    pub watermark: Option<i64>,
    /// The last epoch in which it changed.
    pub last_epoch: Epoch,
    /// Bytes read and in all, for bounded sources.
    pub progress: Option<(u64, u64)>,
}

/// A sink at work.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// The statement that made it.
    pub sql: String,
    /// `running`, `retrying` or `stopped`.
    pub state: &'static str,
    /// Why it does not deliver, if it does not.
    pub reason: Option<String>,
    /// Changes delivered.
    pub rows: u64,
    /// The last epoch delivered.
    pub epoch: Epoch,
    /// An order-independent checksum of what was delivered, if the sink keeps one.
    pub checksum: Option<u64>,
}

/// How what happens is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurabilityStatus {
    /// Records of the log that are kept.
    pub log_records: u64,
    /// Why nothing can be written now, if so.
    pub paused: Option<String>,
    /// Where checkpoints are kept; `None`: in the data folder.
    pub checkpoints_at: Option<String>,
    /// The epoch of the last checkpoint; 0: none yet.
    pub checkpoint_epoch: Epoch,
    /// Checkpoints written since the start.
    pub checkpoints: u64,
    /// Bytes of the last checkpoint's new files.
    pub checkpoint_bytes: u64,
    /// Why the last one could not be written, if so.
    pub checkpoint_failed: Option<String>,
}

/// The whole engine at work.
#[derive(Clone, Debug, Default)]
pub struct EngineStatus {
    /// The last epoch that readers see.
    pub epoch: Epoch,
    /// Epochs that had rows.
    pub epochs_with_rows: u64,
    /// Rows that came in.
    pub rows_in: u64,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Subscriptions open now.
    pub subscriptions: u64,
    /// Last epochs' latency from cut to publication, microseconds: p50, p99.
    pub epoch_latency_micros: (u64, u64),
    /// Tables, sources and views, by name.
    pub relations: Vec<RelationStatus>,
    /// Sinks, by name.
    pub sinks: Vec<SinkStatus>,
    /// How what happens is kept; `None`: it is not.
    pub durability: Option<DurabilityStatus>,
}

/// What the conductor counts of a relation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows_in: u64,
    pub(crate) applied: u64,
    pub(crate) late: u64,
    pub(crate) bad: u64,
    pub(crate) watermark: Option<i64>,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) progress: Option<(u64, u64)>,
}

/// Epochs whose latency is remembered.
const LATENCIES: usize = 1024;

/// The conductor's counters, shared with whoever looks.
#[derive(Default)]
pub(crate) struct Stats {
    counters: BTreeMap<RelationId, Counters>,
    pub(crate) sinks: BTreeMap<RelationId, (Arc<SinkProgress>, Option<Arc<SinkCounts>>)>,
    pub(crate) rows_in: u64,
    pub(crate) epochs_with_rows: u64,
    latencies: Vec<u64>,
    next_latency: usize,
}

impl Stats {
    pub(crate) fn counters(&mut self, relation: RelationId) -> &mut Counters {
        self.counters.entry(relation).or_default()
    }

    /// A relation's counters, if anything was counted.
    pub(crate) fn peek(&self, relation: RelationId) -> Option<&Counters> {
        self.counters.get(&relation)
    }

    pub(crate) fn forget(&mut self, relation: RelationId) {
        self.counters.remove(&relation);
        self.sinks.remove(&relation);
    }

    pub(crate) fn note_latency(&mut self, micros: u64) {
        if self.latencies.len() < LATENCIES {
            self.latencies.push(micros);
        } else {
            self.latencies[self.next_latency] = micros;
        }
        self.next_latency = (self.next_latency + 1) % LATENCIES;
    }

    fn latency(&self) -> (u64, u64) {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or(0);
        (at(50), at(99))
    }
}

impl Engine {
    /// The engine at work.
    pub fn status(&self) -> EngineStatus {
        let inner = &self.inner;
        let catalog = inner.catalog();
        let (shown, epoch) = {
            let state = inner.published.state.read();
            let of = |s: &crate::published::Shown| {
                let rows = s.rows.as_ref();
                (rows.map_or(0, |r| r.rows()), rows.map_or(0, |r| r.bytes()) as u64, s.changes, s.last_epoch)
            };
            (state.shown.iter().map(|(id, s)| (*id, of(s))).collect::<BTreeMap<_, _>>(), state.epoch)
        };
        let mut held: BTreeMap<RelationId, (u64, u64)> = BTreeMap::new();
        for ((view, _), (size, recomputations)) in inner.sizes.lock().iter() {
            let entry = held.entry(*view).or_default();
            entry.0 += size.bytes as u64;
            entry.1 += recomputations;
        }
        let stats = inner.stats.lock();
        let relations = catalog
            .all()
            .map(|relation| {
                let counters = stats.counters.get(&relation.id).cloned().unwrap_or_default();
                let (rows, row_bytes, changes, last_epoch) = shown.get(&relation.id).copied().unwrap_or_default();
                let (state_bytes, recomputations) = held.get(&relation.id).copied().unwrap_or_default();
                RelationStatus {
                    relation: relation.clone(),
                    state: counters.state.to_owned(),
                    reason: counters.reason,
                    rows_in: counters.rows_in,
                    applied: counters.applied,
                    late: counters.late,
                    bad: counters.bad,
                    changes,
                    rows,
                    bytes: row_bytes + state_bytes,
                    recomputations,
                    watermark: counters.watermark,
                    last_epoch,
                    progress: counters.progress,
                }
            })
            .collect();
        let sinks = catalog.sinks().map(|sink| sink_status(sink, &stats)).collect();
        EngineStatus {
            epoch,
            epochs_with_rows: stats.epochs_with_rows,
            rows_in: stats.rows_in,
            uptime_seconds: (inner.env.monotonic_nanos() - inner.started) as f64 / 1e9,
            subscriptions: inner.subscriptions.load(Ordering::Relaxed),
            epoch_latency_micros: stats.latency(),
            relations,
            sinks,
            durability: inner.log.lock().as_ref().map(|log| durability(log, inner)),
        }
    }
}

fn durability(log: &Log, inner: &Inner) -> DurabilityStatus {
    let (saving, data) = (&inner.saving, inner.config.data.as_ref());
    let paused = match log.state() {
        State::Running => None,
        State::Paused { reason } | State::Failed { reason } => Some(reason),
        State::Closed => Some("the log is closed".into()),
    };
    DurabilityStatus {
        log_records: log.end() - log.first(),
        paused,
        checkpoints_at: data.and_then(|data| data.checkpoints.as_ref()).map(|store| store.address().to_owned()),
        checkpoint_epoch: saving.epoch.load(Ordering::Relaxed),
        checkpoints: saving.written.load(Ordering::Relaxed),
        checkpoint_bytes: saving.bytes.load(Ordering::Relaxed),
        checkpoint_failed: saving.failed.lock().clone(),
    }
}

fn sink_status(sink: &SinkEntry, stats: &Stats) -> SinkStatus {
    let found = stats.sinks.get(&sink.id);
    let progress = found.map(|(progress, _)| progress);
    let (state, reason) = progress.map(|p| p.state()).unwrap_or_default().told();
    SinkStatus {
        name: sink.name.clone(),
        sql: sink.sql.clone(),
        state,
        reason,
        rows: progress.map_or(0, |p| p.rows.load(Ordering::Relaxed)),
        epoch: progress.map_or(0, |p| p.epoch.load(Ordering::Relaxed)),
        checksum: found.and_then(|(_, counts)| counts.as_ref().map(|c| c.checksum())),
    }
}
