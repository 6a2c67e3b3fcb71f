//! `GET /v1/subscribe/{view}`: a relation's rows and then its changes, as Server-Sent Events.
//!
//! Every event's `id:` is the epoch it brings the reader to. A reader that comes back with
//! `Last-Event-ID` (browsers do by themselves) or `?after=` goes on from there without gap or
//! duplicate, or gets status 410 when those changes are no longer kept.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{self, Stream};
use serde::Deserialize;
use tidemill_delta::Epoch;
use tidemill_engine::{Change, Engine, SqlError, SubscribeFrom, Subscription, state};

use super::App;
use super::error::{ApiError, status_of};
use super::frames::{self, Parts};

/// How long nothing changes until a reader is told how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// After how many quiet intervals without progress a heartbeat goes out.
const HEARTBEAT_INTERVALS: u32 = 10;

/// How long a position ahead of the engine is waited for: a reader may have it from an ingest receipt
/// that is not published yet.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);

/// The query string.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Options {
    /// Whether the rows as of now come first.
    snapshot: Option<bool>,
    /// Changes after this epoch only.
    after: Option<Epoch>,
}

/// Opens a subscription.
pub(crate) async fn subscribe(
    State(app): State<App>,
    view: Result<Path<String>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (Query(options), Path(view)) = (options?, view?);
    let from = starting_point(&options, &headers)?;
    let feed = Feed::open(&app.engine, &view, from).await?;
    Ok(event_stream(feed.into_stream()))
}

/// A response of Server-Sent Events.
pub(crate) fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let events = futures::StreamExt::map(events, Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // Asks proxies not to collect events before they pass them on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

/// A reconnecting browser repeats the address it was given, so the header counts before the query.
fn starting_point(options: &Options, headers: &HeaderMap) -> Result<SubscribeFrom, ApiError> {
    if let Some(last) = headers.get("last-event-id") {
        let epoch = last.to_str().ok().and_then(|l| l.trim().parse().ok());
        let error = || ApiError::malformed("Last-Event-ID must be an epoch: the id of an event seen before");
        return Ok(SubscribeFrom::After(epoch.ok_or_else(error)?));
    }
    Ok(match (options.after, options.snapshot) {
        (Some(epoch), _) => SubscribeFrom::After(epoch),
        (None, Some(false)) => SubscribeFrom::Now,
        (None, _) => SubscribeFrom::Snapshot,
    })
}

/// One reader's stream under way.
struct Feed {
    subscription: Subscription,
    parts: Option<Parts>,
    /// Changes that came before the response began.
    first: Option<Change>,
    greeted: bool,
    /// The last epoch told to the reader.
    told: Epoch,
    quiet: u32,
    ended: bool,
}

impl Feed {
    async fn open(engine: &Engine, view: &str, from: SubscribeFrom) -> Result<Feed, ApiError> {
        if let SubscribeFrom::After(epoch) = from {
            reachable(engine, epoch).await?;
        }
        let mut subscription = engine.subscribe(view, from).map_err(|e| refusal(e, from))?;
        // A position that is no longer kept must be told as a status, so look before the head goes out.
        let first = match subscription.next().now_or_never() {
            Some(Err(error)) => return Err(refusal(error, from)),
            Some(Ok(change)) => change,
            None => None,
        };
        let told = match from {
            SubscribeFrom::After(epoch) => epoch,
            SubscribeFrom::Snapshot | SubscribeFrom::Now => 0,
        };
        Ok(Feed { subscription, parts: None, first, greeted: false, told, quiet: 0, ended: false })
    }

    fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut feed| async move { feed.event().await.map(|event| (event, feed)) })
    }

    /// The next event; `None` after the last.
    async fn event(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(frames::HELLO.as_bytes()));
        }
        while !self.ended {
            if let Some(event) = self.part() {
                return Some(event);
            }
            let change = match self.first.take() {
                Some(change) => Ok(Ok(Some(change))),
                None => tokio::time::timeout(PROGRESS_EVERY, self.subscription.next()).await,
            };
            match change {
                Ok(Ok(Some(change))) if change.snapshot || !change.delta.is_empty() => {
                    self.quiet = 0;
                    self.parts = Some(Parts::new(change));
                }
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return self.finish(frames::end()),
                Ok(Err(error)) => return self.finish(frames::failure(&error)),
                Err(_) => {
                    if let Some(event) = self.nothing_new() {
                        return Some(event);
                    }
                }
            }
        }
        None
    }

    fn part(&mut self) -> Option<Bytes> {
        let parts = self.parts.as_mut()?;
        let event = parts.next_event();
        if event.is_none() {
            self.told = parts.epoch();
            self.parts = None;
        }
        event
    }

    fn nothing_new(&mut self) -> Option<Bytes> {
        let position = self.subscription.position();
        if position > self.told {
            (self.told, self.quiet) = (position, 0);
            return Some(frames::progress(position));
        }
        self.quiet += 1;
        if self.quiet < HEARTBEAT_INTERVALS {
            return None;
        }
        self.quiet = 0;
        Some(Bytes::from_static(frames::HEARTBEAT.as_bytes()))
    }

    fn finish(&mut self, last: Bytes) -> Option<Bytes> {
        self.ended = true;
        Some(last)
    }
}

