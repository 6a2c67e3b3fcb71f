//! Which hashes a run may have: a Bloom filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", CACM 13, 1970)
//! whose bits for a hash are all in one word, so that a look costs one access of memory (Putze, Sanders, Singler,
//! "Cache-, hash- and space-efficient Bloom filters", WEA 2007).

/// Bits per hash.
const BITS: usize = 10;
/// Spreads what the workers' share of all hashes leaves.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// See the module.
#[derive(Default)]
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// A filter that so many hashes can be added to. It takes no more than `most` bytes, and makes the more up the less that is.
    pub(super) fn new(hashes: usize, most: usize) -> Self {
        let words = (hashes * BITS).div_ceil(64).min(most / 8);
        Filter { words: vec![0; words.max(1)] }
    }

    pub(super) fn add(&mut self, hash: u64) {
        let (word, bits) = self.place(hash);
        self.words[word] |= bits;
    }

    /// Whether the hash may be among them; if not, it is not.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        self.words.get(word).is_some_and(|found| found & bits == bits)
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let spread = hash.wrapping_mul(SPREAD);
        let word = ((u128::from(spread) * self.words.len() as u128) >> 64) as usize;
        let bit = |shift: u32| 1u64 << (spread >> shift & 63);
        (word, bit(0) | bit(6) | bit(12) | bit(18))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_nothing_and_makes_few_things_up() {
        let hash = |i: u64| i.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ (i << 7);
        for (most, limit) in [(usize::MAX, 8_000), (6_250, 25_000)] {
            let mut filter = Filter::new(10_000, most);
            (0..10_000).for_each(|i| filter.add(hash(i)));
            assert!((0..10_000).all(|i| filter.may_have(hash(i))));
            let made_up = (10_000..110_000).filter(|i| filter.may_have(hash(*i))).count();
            assert!(made_up < limit, "{made_up} of 100,000");
            assert!(filter.bytes() <= most);
        }
        assert!(!Filter::new(0, 0).may_have(7));
    }
}
