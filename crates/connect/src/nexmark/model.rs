//! The model of the Nexmark stream: which random numbers are drawn, in which order, and what they mean.
//!
//! The draws are exactly those of the benchmark's file generator, so that a seed gives the very same
//! events here and there. A value that nobody asked for is not built, but its numbers are drawn.

use std::sync::Arc;

use super::columns::{Column, Columns};
use super::options::Options;
use crate::SourceError;

const FIRST_AUCTION: u64 = 1000;
/// The id of the first person, and by default of the first bidder.
pub(super) const FIRST_PERSON: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// How far past the newest id a reference may point.
const LEAD: u64 = 10;
/// One in this many auctions, sellers or bidders can be the hot one.
const HOT_EVERY: u64 = 100;
const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

/// Random letters that padding is cut from.
const PADDING: usize = 1 << 20;
/// What one step adds to the state of [`Rng`].
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64: tiny, fast and the same everywhere. Its state is a counter, so numbers can be skipped.
#[derive(Clone, Copy)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Draws `n` numbers that nobody looks at.
    #[inline]
    fn skip(&mut self, n: u64) {
        self.0 = self.0.wrapping_add(GAMMA.wrapping_mul(n));
    }

    /// A number in `0..n`.
    #[inline]
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    #[inline]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Lower-case letters, now and then `special`; 3 to `limit - 1` characters before trimming.
    fn word(&mut self, limit: u64, special: u8, into: &mut Vec<u8>) {
        let start = into.len();
        for _ in 0..3 + self.below(limit - 3) {
            let byte = if self.below(13) == 0 { special } else { b'a' + self.below(26) as u8 };
            if byte == b' ' && into.len() == start {
                continue;
            }
            into.push(byte);
        }
        while into.len() > start && into.last() == Some(&b' ') {
            into.pop();
        }
    }

    /// Draws a word with blanks, and tells only its length.
    fn word_length(&mut self, limit: u64) -> usize {
        let (mut length, mut trimmed) = (0, 0);
        for _ in 0..3 + self.below(limit - 3) {
            if self.below(13) == 0 {
                length += usize::from(length > 0);
            } else {
                self.skip(1);
                length += 1;
                trimmed = length;
            }
        }
        trimmed
    }

    /// A word with blanks into a column, if it is asked for; its length in any case.
    fn word_into(&mut self, limit: u64, into: Option<&mut Vec<u8>>) -> usize {
        match into {
            None => self.word_length(limit),
            Some(into) => {
                let start = into.len();
                self.word(limit, b' ', into);
                into.len() - start
            }
        }
    }
}

/// Prices are log-uniform between 100 and 100 000 000.
fn price(unit: f64) -> u64 {
    (10f64.powf(unit * 6.0) * 100.0).round() as u64
}

/// What kind of event; the number is its `event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Auction,
    Bid,
}

/// What all partitions share: texts drawn before the first event.
pub(super) struct Model {
    pub(super) options: Options,
    padding: Vec<u8>,
    hot_urls: Vec<Vec<u8>>,
    channel_urls: Vec<Vec<u8>>,
    /// The random numbers as the first event finds them.
    start: Rng,
}

impl Model {
    pub(super) fn new(options: Options) -> Self {
        let mut rng = Rng(options.seed);
        let padding = (0..PADDING).map(|_| b'a' + rng.below(26) as u8).collect();
        let hot_urls = HOT_CHANNELS.iter().map(|_| url(&mut rng)).collect();
        let channel_urls = (0..CHANNELS).map(|channel| channel_url(channel, &mut rng)).collect();
        Model { options, padding, hot_urls, channel_urls, start: rng }
    }

    #[inline]
    fn time(&self, id: u64) -> u64 {
        self.options.base_time_ms + id * 1000 / self.options.rate
    }
}

fn channel_url(channel: u64, rng: &mut Rng) -> Vec<u8> {
    let mut text = url(rng);
    if rng.below(10) > 0 {
        let id = ((channel as u32).reverse_bits() as i32).unsigned_abs();
        text.extend_from_slice(format!("&channel_id={id}").as_bytes());
    }
    text
}

fn url(rng: &mut Rng) -> Vec<u8> {
    let mut text = b"https://www.nexmark.com/".to_vec();
    for _ in 0..3 {
        rng.word(5, b'_', &mut text);
        text.push(b'/');
    }
    text.extend_from_slice(b"item.htm?query=1");
    text
}

/// Where an event stands in the stream.
#[derive(Clone, Copy)]
struct Place {
    id: u64,
    /// The base-0 id of the newest person.
    person: u64,
    /// The base-0 id of the newest auction; without meaning for people.
    auction: u64,
}

/// Makes events one after the other.
pub(super) struct Generator {
    model: Arc<Model>,
    rng: Rng,
    /// The next event's number.
    number: u64,
    /// How far the last auction's opening time may be ahead of an auction's.
    ahead: u64,
}