/// Refuses positions that this engine has never reached, as after a restart with an empty data directory.
async fn reachable(engine: &Engine, epoch: Epoch) -> Result<(), ApiError> {
    if epoch <= engine.epoch() {
        return Ok(());
    }
    match tokio::time::timeout(AHEAD_PATIENCE, engine.wait_for(epoch)).await {
        Ok(reached) => Ok(reached?),
        Err(_) => {
            let message = format!("epoch {epoch} is ahead of the server, which is at {}", engine.epoch());
            Err(gone(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)))
        }
    }
}

/// What an error of `subscribe` means for a reader that asked for a position.
fn refusal(error: SqlError, from: SubscribeFrom) -> ApiError {
    let lost = matches!(from, SubscribeFrom::After(_)) && status_of(&error) == StatusCode::BAD_REQUEST;
    if lost && error.code != state::WRONG_OBJECT_TYPE { gone(error) } else { error.into() }
}

fn gone(mut error: SqlError) -> ApiError {
    error.hint.get_or_insert_with(|| "subscribe again without a position to begin with a new snapshot".into());
    ApiError::new(StatusCode::GONE, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(last: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static("last-event-id"), last.parse().expect("value"))])
    }

    #[test]
    fn the_header_counts_before_the_query() {
        let options = Options { snapshot: None, after: Some(3) };
        let from = starting_point(&options, &headers("8")).expect("position");
        assert_eq!(from, SubscribeFrom::After(8));
        assert_eq!(starting_point(&options, &HeaderMap::new()).expect("position"), SubscribeFrom::After(3));
    }

    #[test]
    fn a_snapshot_comes_first_unless_declined() {
        let none = HeaderMap::new();
        assert_eq!(starting_point(&Options::default(), &none).expect("position"), SubscribeFrom::Snapshot);
        let options = Options { snapshot: Some(false), after: None };
        assert_eq!(starting_point(&options, &none).expect("position"), SubscribeFrom::Now);
    }

    #[test]
    fn odd_positions_are_refused() {
        let error = starting_point(&Options::default(), &headers("-1")).expect_err("refused");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_lost_position_is_gone_and_a_missing_view_not_found() {
        let lost = || SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, "no longer kept");
        assert_eq!(refusal(lost(), SubscribeFrom::After(1)).status(), StatusCode::GONE);
        assert_eq!(refusal(lost(), SubscribeFrom::Now).status(), StatusCode::BAD_REQUEST);
        let missing = SqlError::new(state::UNDEFINED_TABLE, "no such view");
        assert_eq!(refusal(missing, SubscribeFrom::After(1)).status(), StatusCode::NOT_FOUND);
    }
}
