//! Changes as Server-Sent Events.
//!
//! An epoch's rows may take several events. Only the last one carries the `id:` field, the others say
//! `"more": true`: so a browser that loses its connection between two parts resumes from the epoch
//! before, and no part of an epoch is ever taken for the whole.

use bytes::Bytes;
use tidemill_connect::json_row;
use tidemill_delta::{Delta, Epoch};
use tidemill_engine::{Change, SqlError};

use super::error;

/// At most about this many bytes of columns go into one event.
const EVENT_BYTES: usize = 256 << 10;

/// At most this many rows go into one event.
const EVENT_ROWS: usize = 2_000;

/// Sent first: tells browsers to come back a second after a lost connection, and makes the response's
/// head go out at once.
pub(crate) const HELLO: &str = "retry: 1000\n\n";

/// Sent when there is nothing to say, so that proxies and clients see a living connection.
pub(crate) const HEARTBEAT: &str = ": still here\n\n";

/// The events of one change.
pub(crate) struct Parts {
    change: Change,
    from: usize,
    rows_per_event: usize,
    done: bool,
}

impl Parts {
    /// Splits a change, so that no event is huge. A change without rows still is one event.
    pub(crate) fn new(change: Change) -> Self {
        let row_bytes = (change.delta.bytes() / change.delta.len().max(1)).max(1);
        let rows_per_event = (EVENT_BYTES / row_bytes).clamp(1, EVENT_ROWS);
        Parts { change, from: 0, rows_per_event, done: false }
    }

    /// The epoch of the change.
    pub(crate) fn epoch(&self) -> Epoch {
        self.change.epoch
    }

    /// The next event, until all rows are out.
    pub(crate) fn next_event(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let len = self.rows_per_event.min(self.change.delta.len() - self.from);
        let part = self.change.delta.slice(self.from, len);
        self.from += len;
        self.done = self.from == self.change.delta.len();
        let epoch = self.change.epoch;
        let kind = if self.change.snapshot { "snapshot" } else { "change" };
        let mut out = String::with_capacity(64 + len * 96);
        if self.done {
            out.push_str(&format!("id: {epoch}\n"));
        }
        out.push_str(&format!("event: {kind}\ndata: {{\"epoch\":{epoch},"));
        write_rows(&part, &mut out);
        if !self.done {
            out.push_str(",\"more\":true");
        }
        out.push_str("}\n\n");
        Some(out.into())
    }
}

/// `"rows":[{...},...],"diffs":[1,...]`.
pub(crate) fn write_rows(delta: &Delta, out: &mut String) {
    out.push_str("\"rows\":[");
    for row in 0..delta.len() {
        if row > 0 {
            out.push(',');
        }
        json_row(&delta.rows, row, out);
    }
    out.push_str("],\"diffs\":[");
    for row in 0..delta.len() {
        if row > 0 {
            out.push(',');
        }
        out.push_str(&delta.weight(row).to_string());
    }
    out.push(']');
}

/// Nothing changed up to this epoch.
pub(crate) fn progress(epoch: Epoch) -> Bytes {
    format!("id: {epoch}\nevent: progress\ndata: {{\"epoch\":{epoch}}}\n\n").into()
}

/// The stream ends with an error.
pub(crate) fn failure(error: &SqlError) -> Bytes {
    format!("event: error\ndata: {{\"error\":{}}}\n\n", error::to_json(error)).into()
}

/// The stream ends because there is nothing left to read from.
pub(crate) fn end() -> Bytes {
    Bytes::from_static(b"event: end\ndata: {\"reason\":\"dropped or shut down\"}\n\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn change(rows: usize, snapshot: bool) -> Change {
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        let name: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("line\n{i}"))));
        let rows = RecordBatch::try_from_iter([("id", id), ("name", name)]).expect("batch");
        Change { epoch: 9, delta: Delta::inserts(rows), snapshot }
    }

    fn events(change: Change) -> Vec<String> {
        let mut parts = Parts::new(change);
        let mut out = Vec::new();
        while let Some(event) = parts.next_event() {
            out.push(String::from_utf8(event.to_vec()).expect("UTF-8"));
        }
        out
    }

    #[test]
    fn a_small_change_is_one_event_on_three_lines() {
        let events = events(change(2, false));
        assert_eq!(
            events,
            ["id: 9\nevent: change\ndata: {\"epoch\":9,\"rows\":[{\"id\":0,\"name\":\"line\\n0\"},\
              {\"id\":1,\"name\":\"line\\n1\"}],\"diffs\":[1,1]}\n\n"]
        );
    }

    #[test]
    fn an_empty_snapshot_is_still_told() {
        assert_eq!(
            events(change(0, true)),
            ["id: 9\nevent: snapshot\ndata: {\"epoch\":9,\"rows\":[],\"diffs\":[]}\n\n"]
        );
    }

    #[test]
    fn only_the_last_part_has_the_id() {
        let events = events(change(EVENT_ROWS * 2 + 1, true));
        assert!(events.len() >= 3);
        let (last, first) = events.split_last().expect("events");
        assert!(first.iter().all(|e| !e.contains("id: 9") && e.contains("\"more\":true")));
        assert!(last.starts_with("id: 9\n") && !last.contains("more"));
        let rows: usize = events.iter().map(|e| e.matches("\"name\"").count()).sum();
        assert_eq!(rows, EVENT_ROWS * 2 + 1);
    }
}
