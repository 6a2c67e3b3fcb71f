//! Messages that are valid but for a few bytes, between good ones.
//!
//! Whatever was done to a message's body: no panic, and every other message is read as it was sent. Whatever was done to
//! its length: the stream ends or a violation is told, and no more room is made than has come.
//!
//! `TIDEMILL_CASES` says how many messages are mutated, `TIDEMILL_SEED` which way.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests wait and measure by the real clock")]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::ReadBuf;

use super::*;

/// Messages of a stream.
const MESSAGES: usize = 24;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Bytes as a socket gives them, in pieces.
struct Pieces<'a> {
    left: &'a [u8],
    random: Random,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = (1 + self.random.below(200)).min(to.remaining()).min(self.left.len());
        let (now, later) = self.left.split_at(most);
        to.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

fn text(random: &mut Random) -> String {
    ["", "s", "a statement", "SELECT $1::int", "é😀"][random.below(5)].to_owned()
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(text.as_bytes());
    body.push(0);
}

fn put_list(body: &mut Vec<u8>, list: &[i16]) {
    body.extend_from_slice(&(list.len() as u16).to_be_bytes());
    list.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
}

/// A message: its kind, body, and what it says.
fn message(random: &mut Random) -> (u8, Vec<u8>, Frontend) {
    let mut body = Vec::new();
    let (one, two) = (text(random), text(random));
    match random.below(10) {
        0 => {
            put_text(&mut body, &one);
            (b'Q', body, Frontend::Query(one))
        }
        1 => {
            let types: Vec<u32> = (0..random.below(4)).map(|_| random.next() as u32).collect();
            put_text(&mut body, &one);
            put_text(&mut body, &two);
            body.extend_from_slice(&(types.len() as u16).to_be_bytes());
            types.iter().for_each(|of| body.extend_from_slice(&of.to_be_bytes()));
            (b'P', body, Frontend::Parse { name: one, query: two, types })
        }
        2..=5 => bind(random, one, two),
        6 => {
            put_text(&mut body, &one);
            body.extend_from_slice(&7u32.to_be_bytes());
            (b'E', body, Frontend::Execute { portal: one, max_rows: 7 })
        }
        7 => {
            body.push(b'S');
            put_text(&mut body, &one);
            (b'D', body, Frontend::Describe(Target::Statement(one)))
        }
        8 => {
            body.extend((0..random.below(300)).map(|_| random.next() as u8));
            (b'd', body.clone(), Frontend::CopyData(body.into()))
        }
        _ => (b'S', body, Frontend::Sync),
    }
}

