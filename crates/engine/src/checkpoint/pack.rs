//! Packs: files of many runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_dataflow::OperatorError;
use tidemill_delta::{Delta, decode, encode};
use tidemill_storage::{Checkpoints, FileEntry, StorageError};

use super::merge::last_epoch;
use super::{Of, Run, Store};

/// A pack that has become longer than this is put away, and the next one begun.
const LONG: usize = 16 << 20;

/// Packs in the making.
pub(super) struct Packing {
    prefix: String,
    name: String,
    bytes: Vec<u8>,
    done: Vec<FileEntry>,
}

impl Packing {
    /// Packs whose names begin so.
    pub(super) fn new(prefix: String) -> Self {
        let name = format!("{prefix}-0");
        Packing { prefix, name, bytes: Vec::new(), done: Vec::new() }
    }

    /// Adds a run.
    pub(super) fn add(
        &mut self,
        store: &mut Checkpoints<Store>,
        of: Of,
        delta: &Delta,
        gone: Option<&Delta>,
    ) -> Result<Run, StoreError> {
        let at = self.bytes.len();
        encode(delta, &mut self.bytes)?;
        let middle = self.bytes.len();
        gone.map(|gone| encode(gone, &mut self.bytes)).transpose()?;
        let bytes = self.bytes.len() - at;
        let rows = delta.len() + gone.map_or(0, Delta::len);
        let gone = self.bytes.len() - middle;
        let columns = delta.rows.num_columns();
        let until = if matches!(of, Of::Changes { .. }) { last_epoch(delta)? } else { 0 };
        let run = Run { of, rows, columns, pack: self.name.clone(), at, bytes, gone, until, keys: 0 };
        self.put_if(store, LONG)?;
        Ok(run)
    }

    /// Adds a piece of a run that was put aside.
    pub(super) fn add_piece(
        &mut self,
        store: &mut Checkpoints<Store>,
        of: Of,
        keys: usize,
        piece: &[u8],
    ) -> Result<Run, StoreError> {
        let (at, bytes) = (self.bytes.len(), piece.len());
        self.bytes.extend_from_slice(piece);
        let run = Run { of, rows: 0, columns: 0, pack: self.name.clone(), at, bytes, gone: 0, until: 0, keys };
        self.put_if(store, LONG)?;
        Ok(run)
    }

    /// A run that was added, if it is one of these.
    pub(super) fn read(
        &self,
        store: &Checkpoints<Store>,
        run: &Run,
    ) -> Result<Option<(Delta, Option<Delta>)>, StoreError> {
        if run.pack == self.name {
            return read_run(run, &self.bytes).map(Some);
        }
        let Some(entry) = self.done.iter().find(|entry| entry.name == run.pack) else { return Ok(None) };
        read_run(run, &store.get_file(entry)?).map(Some)
    }

    /// Adds a run as it stands in another pack.
    pub(super) fn copy(&mut self, store: &mut Checkpoints<Store>, run: &Run, pack: &[u8]) -> Result<Run, StoreError> {
        let at = self.bytes.len();
        let bytes = pack.get(run.at..run.at + run.bytes).ok_or(StoreError::Run)?;
        self.bytes.extend_from_slice(bytes);
        let copy = Run { pack: self.name.clone(), at, ..run.clone() };
        self.put_if(store, LONG)?;
        Ok(copy)
    }

    fn put_if(&mut self, store: &mut Checkpoints<Store>, longer_than: usize) -> Result<(), StoreError> {
        if self.bytes.len() > longer_than {
            self.done.push(store.put_file(&self.name, std::mem::take(&mut self.bytes))?);
            self.name = format!("{}-{}", self.prefix, self.done.len());
        }
        Ok(())
    }

    /// Puts the last one away; gives them all.
    pub(super) fn finish(mut self, store: &mut Checkpoints<Store>) -> Result<Vec<FileEntry>, StoreError> {
        self.put_if(store, 0)?;
        Ok(self.done)
    }
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("a run cannot be read: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("{0}")]
    Refused(String),
    #[error("the directory names a run that is not in its pack")]
    Run,
    #[error("the directory cannot be read: {0}")]
    Directory(String),
}

/// Packs by name, some of which are in memory.
pub(crate) struct Packs {
    entries: BTreeMap<String, FileEntry>,
    read: BTreeMap<String, Arc<Vec<u8>>>,
    /// How many bytes may be in memory, and how many are.
    most: usize,
    held: usize,
}

impl Packs {
    /// The packs of a manifest, of which about so many bytes are kept in memory once they are read; none is yet.
    pub(crate) fn new(files: &[FileEntry], most: usize) -> Self {
        let entries = files.iter().map(|file| (file.name.clone(), file.clone())).collect();
        Packs { entries, read: BTreeMap::new(), most, held: 0 }
    }

    /// Keeps a pack that was read, if there is room.
    pub(crate) fn keep(&mut self, name: &str, bytes: Vec<u8>) {
        if self.held + bytes.len() <= self.most {
            self.held += bytes.len();
            self.read.insert(name.to_owned(), Arc::new(bytes));
        }
    }

    /// A pack's bytes.
    pub(crate) fn get(&mut self, store: &Checkpoints<Store>, name: &str) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.read.get(name) {
            return Ok(bytes.clone());
        }
        let bytes = Arc::new(store.get_file(self.entries.get(name).ok_or(StoreError::Run)?)?);
        // What is asked for next is mostly in the same pack.
        while self.held + bytes.len() > self.most
            && let Some((_, eldest)) = self.read.pop_first()
        {
            self.held -= eldest.len();
        }
        self.held += bytes.len();
        self.read.insert(name.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

/// A piece of a run that was put aside, out of its pack.
pub(crate) fn piece_of<'a>(run: &Run, pack: &'a [u8]) -> Result<&'a [u8], StoreError> {
    pack.get(run.at..run.at.saturating_add(run.bytes)).ok_or(StoreError::Run)
}

/// A run out of its pack: the rows, and for entries the keys that have none any more.
pub(crate) fn read_run(run: &Run, pack: &[u8]) -> Result<(Delta, Option<Delta>), StoreError> {
    let bytes = pack.get(run.at..run.at.saturating_add(run.bytes)).ok_or(StoreError::Run)?;
    let (rows, gone) = bytes.split_at_checked(run.bytes.wrapping_sub(run.gone)).ok_or(StoreError::Run)?;
    let gone = if gone.is_empty() { None } else { Some(decode(gone)?) };
    Ok((decode(rows)?, gone))
}
