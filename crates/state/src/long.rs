//! A vector that may get very long: it grows without moving what is in it, and has little room to spare.
//!
//! A `Vec` that grows is copied to twice its size, which at some millions of entries is a pause, and leaves up to half
//! of it empty. Here entries are in blocks of a fixed length; only the first block grows as a `Vec` does, so that
//! a short one is small.

use std::ops::{Index, IndexMut};

/// The bits of an index that are its place in a block.
const BITS: u32 = 14;
/// Entries in a block.
const BLOCK: usize = 1 << BITS;

/// See the module.
#[derive(Clone, Debug)]
pub struct Long<T> {
    /// All full but the last.
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Long<T> {
    fn default() -> Self {
        Long::new()
    }
}

impl<T> Long<T> {
    /// No entries.
    pub const fn new() -> Self {
        Long { blocks: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK => last.push(entry),
            _ => {
                // Where one block was not enough, the next will be filled too.
                let mut block = Vec::with_capacity(if self.blocks.is_empty() { 4 } else { BLOCK });
                block.push(entry);
                self.blocks.push(block);
            }
        }
        self.len += 1;
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let room = self.blocks.iter().map(Vec::capacity).sum::<usize>();
        room * size_of::<T>() + self.blocks.capacity() * size_of::<Vec<T>>()
    }
}

impl<T: Clone> Long<T> {
    /// Adds copies of an entry up to a length; it never gets shorter.
    pub fn grow(&mut self, len: usize, entry: T) {
        while self.len < len {
            self.push(entry.clone());
        }
    }
}

impl<T> Extend<T> for Long<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl<T> FromIterator<T> for Long<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut long = Long::new();
        long.extend(entries);
        long
    }
}

impl<T> Index<usize> for Long<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.blocks[at >> BITS][at & (BLOCK - 1)]
    }
}

impl<T> IndexMut<usize> for Long<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.blocks[at >> BITS][at & (BLOCK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are() {
        let mut long: Long<u32> = (0..10).collect();
        long.grow(3 * BLOCK + 5, 70);
        long.push(8);
        assert_eq!((long.len(), long[9], long[10], long[3 * BLOCK + 5]), (3 * BLOCK + 6, 9, 70, 8));
        long[BLOCK] = 1;
        assert_eq!(long.iter().filter(|entry| **entry == 70).count(), 3 * BLOCK + 5 - 10 - 1);
        let spare = long.bytes() - long.len() * 4;
        assert!(spare <= BLOCK * 4 + 4 * 24, "{spare} bytes to spare");
        assert!((0..3).collect::<Long<u32>>().bytes() < 200);
    }
}
