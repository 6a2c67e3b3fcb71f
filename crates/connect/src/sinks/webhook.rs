//! Changes as HTTP requests: at least once, in order per key.
//!
//! An epoch's changes are cut into requests, always in the same way: rows taken back come before new ones, otherwise they
//! are sorted, and each lane has at most `batch_rows` rows in a request. So `Idempotency-Key`, which is
//! `<sink>-<epoch>-<number>`, names the same rows whenever a request is sent again. A lane has the keys that hash to it,
//! and sends one request after another.
//!
//! A request that the endpoint cannot take now (no answer, 408, 425, 429, 5xx) stays at the head of its lane and is sent
//! again. When a lane has failed for `retry_for` without any success, all that it has is rejected; from then on each
//! commit makes one attempt, until one succeeds. What the endpoint refuses for good (any other 3xx and 4xx) is
//! rejected alone.

mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch, consolidate, hash_rows};
use tidemill_env::Env;

use self::request::{Answer, Endpoint, Request};
use crate::options::Options;
use crate::sink::{Opening, Pace, Rejected, Sink, SinkError};

/// Sends requests to an endpoint.
pub struct WebhookSink {
    name: String,
    endpoint: Endpoint,
    schema: SchemaRef,
    key: Vec<usize>,
    batch_rows: usize,
    interval: Duration,
    retry_for: Duration,
    env: Env,
    /// Changes that are not yet cut into requests, by epoch.
    waiting: Vec<(Epoch, Vec<Delta>)>,
    lanes: Vec<Lane>,
    rejected: Vec<Rejected>,
}

/// Requests that go one after another.
#[derive(Default)]
struct Lane {
    requests: VecDeque<Request>,
    /// Since when no request has succeeded, though some were sent.
    failing_since: Option<u64>,
}

/// Why a lane could not go on.
struct Stuck {
    reason: String,
    after: Option<Duration>,
}

impl WebhookSink {
    /// A sink from its options: `url`, `secret`, `token`, `key`, `concurrency`, `batch_rows`, `retry_for`, `timeout`,
    /// `commit_interval`.
    pub fn new(
        name: &str,
        options: &[(String, String)],
        schema: &SchemaRef,
        env: &Env,
    ) -> Result<WebhookSink, SinkError> {
        let mut options = Options::new(options);
        let endpoint = Endpoint::new(name, &mut options, env)?;
        let key = options.columns("key", schema)?;
        let lanes = options.number("concurrency", if key.is_empty() { 1 } else { 4 }, 1..=32)?;
        if lanes > 1 && key.is_empty() {
            return Err(SinkError::fatal(
                "option \"concurrency\" needs option \"key\": the columns whose order is kept",
            ));
        }
        let batch_rows = options.number("batch_rows", 500, 1..=100_000)?;
        let retry_for = options.duration("retry_for", Duration::from_secs(300))?;
        let interval = options.duration("commit_interval", super::COMMIT_INTERVAL)?;
        options.finish()?;
        Ok(WebhookSink {
            name: name.to_owned(),
            endpoint,
            schema: tidemill_delta::relaxed(schema),
            key,
            batch_rows,
            interval,
            retry_for,
            env: env.clone(),
            waiting: Vec::new(),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            rejected: Vec::new(),
        })
    }

    /// Cuts all that waits into requests.
    fn cut(&mut self) -> Result<(), SinkError> {
        let failed = |e: arrow::error::ArrowError| SinkError::Fatal(e.to_string());
        for (epoch, deltas) in std::mem::take(&mut self.waiting) {
            let delta = consolidate(&self.schema, &deltas).map_err(failed)?;
            let lane_of = self.lanes_of(&delta).map_err(failed)?;
            let mut number = 0;
            for (lane, queue) in self.lanes.iter_mut().enumerate() {
                let mine = (0..delta.len() as u32).filter(|i| lane_of.get(*i as usize).is_none_or(|l| *l == lane));
                let (gone, new): (Vec<u32>, Vec<u32>) = mine.partition(|i| delta.weight(*i as usize) < 0);
                let order = [gone, new].concat();
                for rows in order.chunks(self.batch_rows) {
                    number += 1;
                    let delta = delta.take(&UInt32Array::from(rows.to_vec())).map_err(failed)?;
                    let key = format!("{}-{epoch}-{number}", self.name);
                    queue.requests.push_back(Request { epoch, key, delta, attempts: 0 });
                }
            }
        }
        Ok(())
    }

