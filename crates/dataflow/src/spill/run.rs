//! A run: rows of many keys in a file, by the keys' hashes.
//!
//! A file is a sequence of blocks. A block has, for some hashes in a row, all rows of each part of the operator's state,
//! and the hashes of which nothing is left. Where blocks begin, what hashes they have and a sum of their bytes is kept in
//! memory. A file does not outlive the process; checkpoints have copies of its blocks, from which another is made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::UInt32Array;
use tidemill_delta::{Delta, decode, encode, hash_bytes};
use tidemill_env::{Disk, DiskFile};

use super::filter::Filter;
use super::memory::Shelf;
use crate::OperatorError;

/// About so many bytes of a part's rows are in a block.
const BLOCK: usize = 8 << 10;
/// Files are written in pieces of at least this many bytes.
const PIECE: usize = 1 << 20;

/// Rows of one part, by hash.
#[derive(Default)]
pub(super) struct Sorted {
    /// Ascending.
    pub(super) hashes: Vec<u64>,
    /// The row of `rows` that each hash belongs to.
    pub(super) order: Vec<u32>,
    pub(super) rows: Option<Delta>,
}

impl Sorted {
    /// How many different hashes there are.
    pub(super) fn keys(&self) -> usize {
        self.hashes.chunk_by(|a, b| a == b).count()
    }

    /// Brings rows into the order of their hashes.
    pub(super) fn new(rows: Delta, of: &[u64]) -> Self {
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_unstable_by_key(|i| (of[*i as usize], *i));
        let hashes = order.iter().map(|i| of[*i as usize]).collect();
        Sorted { hashes, order, rows: Some(rows) }
    }

    /// The rows at these places in the order.
    fn take(&self, from: usize, to: usize) -> Result<Option<Delta>, OperatorError> {
        let rows = self.rows.as_ref().filter(|_| from < to);
        let places = || UInt32Array::from(self.order[from..to].to_vec());
        Ok(rows.map(|rows| rows.take(&places())).transpose()?)
    }

    /// How many rows a block has.
    fn rows_in_block(&self) -> usize {
        let bytes = self.rows.as_ref().map_or(0, Delta::bytes);
        (BLOCK / (bytes / self.hashes.len().max(1)).max(1)).clamp(16, 4096)
    }
}

/// What a run is called wherever it is kept: the incarnation of the process that wrote it, and its number there. Later runs of an
/// operator have greater names.
pub type RunName = (u64, u64);

/// Where a block is.
#[derive(Clone, Copy)]
struct Place {
    /// Its least hash.
    first: u64,
    offset: u64,
    length: u32,
    sum: u64,
}

/// A block in memory.
pub(super) struct Block {
    /// For each part: the rows' hashes, ascending, and where in `bytes` they are.
    parts: Vec<(Vec<u64>, std::ops::Range<usize>)>,
    /// Hashes of which nothing is left, ascending.
    pub(super) gone: Vec<u64>,
    bytes: Vec<u8>,
}

impl Block {
    pub(super) fn hashes(&self, part: usize) -> &[u64] {
        &self.parts[part].0
    }

    /// The greatest hash.
    pub(super) fn last(&self) -> u64 {
        let lasts = self.parts.iter().filter_map(|(hashes, _)| hashes.last()).chain(self.gone.last());
        lasts.copied().max().unwrap_or(u64::MAX)
    }

    /// The rows of a part, in the order of their hashes.
    pub(super) fn rows(&self, part: usize) -> Result<Delta, OperatorError> {
        Ok(decode(&self.bytes[self.parts[part].1.clone()])?)
    }
}

/// See the module.
pub(super) struct Run {
    pub(super) name: RunName,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Parts of the operator's state.
    pub(super) parts: usize,
    places: Vec<Place>,
    filter: Filter,
    /// Rows of all parts.
    pub(super) rows: usize,
    /// Keys that it knows.
    pub(super) keys: usize,
    /// The file's length.
    pub(super) length: u64,
}

