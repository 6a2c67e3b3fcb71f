//! What is done to a record.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// What a mutation leaves alone, so that it stays within its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A line: line breaks.
    Line,
    /// A line of cells: quotes too, which may reach as far as the next one.
    Cells,
    /// A line of `COPY`: what joins it with the next one, or ends the data.
    Copy,
    /// Nothing.
    Any,
}

/// Pieces that mean something in one of the formats.
const PIECES: [&[u8]; 42] = [
    b"\"",
    b"\"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\\\",
    b"\\\"",
    b"\\u",
    b"\\ud800",
    b"\\udc00",
    b"\\u0000",
    b"\\x",
    b"\\.",
    b"\\N",
    b"\t",
    b"\r",
    b" ",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"NaN",
    b"-",
    b"+",
    b".",
    b"e",
    b"E+999999999",
    b"1e-400",
    b"00",
    b"0x1F",
    b"9223372036854775808",
    b"999999999999999999999999999999999999999999999",
    b"-170141183460469231731687303715884105729",
    b"2024-02-30 25:61:61",
];

/// Changes a record in one to four places. `other` is one to take from.
pub fn mutate(record: &mut Vec<u8>, other: &[u8], random: &mut Random, damage: Damage) {
    for _ in 0..1 + random.below(4) {
        once(record, other, random);
    }
    match damage {
        Damage::Any => {}
        Damage::Line => record.retain(|byte| *byte != b'\n'),
        Damage::Cells => record.retain(|byte| !matches!(byte, b'\n' | b'"')),
        Damage::Copy => {
            record.retain(|byte| !matches!(byte, b'\n' | b'\r'));
            while record.ends_with(b"\\") || record.as_slice() == b"\\." {
                record.pop();
            }
        }
    }
}

fn once(record: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(record.len() + 1);
    let some = 1 + random.below(12);
    let end = (at + some).min(record.len());
    match random.below(10) {
        0 if at < record.len() => record[at] = random.next() as u8,
        1 if at < record.len() => record[at] ^= 1 << random.below(8),
        2 => drop(record.drain(at..end)),
        3 => record.truncate(at),
        4 => {
            let again = record[at..end].repeat(1 + random.below(30));
            drop(record.splice(at..at, again));
        }
        5 => {
            let from = random.below(other.len() + 1);
            let piece = other[from..(from + some).min(other.len())].to_vec();
            drop(record.splice(at..end, piece));
        }
        6 => {
            // Deep nesting, now and then.
            let depth = if random.below(8) == 0 { 2_000 } else { 20 };
            let piece = PIECES[random.below(10)].repeat(1 + random.below(depth));
            drop(record.splice(at..at, piece));
        }
        _ => {
            let piece = PIECES[random.below(PIECES.len())].iter().copied();
            let end = if random.below(2) == 0 { at } else { end };
            drop(record.splice(at..end, piece));
        }
    }
}