    /// The lane of each row; none if there is but one.
    fn lanes_of(&self, delta: &Delta) -> Result<Vec<usize>, arrow::error::ArrowError> {
        if self.lanes.len() == 1 {
            return Ok(Vec::new());
        }
        let mut hashes = Vec::new();
        hash_rows(&delta.rows, &self.key, &mut hashes)?;
        Ok(hashes.into_iter().map(|hash| (hash % self.lanes.len() as u64) as usize).collect())
    }

    /// Sends what the lanes have, side by side; tells what each could not.
    fn send(&mut self) -> Vec<Option<Stuck>> {
        let endpoint = &self.endpoint;
        let busy = self.lanes.iter().filter(|lane| !lane.requests.is_empty()).count();
        let sent: Vec<(Vec<Rejected>, Option<Stuck>)> = if busy <= 1 {
            self.lanes.iter_mut().map(|lane| lane.send(endpoint)).collect()
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    self.lanes.iter_mut().map(|lane| scope.spawn(move || lane.send(endpoint))).collect();
                let panicked = || Some(Stuck { reason: "a request failed by a bug".into(), after: None });
                threads.into_iter().map(|t| t.join().unwrap_or_else(|_| (Vec::new(), panicked()))).collect()
            })
        };
        let mut stuck = Vec::with_capacity(sent.len());
        for (rejected, why) in sent {
            self.rejected.extend(rejected);
            stuck.push(why);
        }
        stuck
    }
}

impl Lane {
    /// Sends requests until one has to wait.
    fn send(&mut self, endpoint: &Endpoint) -> (Vec<Rejected>, Option<Stuck>) {
        let mut rejected = Vec::new();
        while let Some(mut request) = self.requests.pop_front() {
            request.attempts += 1;
            match endpoint.post(&request) {
                Answer::Taken => self.failing_since = None,
                Answer::Refused(reason) => {
                    self.failing_since = None;
                    rejected.push(request.rejected(&reason));
                }
                Answer::Later { reason, after } => {
                    self.requests.push_front(request);
                    return (rejected, Some(Stuck { reason, after }));
                }
            }
        }
        (rejected, None)
    }
}

impl Sink for WebhookSink {
    fn open(&mut self, opening: Opening) -> Result<Option<Epoch>, SinkError> {
        self.endpoint.incarnation = opening.incarnation;
        Ok(None)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        match self.waiting.last_mut() {
            Some((last, deltas)) if *last == epoch => deltas.push(delta.clone()),
            _ => self.waiting.push((epoch, vec![delta.clone()])),
        }
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch) -> Result<(), SinkError> {
        self.cut()?;
        let stuck = self.send();
        let now = self.env.monotonic_nanos();
        let mut again: Option<Stuck> = None;
        for (lane, why) in self.lanes.iter_mut().zip(stuck) {
            let Some(why) = why else { continue };
            let since = *lane.failing_since.get_or_insert(now);
            if Duration::from_nanos(now.saturating_sub(since)) < self.retry_for {
                let after = again.as_ref().map_or(why.after, |other| why.after.max(other.after));
                again = Some(Stuck { after, ..why });
                continue;
            }
            let reason = format!("given up after {} s: {}", self.retry_for.as_secs_f64(), why.reason);
            self.rejected.extend(lane.requests.drain(..).map(|request| request.rejected(&reason)));
        }
        again.map_or(Ok(()), |why| Err(SinkError::Retry { reason: why.reason, after: why.after }))
    }

    fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    fn pace(&self) -> Pace {
        // It gives up by itself, a lane at a time.
        Pace { commit_interval: self.interval, local: false, retry_for: None }
    }
}