impl Run {
    pub(super) fn blocks(&self) -> usize {
        self.places.len()
    }

    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.filter.may_have(hash)
    }

    /// The block that has a hash, if any has it.
    pub(super) fn block_of(&self, hash: u64) -> Option<usize> {
        self.places.partition_point(|place| place.first <= hash).checked_sub(1)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.places.len() * size_of::<Place>() + self.filter.bytes()
    }

    /// Reads a block.
    pub(super) fn block(&self, number: usize) -> Result<Block, OperatorError> {
        self.bytes_of(number).map(|bytes| parse(bytes, self.parts))
    }

    /// A block as it stands in the file.
    pub(super) fn bytes_of(&self, number: usize) -> Result<Vec<u8>, OperatorError> {
        let place = self.places[number];
        let mut bytes = vec![0; place.length as usize];
        let mut read = 0;
        while read < bytes.len() {
            let more = self.file.read_at(&mut bytes[read..], place.offset + read as u64).map_err(|e| self.lost(&e))?;
            if more == 0 {
                return Err(self.lost(&io::ErrorKind::UnexpectedEof.into()));
            }
            read += more;
        }
        if hash_bytes(&bytes) != place.sum {
            return Err(OperatorError(format!("state that was put aside in {} is damaged", self.path.display())));
        }
        Ok(bytes)
    }

    fn lost(&self, error: &io::Error) -> OperatorError {
        OperatorError(format!("state that was put aside in {} cannot be read: {error}", self.path.display()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a file of state that was put aside cannot be removed");
        }
    }
}

/// Why a run cannot be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The disk took it not. It may later.
    Disk(String),
    /// Anything else.
    Operator(OperatorError),
}

impl From<OperatorError> for WriteError {
    fn from(error: OperatorError) -> Self {
        WriteError::Operator(error)
    }
}

impl From<arrow::error::ArrowError> for WriteError {
    fn from(error: arrow::error::ArrowError) -> Self {
        WriteError::Operator(error.into())
    }
}

impl From<WriteError> for OperatorError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Disk(message) => OperatorError(message),
            WriteError::Operator(error) => error,
        }
    }
}

fn not_taken(path: &Path, error: &io::Error) -> WriteError {
    WriteError::Disk(format!("state cannot be put aside in {}: {error}", path.display()))
}

/// A file that goes unless it is finished.
struct Unfinished(Option<(Arc<dyn Disk>, PathBuf)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((disk, path)) = self.0.take() {
            // What is left of it is removed by the next start.
            let _ = disk.remove(&path);
        }
    }
}

/// A run in the making.
pub(super) struct Writer {
    shelf: Shelf,
    name: RunName,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    unfinished: Unfinished,
    parts: usize,
    places: Vec<Place>,
    filter: Filter,
    rows: usize,
    keys: usize,
    /// What is not written yet, and where it belongs.
    piece: Vec<u8>,
    offset: u64,
}

impl Writer {
    /// A run of an operator's state in so many parts, that will know about so many keys.
    pub(super) fn new(shelf: &Shelf, parts: usize, keys: usize) -> Result<Self, WriteError> {
        let (name, path) = shelf.name();
        let file = shelf.disk.create(&path).map_err(|error| not_taken(&path, &error))?;
        let unfinished = Unfinished(Some((shelf.disk.clone(), path.clone())));
        let (places, piece, filter) = (Vec::new(), Vec::new(), Filter::new(keys, shelf.for_filter()));
        Ok(Writer {
            shelf: shelf.clone(),
            name,
            path,
            file,
            unfinished,
            parts,
            places,
            filter,
            rows: 0,
            keys: 0,
            piece,
            offset: 0,
        })
    }

    /// Adds rows, whose hashes are greater than all before.
    pub(super) fn push(&mut self, parts: &[Sorted], gone: &[u64]) -> Result<(), WriteError> {
        let most = parts.iter().map(Sorted::rows_in_block).min().unwrap_or(1);
        let mut at = vec![0; parts.len()];
        let mut gone = gone;
        loop {
            let hashes = |i: usize, at: &[usize]| &parts[i].hashes[at[i]..];
            if gone.is_empty() && (0..parts.len()).all(|i| hashes(i, &at).is_empty()) {
                return Ok(());
            }
            // The block ends with this hash, so that none has much more rows than wanted.
            let lists = (0..parts.len()).map(|i| hashes(i, &at)).chain([gone]);
            let end = lists.filter_map(|list| list.get(most - 1)).min().copied().unwrap_or(u64::MAX);
            let to: Vec<usize> =
                (0..parts.len()).map(|i| at[i] + hashes(i, &at).partition_point(|hash| *hash <= end)).collect();
            let (now, later) = gone.split_at(gone.partition_point(|hash| *hash <= end));
            self.block(parts, &at, &to, now)?;
            (at, gone) = (to, later);
        }
    }

