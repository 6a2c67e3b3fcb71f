//! `GET /v1/live?view=a&order=n&view=b`: what the console page watches, over one connection.
//!
//! Browsers open at most six connections to a server, so one per view would starve the rest. And
//! people cannot read a thousand changes a second: here the changes of a tenth of a second come as
//! one, and of a large view only the rows with the largest values of its `order` column are sent.
//! Programs use `/v1/subscribe`, which leaves nothing out.

use std::pin::Pin;
use std::time::Duration;

use arrow::compute::{SortOptions, sort_to_indices};
use arrow::error::ArrowError;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{self, SelectAll, Stream};
use tidemill_connect::json_string;
use tidemill_delta::{Delta, Epoch};
use tidemill_engine::{Change, Engine, SqlError, SubscribeFrom, Subscription};
use tokio::time::Instant;

use super::App;
use super::error::{ApiError, to_json};
use super::frames;
use super::status::status_json;

/// At most one event per view in this time.
const PACE: Duration = Duration::from_millis(100);

/// How often the state of everything is sent.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The most rows of a view that are sent at once.
const ROW_LIMIT: usize = 2_000;

/// The most changed rows that are collected while waiting for the next turn.
const COLLECT_ROWS: usize = 50_000;

/// The most views watched by one page.
const VIEW_LIMIT: usize = 32;

/// At most one snapshot in this time of a view that changes faster than changes can be sent.
const SNAPSHOT_PACE: Duration = Duration::from_secs(1);

/// After a failure, how long until the view is looked for again.
const RETRY: Duration = Duration::from_secs(2);

type Events = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Opens the stream.
pub(crate) async fn live(
    State(app): State<App>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let mut all: SelectAll<Events> = SelectAll::new();
    all.push(Box::pin(stream::once(async { Bytes::from_static(frames::HELLO.as_bytes()) })));
    all.push(Box::pin(statuses(app.engine.clone())));
    for wanted in wanted_views(query) {
        all.push(Box::pin(watch(app.engine.clone(), wanted)));
    }
    Ok(super::subscribe::event_stream(all))
}

/// A view and the column that says which of its rows matter most.
#[derive(Debug, PartialEq)]
struct Wanted {
    view: String,
    order: Option<String>,
}

/// An `order` belongs to the `view` before it.
fn wanted_views(query: Vec<(String, String)>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (key, value) in query {
        if key == "view" && wanted.len() < VIEW_LIMIT {
            wanted.push(Wanted { view: value, order: None });
        } else if key == "order"
            && let Some(last) = wanted.last_mut()
        {
            last.order = Some(value);
        }
    }
    wanted
}

fn statuses(engine: Engine) -> impl Stream<Item = Bytes> + Send {
    let mut ticks = tokio::time::interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    stream::unfold((ticks, engine), |(mut ticks, engine)| async move {
        ticks.tick().await;
        let event = status_event(&engine);
        Some((event, (ticks, engine)))
    })
}

fn status_event(engine: &Engine) -> Bytes {
    match serde_json::to_string(&status_json(&engine.status(), true)) {
        Ok(json) => format!("event: status\ndata: {json}\n\n").into(),
        // Plain data always has a JSON form; a client loses nothing by waiting for the next one.
        Err(_) => Bytes::from_static(frames::HEARTBEAT.as_bytes()),
    }
}

fn watch(engine: Engine, wanted: Wanted) -> impl Stream<Item = Bytes> + Send {
    let watcher = Watcher { engine, wanted, subscription: None, next_turn: Instant::now() };
    stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.event().await;
        Some((event, watcher))
    })
}

/// One view being watched. It never ends by itself: a view that goes away may come back.
struct Watcher {
    engine: Engine,
    wanted: Wanted,
    subscription: Option<Subscription>,
    next_turn: Instant,
}

impl Watcher {
    async fn event(&mut self) -> Bytes {
        loop {
            tokio::time::sleep_until(self.next_turn).await;
            let change = self.collect().await.and_then(Collected::merge);
            self.next_turn = Instant::now() + PACE;
            match change {
                Ok(change) if must_begin_anew(&change) => {
                    self.subscription = None;
                    self.next_turn = Instant::now() + SNAPSHOT_PACE;
                }
                Ok(change) => match row_event(&self.wanted, &change) {
                    Ok(event) => return event,
                    Err(error) => return self.lost(&error),
                },
                Err(error) => return self.lost(&error),
            }
        }
    }

    /// Either the view is gone, or this reader was too slow for it: both begin anew.
    fn lost(&mut self, error: &SqlError) -> Bytes {
        self.subscription = None;
        self.next_turn = Instant::now() + RETRY;
        let data = serde_json::json!({ "view": self.wanted.view, "error": to_json(error) });
        format!("event: lost\ndata: {data}\n\n").into()
    }

    /// Waits for a change and adds those that follow at once.
    async fn collect(&mut self) -> Result<Collected, SqlError> {
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            None => self.subscription.insert(self.engine.subscribe(&self.wanted.view, SubscribeFrom::Snapshot)?),
        };
        let gone = || SqlError::new(tidemill_engine::state::UNDEFINED_TABLE, "the view is gone");
        let mut collected = Collected::from(subscription.next().await?.ok_or_else(gone)?);
        while collected.rows < COLLECT_ROWS {
            match subscription.next().now_or_never() {
                Some(change) => collected.add(change?.ok_or_else(gone)?),
                None => break,
            }
        }
        Ok(collected)
    }
}