fn bind(random: &mut Random, portal: String, statement: String) -> (u8, Vec<u8>, Frontend) {
    let mut body = Vec::new();
    let formats: Vec<i16> = (0..random.below(3)).map(|_| random.below(2) as i16).collect();
    let value = |random: &mut Random| (random.below(4) > 0).then(|| Bytes::from(text(random)));
    let values: Vec<Option<Bytes>> = (0..random.below(5)).map(|_| value(random)).collect();
    let results = vec![1; random.below(3)];
    put_text(&mut body, &portal);
    put_text(&mut body, &statement);
    put_list(&mut body, &formats);
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in &values {
        let length = value.as_ref().map_or(-1, |value| value.len() as i32);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    put_list(&mut body, &results);
    (b'B', body, Frontend::Bind(Bind { portal, statement, formats, values, results }))
}

/// Changes bytes, mostly those that say how long something is.
fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(body.len() + 1);
        match random.below(6) {
            0 if at < body.len() => body[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            1 if at < body.len() => body[at] ^= 1 << random.below(8),
            2 => body.truncate(at),
            3 => drop(body.drain(at..(at + 1 + random.below(6)).min(body.len()))),
            4 => drop(body.splice(at..at, (0..1 + random.below(6)).map(|_| random.next() as u8).collect::<Vec<_>>())),
            _ => {
                let length = [-1i32, i32::MIN, i32::MAX, 0x7fff, 0xffff, 1 << 20][random.below(6)].to_be_bytes();
                let end = (at + 4).min(body.len());
                drop(body.splice(at..end, length));
            }
        }
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn next(incoming: &mut Incoming<Pieces<'_>>) -> Option<Result<Frontend, Violation>> {
    incoming.next().await.expect("memory does not fail to be read")
}

#[tokio::test]
async fn other_messages_are_read_as_they_were_sent() {
    let (cases, first) = (number("TIDEMILL_CASES", 20_000), number("TIDEMILL_SEED", 1) as u64);
    let (began, mut seed, mut mutated, mut refused) = (Instant::now(), first, 0, 0);
    while mutated < cases {
        let mut random = Random::new(seed);
        let (mut stream, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..MESSAGES {
            let (kind, mut body, says) = message(&mut random);
            let changed = random.below(2) == 0;
            if changed {
                mutate(&mut body, &mut random);
                mutated += 1;
            }
            stream.push(kind);
            stream.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            stream.append(&mut body);
            sent.push((!changed).then_some(says));
        }
        let mut incoming = Incoming::new(Pieces { left: &stream, random });
        for (i, says) in sent.into_iter().enumerate() {
            let read = next(&mut incoming).await.unwrap_or_else(|| panic!("seed {seed}: message {i} is not there"));
            match (read, says) {
                (read, Some(says)) => assert_eq!(read, Ok(says), "seed {seed}: message {i}"),
                (Ok(_), None) => {}
                (Err(violation), None) => {
                    assert!(!violation.fatal && !violation.message.is_empty(), "seed {seed}: message {i}");
                    refused += 1;
                }
            }
        }
        assert_eq!(next(&mut incoming).await, None, "seed {seed}");
        seed += 1;
    }
    println!("bodies: {mutated} messages mutated (from seed {first}), {refused} refused, in {:.0?}", began.elapsed());
    assert!(refused > mutated / 10, "hardly any mutation matters");
}

#[tokio::test]
async fn no_length_makes_room_for_more_than_has_come() {
    let (cases, first) = (number("TIDEMILL_CASES", 20_000), number("TIDEMILL_SEED", 1) as u64);
    let (began, mut seed, mut mutated, mut fatal, mut short) = (Instant::now(), first, 0, 0, 0);
    while mutated < cases {
        let mut random = Random::new(seed);
        let mut stream = Vec::new();
        let broken = random.below(4);
        for i in 0..4 {
            let (kind, mut body, _) = message(&mut random);
            let mut length = body.len() as u32 + 4;
            let mut kind = kind;
            if i == broken {
                match random.below(4) {
                    0 => length = random.next() as u32,
                    1 => length = [0, 3, 4, 5, u32::MAX, i32::MAX as u32, MAX_MESSAGE as u32][random.below(7)],
                    2 => length = length.wrapping_add(random.below(9) as u32).wrapping_sub(4),
                    _ => kind = random.next() as u8,
                }
                mutated += 1;
            }
            stream.push(kind);
            stream.extend_from_slice(&length.to_be_bytes());
            stream.append(&mut body);
        }
        if random.below(4) == 0 {
            // The beginning of a connection is read in another way.
            let mut incoming = Incoming::new(Pieces { left: &stream, random: Random::new(seed) });
            let _ = incoming.opening().await.expect("memory does not fail to be read");
        }
        let mut incoming = Incoming::new(Pieces { left: &stream, random });
        let mut messages = 0;
        loop {
            let read = next(&mut incoming).await;
            let room = incoming.buffer.capacity();
            assert!(room <= 2 * stream.len() + (64 << 10), "seed {seed}: room for {room} of {} bytes", stream.len());
            messages += 1;
            assert!(messages <= stream.len() / 5 + 1, "seed {seed}: {messages} messages");
            match read {
                None => short += 1,
                Some(Err(violation)) if violation.fatal => fatal += 1,
                Some(_) => continue,
            }
            break;
        }
        seed += 1;
    }
    println!(
        "lengths: {mutated} messages mutated (from seed {first}): {fatal} streams end with a violation, {short} in the middle or \
         at their end, in {:.0?}",
        began.elapsed()
    );
    assert!(fatal > 0 && short > 0);
}
