//! What a Nexmark stream can be told, with the file generator's names and defaults.

#![allow(clippy::disallowed_methods, reason = "readers that make rows up pace themselves by the real clock")]

use std::fmt::Display;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::model::{FIRST_PERSON, Kind};
use crate::SourceError;

/// The options of a Nexmark stream.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// How many events; `None`: without end.
    pub(super) events: Option<u64>,
    pub(super) seed: u64,
    pub(super) partitions: u64,
    pub(super) base_time_ms: u64,
    /// Events per second of event time.
    pub(super) rate: u64,
    /// Events per second of real time, of all partitions together; 0: as fast as possible.
    pub(super) rate_limit: u64,
    pub(super) person_share: u64,
    pub(super) auction_share: u64,
    pub(super) bid_share: u64,
    pub(super) hot_auction_ratio: u64,
    pub(super) hot_bidder_ratio: u64,
    pub(super) hot_seller_ratio: u64,
    pub(super) active_people: u64,
    pub(super) in_flight_auctions: u64,
    pub(super) person_bytes: usize,
    pub(super) auction_bytes: usize,
    pub(super) bid_bytes: usize,
    pub(super) out_of_order_group: u64,
    pub(super) bidder_offset: u64,
    /// Only these events, as flat rows.
    pub(super) stream: Option<Kind>,
    /// Generate everything before the first row is handed out.
    pub(super) preload: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            events: Some(1_000_000),
            seed: 42,
            partitions: 1,
            base_time_ms: 1_704_067_200_000,
            rate: 10_000,
            rate_limit: 0,
            person_share: 1,
            auction_share: 3,
            bid_share: 46,
            hot_auction_ratio: 2,
            hot_bidder_ratio: 4,
            hot_seller_ratio: 4,
            active_people: 1000,
            in_flight_auctions: 100,
            person_bytes: 200,
            auction_bytes: 500,
            bid_bytes: 100,
            out_of_order_group: 1,
            bidder_offset: FIRST_PERSON,
            stream: None,
            preload: false,
        }
    }
}

impl Options {
    /// Events in an epoch of people, auctions and bids.
    pub(super) fn epoch(&self) -> u64 {
        self.person_share + self.auction_share + self.bid_share
    }

    /// The nominal size of an event, for progress.
    pub(super) fn event_bytes(&self) -> u64 {
        let people = self.person_share * self.person_bytes as u64;
        let auctions = self.auction_share * self.auction_bytes as u64;
        let bids = self.bid_share * self.bid_bytes as u64;
        (people + auctions + bids) / self.epoch()
    }

    /// Reads the `WITH` options.
    pub(super) fn parse(given: &[(String, String)]) -> Result<Self, SourceError> {
        let mut options = Options::default();
        let mut rate_given = false;
        for (key, value) in given {
            rate_given |= key == "rate";
            options.set(key, value)?;
        }
        if options.rate_limit > 0 && !rate_given {
            // Slowed down to real time, event time had better keep step with it.
            options.rate = options.rate_limit;
        }
        options.validate()?;
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SourceError> {
        match key {
            "connector" | "format" | "encode" => {}
            "events" => self.events = Some(number(key, value)?).filter(|n| *n > 0),
            "seed" => self.seed = number(key, value)?,
            "partitions" => self.partitions = number(key, value)?,
            "base_time_ms" => self.base_time_ms = base_time(value)?,
            "rate" => self.rate = number(key, value)?,
            "rate_limit" => self.rate_limit = number(key, value)?,
            "shares" => (self.person_share, self.auction_share, self.bid_share) = triple(key, value)?,
            "hot" => {
                (self.hot_auction_ratio, self.hot_bidder_ratio, self.hot_seller_ratio) = triple(key, value)?;
            }
            "active_people" => self.active_people = number(key, value)?,
            "in_flight" => self.in_flight_auctions = number(key, value)?,
            "sizes" => (self.person_bytes, self.auction_bytes, self.bid_bytes) = triple(key, value)?,
            "out_of_order" => self.out_of_order_group = number(key, value)?,
            "bidder_offset" => self.bidder_offset = number(key, value)?,
            "stream" => self.stream = Some(kind(value)?),
            "preload" => self.preload = value.parse().map_err(|_| wrong(key, value, "true or false"))?,
            _ => return Err(SourceError(format!("the connector 'nexmark' has no option '{key}'; it has {KEYS}"))),
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), SourceError> {
        let positive = [
            ("partitions", self.partitions),
            ("rate", self.rate),
            ("shares", self.person_share.min(self.auction_share)),
            ("hot", self.hot_auction_ratio.min(self.hot_bidder_ratio).min(self.hot_seller_ratio)),
            ("active_people", self.active_people),
            ("out_of_order", self.out_of_order_group),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, n)| *n == 0) {
            return Err(SourceError(format!("option '{key}' must be at least 1")));
        }
        if self.preload && self.events.is_none() {
            return Err(SourceError("option 'preload' needs an end: give 'events'".into()));
        }
        Ok(())
    }
}

const KEYS: &str = "events, seed, partitions, base_time_ms, rate, rate_limit, shares, hot, active_people, in_flight, \
                    sizes, out_of_order, bidder_offset, stream, preload";

fn wrong(key: &str, value: &str, wants: impl Display) -> SourceError {
    SourceError(format!("option '{key}' of the connector 'nexmark' is '{value}', which is not {wants}"))
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, SourceError> {
    value.trim().replace('_', "").parse().map_err(|_| wrong(key, value, "a whole number"))
}

fn triple<T: FromStr + Copy>(key: &str, value: &str) -> Result<(T, T, T), SourceError> {
    let parts: Vec<T> = value.split(',').map(|part| number(key, part)).collect::<Result<_, _>>()?;
    match parts[..] {
        [a, b, c] => Ok((a, b, c)),
        _ => Err(wrong(key, value, "three numbers with commas between")),
    }
}

fn kind(value: &str) -> Result<Kind, SourceError> {
    match value {
        "person" => Ok(Kind::Person),
        "auction" => Ok(Kind::Auction),
        "bid" => Ok(Kind::Bid),
        _ => Err(wrong("stream", value, "person, auction or bid")),
    }
}

/// `now` makes a demonstration's event times those of its viewers.
fn base_time(value: &str) -> Result<u64, SourceError> {
    match value {
        "now" => Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)),
        _ => number("base_time_ms", value),
    }
}
