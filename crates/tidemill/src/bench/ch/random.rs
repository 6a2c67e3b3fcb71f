//! Chance that is the same for the same seed, and what TPC-C draws with it.

use std::fmt::Write;

const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// What TPC-C makes last names of.
const SYLLABLES: [&str; 10] = ["BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"];

/// A sequence of numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range, its ends among them.
    pub fn between(&mut self, from: u32, to: u32) -> u32 {
        from + (self.next() % (u64::from(to - from) + 1)) as u32
    }

    /// A number of a range, of which some are drawn much more often (TPC-C's NURand). `a` is a power of two less one.
    pub fn uneven(&mut self, a: u32, from: u32, to: u32) -> u32 {
        let drawn = u64::from(self.between(0, a) | self.between(from, to)) + u64::from(a / 3);
        from + (drawn % (u64::from(to - from) + 1)) as u32
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u32) -> bool {
        self.between(1, times) == 1
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() as u32 - 1) as usize]
    }

    /// Letters and digits, so many at least and at most.
    pub fn text(&mut self, least: u32, most: u32) -> String {
        let length = self.between(least, most);
        (0..length).map(|_| char::from(self.pick(LETTERS))).collect()
    }

    /// So many digits.
    pub fn digits(&mut self, length: u32) -> String {
        (0..length).map(|_| char::from(self.pick(&LETTERS[..10]))).collect()
    }

    /// A street, another line, a city, a state and a postal code, as text of SQL.
    pub fn address(&mut self) -> String {
        let mut address = String::new();
        for _ in 0..3 {
            let _ = write!(address, "'{}', ", self.text(10, 20));
        }
        let (state, zip) = (self.state(), self.digits(4));
        let _ = write!(address, "'{state}', '{zip}11111'");
        address
    }

    /// Two letters, of which the first stands for a nation.
    fn state(&mut self) -> String {
        format!("{}{}", char::from(self.nation()), self.text(1, 1))
    }

    /// The key of a nation, which is a letter or digit. Those that the queries ask for come more often than others, so
    /// that small tables have rows of theirs.
    pub fn nation(&mut self) -> u8 {
        if self.one_in(4) { self.pick(&super::nations::NAMED) } else { self.pick(LETTERS) }
    }
}

/// The keys of the nations, in order.
pub fn nation_keys() -> impl Iterator<Item = u8> {
    LETTERS.iter().copied()
}

/// The last name with a number below 1000.
pub fn last_name(number: u32) -> String {
    [number / 100 % 10, number / 10 % 10, number % 10].map(|digit| SYLLABLES[digit as usize]).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(1);
        let drawn: Vec<u32> = (0..1000).map(|_| random.between(3, 7)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&7)));
        let drawn: Vec<u32> = (0..100_000).map(|_| random.uneven(1023, 1, 3000)).collect();
        assert!(drawn.iter().all(|n| (1..=3000).contains(n)));
        let often = (1..=3000).filter(|n| drawn.iter().filter(|m| *m == n).count() > 66).count();
        assert!((100..1500).contains(&often), "{often} come twice as often as on average");
    }

    #[test]
    fn names_are_those_of_the_specification() {
        assert_eq!(last_name(371), "PRICALLYOUGHT");
        assert_eq!(last_name(40), "BARPRESBAR");
    }
}