    fn block(&mut self, parts: &[Sorted], from: &[usize], to: &[usize], gone: &[u64]) -> Result<(), WriteError> {
        let start = self.piece.len();
        for (i, part) in parts.iter().enumerate() {
            let hashes = &part.hashes[from[i]..to[i]];
            put_hashes(&mut self.piece, hashes);
            let length = self.piece.len();
            put(&mut self.piece, 0);
            if let Some(rows) = part.take(from[i], to[i])? {
                encode(&rows, &mut self.piece)?;
            }
            let bytes = (self.piece.len() - length - 4) as u32;
            self.piece[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
            self.rows += hashes.len();
        }
        put_hashes(&mut self.piece, gone);
        let lists = parts.iter().enumerate().map(|(i, part)| &part.hashes[from[i]..to[i]]).chain([gone]);
        self.end_block(start, lists.flatten().copied().collect())
    }

    /// Adds a block as it stood in another file.
    pub(super) fn copy(&mut self, bytes: Vec<u8>) -> Result<(), WriteError> {
        let start = self.piece.len();
        self.piece.extend_from_slice(&bytes);
        let block = parse(bytes, self.parts);
        let of_parts = || block.parts.iter().map(|(hashes, _)| hashes);
        self.rows += of_parts().map(Vec::len).sum::<usize>();
        self.end_block(start, of_parts().chain([&block.gone]).flatten().copied().collect())
    }

    /// Notes a block that begins here in the piece, and which hashes it knows.
    fn end_block(&mut self, start: usize, mut hashes: Vec<u64>) -> Result<(), WriteError> {
        hashes.sort_unstable();
        hashes.dedup();
        let first = hashes.first().copied().unwrap_or(0);
        self.keys += hashes.len();
        hashes.into_iter().for_each(|hash| self.filter.add(hash));
        let bytes = &self.piece[start..];
        let (length, sum) = (bytes.len() as u32, hash_bytes(bytes));
        self.places.push(Place { first, offset: self.offset + start as u64, length, sum });
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.file.write_at(&self.piece, self.offset).map_err(|error| not_taken(&self.path, &error))?;
        self.offset += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// The run, by the name that it had before it was brought back.
    pub(super) fn finish_as(mut self, name: RunName) -> Result<Run, WriteError> {
        self.name = name;
        self.finish()
    }

    /// The run.
    pub(super) fn finish(mut self) -> Result<Run, WriteError> {
        self.flush()?;
        self.unfinished.0 = None;
        Ok(Run {
            name: self.name,
            disk: self.shelf.disk,
            path: self.path,
            file: self.file,
            parts: self.parts,
            places: self.places,
            filter: self.filter,
            rows: self.rows,
            keys: self.keys,
            length: self.offset,
        })
    }
}

fn put(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_hashes(bytes: &mut Vec<u8>, hashes: &[u64]) {
    put(bytes, hashes.len() as u32);
    hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.to_le_bytes()));
}

/// Takes a block apart; its sum was right, so it is as it was written.
fn parse(bytes: Vec<u8>, parts: usize) -> Block {
    let mut at = 0;
    let number = |at: &mut usize| {
        *at += 4;
        u32::from_le_bytes(bytes[*at - 4..*at].try_into().expect("four bytes")) as usize
    };
    let hashes = |at: &mut usize| -> Vec<u64> {
        let start = *at + 4;
        let end = start + number(at) * 8;
        *at = end;
        bytes[start..end].chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes"))).collect()
    };
    let mut found = Vec::with_capacity(parts);
    for _ in 0..parts {
        let of = hashes(&mut at);
        let length = number(&mut at);
        found.push((of, at..at + length));
        at += length;
    }
    let gone = hashes(&mut at);
    Block { parts: found, gone, bytes }
}