impl Generator {
    pub(super) fn new(model: Arc<Model>) -> Self {
        let o = &model.options;
        let ahead = o.in_flight_auctions * o.epoch() / o.auction_share;
        Generator { rng: model.start, number: 0, ahead, model }
    }

    /// The next event's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Where the next event begins, as text.
    pub(super) fn position(&self, rows: usize) -> String {
        format!("{} {} {rows}", self.number, self.rng.0)
    }

    /// Goes to what [`Generator::position`] gave; returns its rows.
    pub(super) fn seek(&mut self, position: &str) -> Result<usize, SourceError> {
        let wrong = || SourceError(format!("'{position}' is not a position in a nexmark stream"));
        let parts: Vec<u64> = position.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let [number, state, rows] = parts[..] else { return Err(wrong()) };
        (self.number, self.rng) = (number, Rng(state));
        Ok(rows as usize)
    }

    /// The kind of the next event.
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        let o = &self.model.options;
        self.kind_at(self.id() % o.epoch())
    }

    #[inline]
    fn kind_at(&self, within: u64) -> Kind {
        let o = &self.model.options;
        if within < o.person_share {
            Kind::Person
        } else if within < o.person_share + o.auction_share {
            Kind::Auction
        } else {
            Kind::Bid
        }
    }

    #[inline]
    fn id(&self) -> u64 {
        match self.model.options.out_of_order_group {
            1 => self.number,
            group => self.number / group * group + self.number * 953 % group,
        }
    }

    /// Makes the next event, and puts what is asked for into `row`.
    #[inline]
    pub(super) fn event(&mut self, row: usize, out: &mut Columns) -> Kind {
        let id = self.id();
        self.number += 1;
        let o = &self.model.options;
        let (epoch, within) = (id / o.epoch(), id % o.epoch());
        let kind = self.kind_at(within);
        let place = Place {
            id,
            person: epoch * o.person_share + within.min(o.person_share - 1),
            auction: epoch * o.auction_share + within.saturating_sub(o.person_share).min(o.auction_share - 1),
        };
        let at = if out.wants_time { self.model.time(id) } else { 0 };
        out.time(Column::Time, row, at);
        match kind {
            Kind::Person => self.person(place, at, row, out),
            Kind::Auction => self.auction(place, at, row, out),
            Kind::Bid => self.bid(place, at, row, out),
        }
        kind
    }

    #[inline]
    fn any_person(&mut self, place: Place) -> u64 {
        let people = place.person + 1;
        let active = people.min(self.model.options.active_people);
        people - active + self.rng.below(active + LEAD)
    }

    #[inline]
    fn any_auction(&mut self, place: Place) -> u64 {
        let newest = place.auction;
        let oldest = newest.saturating_sub(self.model.options.in_flight_auctions);
        oldest + self.rng.below(newest - oldest + 1 + LEAD)
    }

    /// Letters that bring a record of `size` bytes to about `average`, give or take a fifth.
    #[inline]
    fn extra(&mut self, size: usize, average: usize, into: Option<&mut Vec<u8>>) {
        if size > average {
            return;
        }
        let wanted = average - size;
        let slack = (wanted as f64 * 0.2).round() as usize;
        let Some(into) = into else {
            self.rng.skip(1 + u64::from(slack > 0));
            return;
        };
        let mut length = wanted - slack;
        if slack > 0 {
            length += self.rng.below(2 * slack as u64) as usize;
        }
        let padding = &self.model.padding;
        let at = self.rng.below((padding.len() - length) as u64) as usize;
        into.extend_from_slice(&padding[at..at + length]);
    }

    fn person(&mut self, place: Place, at: u64, row: usize, out: &mut Columns) {
        out.number(Column::PersonId, row, FIRST_PERSON + place.person);
        let (first, last) = (self.rng.pick(&FIRST_NAMES), self.rng.pick(&LAST_NAMES));
        if let Some(name) = out.text(Column::PersonName, row) {
            name.extend_from_slice(first.as_bytes());
            name.push(b' ');
            name.extend_from_slice(last.as_bytes());
        }
        let mut size = 8 + first.len() + 1 + last.len();
        size += self.email(out.text(Column::PersonEmail, row));
        self.credit_card(out.text(Column::PersonCard, row));
        size += 19;
        let city = self.rng.pick(&CITIES);
        out.string(Column::PersonCity, row, city);
        let state = self.rng.pick(&STATES);
        out.string(Column::PersonState, row, state);
        size += city.len() + state.len();
        out.time(Column::PersonTime, row, at);
        self.extra(size, self.model.options.person_bytes, out.text(Column::PersonExtra, row));
    }

    /// Returns its length.
    fn email(&mut self, mut into: Option<&mut Vec<u8>>) -> usize {
        let mut length = self.rng.word_into(7, into.as_deref_mut());
        if let Some(into) = &mut into {
            into.push(b'@');
        }
        length += self.rng.word_into(5, into.as_deref_mut());
        if let Some(into) = &mut into {
            into.extend_from_slice(b".com");
        }
        length + 5
    }

    fn credit_card(&mut self, into: Option<&mut Vec<u8>>) {
        let Some(into) = into else { return self.rng.skip(4) };
        for group in 0..4 {
            if group > 0 {
                into.push(b' ');
            }
            let digits = self.rng.below(10_000);
            into.extend([1000, 100, 10, 1].map(|place| b'0' + (digits / place % 10) as u8));
        }
    }

    fn auction(&mut self, place: Place, at: u64, row: usize, out: &mut Columns) {
        let seller = if self.rng.below(self.model.options.hot_seller_ratio) > 0 {
            place.person / HOT_EVERY * HOT_EVERY
        } else {
            self.any_person(place)
        };
        out.number(Column::AuctionId, row, FIRST_AUCTION + place.auction);
        out.number(Column::AuctionSeller, row, FIRST_PERSON + seller);
        out.number(Column::AuctionCategory, row, FIRST_CATEGORY + self.rng.below(CATEGORIES));
        self.opening_prices(row, out);
        if out.wants(Column::AuctionExpires) {
            // An auction is open, on average, until as many more as may be in flight have opened.
            let horizon = self.model.time(place.id + self.ahead) - at;
            out.time(Column::AuctionExpires, row, at + 1 + self.rng.below((horizon * 2).max(1)));
        } else {
            self.rng.skip(1);
        }
        let mut size = 8 + self.rng.word_into(20, out.text(Column::AuctionItem, row));
        size += self.rng.word_into(100, out.text(Column::AuctionDescription, row)) + 40;
        out.time(Column::AuctionTime, row, at);
        self.extra(size, self.model.options.auction_bytes, out.text(Column::AuctionExtra, row));
    }

    fn opening_prices(&mut self, row: usize, out: &mut Columns) {
        let (initial, more) = (self.rng.unit(), self.rng.unit());
        if out.wants(Column::AuctionInitialBid) || out.wants(Column::AuctionReserve) {
            let initial = price(initial);
            out.number(Column::AuctionInitialBid, row, initial);
            if out.wants(Column::AuctionReserve) {
                out.number(Column::AuctionReserve, row, initial + price(more));
            }
        }
    }

    #[inline]
    fn bid(&mut self, place: Place, at: u64, row: usize, out: &mut Columns) {
        let auction = if self.rng.below(self.model.options.hot_auction_ratio) > 0 {
            place.auction / HOT_EVERY * HOT_EVERY
        } else {
            self.any_auction(place)
        };
        // The hot bidder is the person after the hot seller, so that the two never meet.
        let bidder = if self.rng.below(self.model.options.hot_bidder_ratio) > 0 {
            place.person / HOT_EVERY * HOT_EVERY + 1
        } else {
            self.any_person(place)
        };
        out.number(Column::BidAuction, row, FIRST_AUCTION + auction);
        out.number(Column::BidBidder, row, self.model.options.bidder_offset + bidder);
        let unit = self.rng.unit();
        if out.wants(Column::BidPrice) {
            out.number(Column::BidPrice, row, price(unit));
        }
        self.channel(row, out);
        out.time(Column::BidTime, row, at);
        self.extra(32, self.model.options.bid_bytes, out.text(Column::BidExtra, row));
    }

    #[inline]
    fn channel(&mut self, row: usize, out: &mut Columns) {
        if !out.wants(Column::BidChannel) && !out.wants(Column::BidUrl) {
            // Which channel takes two numbers, hot or not.
            return self.rng.skip(2);
        }
        if self.rng.below(2) > 0 {
            let hot = self.rng.below(HOT_CHANNELS.len() as u64) as usize;
            out.string(Column::BidChannel, row, HOT_CHANNELS[hot]);
            if let Some(url) = out.text(Column::BidUrl, row) {
                url.extend_from_slice(&self.model.hot_urls[hot]);
            }
        } else {
            let channel = self.rng.below(CHANNELS);
            if let Some(name) = out.text(Column::BidChannel, row) {
                name.extend_from_slice(b"channel-");
                put_number(name, channel);
            }
            if let Some(url) = out.text(Column::BidUrl, row) {
                url.extend_from_slice(&self.model.channel_urls[channel as usize]);
            }
        }
    }
}

/// Appends a channel's number; there are 10 000, so four digits do.
fn put_number(into: &mut Vec<u8>, n: u64) {
    for place in [1000, 100, 10] {
        if n >= place {
            into.push(b'0' + (n / place % 10) as u8);
        }
    }
    into.push(b'0' + (n % 10) as u8);
}
