//! Runs on their way into a checkpoint, and back out of it.
//!
//! A checkpoint has a run's blocks as they stand in its file, in pieces. They are brought back as a file of the same blocks, so that
//! neither way needs more memory than a piece. With another number of workers the rows are shared out anew, by a merge of all
//! workers' runs for each new one.

use std::sync::Arc;

use arrow::array::UInt32Array;
use tidemill_delta::{Delta, hash_rows, worker_of};

use super::cold::Merging;
use super::memory::Memory;
use super::run::{Run, RunName, Sorted, Writer};
use crate::OperatorError;
use crate::saving::Placement;

/// Bytes of a block's length.
const LENGTH: usize = 4;

/// A run of an operator's state, shared with the operator that has written it.
#[derive(Clone)]
pub struct Aside(pub(super) Arc<Run>);

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aside({:?}, {} rows)", self.0.name, self.0.rows)
    }
}

impl Aside {
    /// What it is called.
    pub fn name(&self) -> RunName {
        self.0.name
    }

    /// How many keys it knows.
    pub fn keys(&self) -> usize {
        self.0.keys
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Tells its blocks, in pieces of about so many bytes: of each its length, and then itself.
    pub fn pieces<E: From<OperatorError>>(
        &self,
        bytes: usize,
        mut tell: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = Vec::new();
        for number in 0..self.0.blocks() {
            let block = self.0.bytes_of(number)?;
            piece.extend_from_slice(&(block.len() as u32).to_le_bytes());
            piece.extend_from_slice(&block);
            if piece.len() >= bytes {
                tell(std::mem::take(&mut piece))?;
            }
        }
        if piece.is_empty() { Ok(()) } else { tell(piece) }
    }
}

/// A run that is being brought back.
pub struct Returning {
    name: RunName,
    writer: Writer,
}

impl Returning {
    /// Takes the next piece.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), OperatorError> {
        let mut rest = piece;
        while let Some((length, more)) = rest.split_first_chunk::<LENGTH>() {
            let block = more.split_at_checked(u32::from_le_bytes(*length) as usize);
            let (block, more) = block.ok_or_else(|| OperatorError("a piece of a run ends within a block".into()))?;
            self.writer.copy(block.to_vec())?;
            rest = more;
        }
        if rest.is_empty() { Ok(()) } else { Err(OperatorError("a piece of a run has bytes behind its blocks".into())) }
    }

    /// The run.
    pub fn finish(self) -> Result<Aside, OperatorError> {
        Ok(Aside(Arc::new(self.writer.finish_as(self.name)?)))
    }
}

impl Memory {
    /// Begins to bring a run of a state in so many parts back, that knows about so many keys.
    pub fn bring_back(&self, name: RunName, parts: usize, keys: usize) -> Result<Returning, OperatorError> {
        Ok(Returning { name, writer: Writer::new(&self.shelf(), parts, keys)? })
    }

    /// Shares state out among workers of this process: a run for each. `saved`: by worker before, of each its runs, the eldest first.
    /// `placement`: by part.
    pub fn share_out(
        &self,
        saved: &[Vec<Aside>],
        placement: &[Placement],
        workers: usize,
    ) -> Result<Vec<Aside>, OperatorError> {
        (0..workers).map(|worker| self.share_of(worker, saved, placement, workers)).collect()
    }

    fn share_of(
        &self,
        worker: usize,
        saved: &[Vec<Aside>],
        placement: &[Placement],
        workers: usize,
    ) -> Result<Aside, OperatorError> {
        let runs = || saved.iter().enumerate().flat_map(|(group, runs)| runs.iter().map(move |run| (group, &*run.0)));
        let keys = runs().map(|(_, run)| run.keys).sum::<usize>() / workers;
        let mut merging = Merging::new(runs(), placement.len());
        let mut writer = Writer::new(&self.shelf(), placement.len(), keys)?;
        while let Some((parts, _)) = merging.next(true)? {
            let own = parts.into_iter().zip(placement);
            let own = own.map(|(part, placement)| of_worker(part, placement, worker, workers));
            writer.push(&own.collect::<Result<Vec<_>, _>>()?, &[])?;
        }
        Ok(Aside(Arc::new(writer.finish()?)))
    }
}

/// All rows of an operator's runs, the eldest first, by part; `None` where there are none.
pub fn rows_of(runs: &[Aside], parts: usize) -> Result<Vec<Option<Delta>>, OperatorError> {
    let mut merging = Merging::new(runs.iter().map(|run| (0, &*run.0)), parts);
    let mut rows = vec![Vec::new(); parts];
    while let Some((merged, _)) = merging.next(true)? {
        rows.iter_mut().zip(merged).for_each(|(rows, part)| rows.extend(part.rows));
    }
    let all = rows.iter().map(|list| list.first().map(|first| Delta::concat(&first.rows.schema(), list)).transpose());
    Ok(all.collect::<Result<_, _>>()?)
}

/// The rows that belong to a worker.
fn of_worker(part: Sorted, placement: &Placement, worker: usize, workers: usize) -> Result<Sorted, OperatorError> {
    let Placement::Hash(columns) = placement else {
        return Err(OperatorError("state that was put aside has no key to be shared out by".into()));
    };
    let Some(rows) = &part.rows else { return Ok(Sorted::default()) };
    let mut routes = Vec::new();
    hash_rows(&rows.rows, columns, &mut routes)?;
    let own =
        part.order.iter().zip(&part.hashes).filter(|(row, _)| worker_of(routes[**row as usize], workers) == worker);
    let (own, places): (Vec<u32>, Vec<u64>) = own.unzip();
    if own.is_empty() {
        return Ok(Sorted::default());
    }
    Ok(Sorted::new(rows.take(&UInt32Array::from(own))?, &places))
}