/// Changes that will be told as one.
struct Collected {
    epoch: Epoch,
    snapshot: bool,
    rows: usize,
    deltas: Vec<Delta>,
}

impl From<Change> for Collected {
    fn from(change: Change) -> Self {
        Collected {
            epoch: change.epoch,
            snapshot: change.snapshot,
            rows: change.delta.len(),
            deltas: vec![change.delta],
        }
    }
}

impl Collected {
    fn add(&mut self, change: Change) {
        self.epoch = change.epoch;
        self.rows += change.delta.len();
        self.deltas.push(change.delta);
    }

    /// The sum of the changes.
    fn merge(self) -> Result<Change, SqlError> {
        let delta = match &self.deltas[..] {
            [one] => one.clone(),
            many => {
                let schema = many[0].rows.schema();
                tidemill_delta::consolidate(&schema, many).map_err(|e| SqlError::internal(e.to_string()))?
            }
        };
        Ok(Change { epoch: self.epoch, delta, snapshot: self.snapshot })
    }
}

/// Of many changes only some can be sent, but a row taken back must not stay on the page: then a
/// new snapshot says less and is right.
fn must_begin_anew(change: &Change) -> bool {
    !change.snapshot && change.delta.len() > ROW_LIMIT && change.delta.has_retractions()
}

fn row_event(wanted: &Wanted, change: &Change) -> Result<Bytes, SqlError> {
    let sent = top_rows(&change.delta, wanted.order.as_deref())?;
    let mut out = String::with_capacity(128 + sent.len() * 96);
    out.push_str("event: rows\ndata: {\"view\":");
    json_string(&wanted.view, &mut out);
    let Change { epoch, snapshot, delta } = change;
    out.push_str(&format!(",\"epoch\":{epoch},\"snapshot\":{snapshot},\"total\":{},", delta.len()));
    frames::write_rows(&sent, &mut out);
    out.push_str("}\n\n");
    Ok(out.into())
}

/// At most as many rows as a page can use: those with the largest values of a column.
fn top_rows(delta: &Delta, order: Option<&str>) -> Result<Delta, SqlError> {
    if delta.len() <= ROW_LIMIT {
        return Ok(delta.clone());
    }
    let Some(column) = order.and_then(|o| delta.rows.column_by_name(o)) else {
        return Ok(delta.slice(0, ROW_LIMIT));
    };
    let options = SortOptions { descending: true, nulls_first: false };
    let failed = |e: ArrowError| SqlError::internal(format!("cannot sort: {e}"));
    let rows = sort_to_indices(column, Some(options), Some(ROW_LIMIT)).map_err(failed)?;
    delta.take(&rows).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn wanted(order: Option<&str>) -> Wanted {
        Wanted { view: "v".into(), order: order.map(str::to_owned) }
    }

    #[test]
    fn an_order_belongs_to_the_view_before_it() {
        let pairs = [("order", "x"), ("view", "v"), ("order", "a"), ("view", "w"), ("other", "1")];
        let views = wanted_views(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec());
        assert_eq!(views, [wanted(Some("a")), Wanted { view: "w".into(), order: None }]);
    }

    fn delta(values: Vec<i64>, diffs: Vec<i64>) -> Delta {
        let a: ArrayRef = Arc::new(Int64Array::from(values));
        Delta::new(RecordBatch::try_from_iter([("a", a)]).expect("batch"), Int64Array::from(diffs))
    }

    #[test]
    fn collected_changes_cancel_out() {
        let mut collected =
            Collected::from(Change { epoch: 4, delta: delta(vec![1, 2], vec![-1, 1]), snapshot: false });
        collected.add(Change { epoch: 5, delta: delta(vec![2, 3], vec![-1, 1]), snapshot: false });
        let event = row_event(&wanted(None), &collected.merge().expect("merged")).expect("event");
        let expected = "event: rows\ndata: {\"view\":\"v\",\"epoch\":5,\"snapshot\":false,\"total\":2,\
                        \"rows\":[{\"a\":1},{\"a\":3}],\"diffs\":[-1,1]}\n\n";
        assert_eq!(std::str::from_utf8(&event).expect("UTF-8"), expected);
    }

    #[test]
    fn rows_taken_back_are_never_left_out() {
        let n = ROW_LIMIT as i64 + 1;
        let many = |diff| Change { epoch: 1, delta: delta((0..n).collect(), vec![diff; n as usize]), snapshot: false };
        assert!(must_begin_anew(&many(-1)));
        assert!(!must_begin_anew(&many(1)));
        assert!(!must_begin_anew(&Change { snapshot: true, ..many(-1) }));
    }

    #[test]
    fn large_snapshots_are_cut_and_say_how_large_they_are() {
        let n = ROW_LIMIT as i64 + 10;
        let change = Change { epoch: 1, delta: delta((0..n).collect(), vec![1; n as usize]), snapshot: true };
        let event = row_event(&wanted(Some("a")), &change).expect("event");
        let text = std::str::from_utf8(&event).expect("UTF-8");
        assert!(text.contains(&format!("{{\"a\":{}}}", n - 1)) && !text.contains("{\"a\":0}"));
        assert!(text.contains(&format!("\"total\":{n},")));
        assert_eq!(text.matches("{\"a\"").count(), ROW_LIMIT);
    }
}
