//! What a simulated disk knows: what programs see, what is durable, and what lies between.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Fault, Operation};

#[derive(Clone, Default)]
pub(super) struct State {
    /// Names as programs see them, and as they are on disk.
    pub(super) live: BTreeMap<PathBuf, Node>,
    pub(super) durable: BTreeMap<PathBuf, Node>,
    /// What is not synced yet, in order.
    pub(super) names: Vec<NameChange>,
    pub(super) files: Vec<Content>,
    /// Who holds a lock: how many a share of it; nobody a share: one the whole.
    pub(super) locks: BTreeMap<PathBuf, usize>,
    pub(super) trace: Vec<Operation>,
    pub(super) faults: BTreeMap<usize, Fault>,
    pub(super) capacity: Option<u64>,
    pub(super) off: bool,
    pub(super) photographs: Photographs,
}

/// What the disk was like before some of its operations.
#[derive(Clone, Default)]
pub(super) struct Photographs {
    /// Of how many operations one is chosen, and the number of the first one.
    pub(super) chosen: Option<(usize, usize)>,
    pub(super) taken: Vec<(usize, State)>,
}

impl Photographs {
    fn is_chosen(&self, operation: usize) -> bool {
        self.chosen.is_some_and(|(one_of, first)| operation >= first && (operation - first).is_multiple_of(one_of))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Folder,
    File(usize),
}

/// A name set, or taken away; or both at once.
#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) set: Option<(PathBuf, Node)>,
    pub(super) unset: Option<PathBuf>,
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, node)) = &self.set {
            names.insert(path.clone(), *node);
        }
    }

    pub(super) fn folder(&self) -> &Path {
        let path = self.set.as_ref().map(|(path, _)| path).or(self.unset.as_ref());
        path.and_then(|p| p.parent()).unwrap_or(Path::new(""))
    }
}

/// A file's bytes as programs see them, as they are on disk, and what lies between.
#[derive(Clone, Default)]
pub(in crate::disk) struct Content {
    pub(in crate::disk) live: Vec<u8>,
    pub(in crate::disk) durable: Vec<u8>,
    pub(in crate::disk) unsynced: Vec<Unsynced>,
}

/// A change of a file's content that may or may not be on disk.
#[derive(Clone)]
pub(in crate::disk) struct Unsynced {
    pub(in crate::disk) change: Change,
    /// A failed sync gave it up: the next one will not write it.
    pub(super) given_up: bool,
}

#[derive(Clone)]
pub(in crate::disk) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength(usize),
}

impl Change {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*offset..end].copy_from_slice(bytes);
            }
            Change::SetLength(length) => to.resize(*length, 0),
        }
    }
}

impl Content {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(Unsynced { change, given_up: false });
    }

    pub(super) fn sync(&mut self) {
        for Unsynced { change, .. } in self.unsynced.drain(..).filter(|u| !u.given_up) {
            change.apply(&mut self.durable);
        }
    }
}

impl State {
    /// Records an operation. `Ok(None)`: go on; `Ok(Some(fault))`: fail in the way of the fault.
    pub(super) fn enter(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        if self.off {
            return Err(Fault::Crash.error());
        }
        if operation.changes() && self.photographs.is_chosen(self.trace.len()) {
            let photograph = self.at_rest();
            self.photographs.taken.push((self.trace.len(), photograph));
        }
        let fault = self.faults.remove(&self.trace.len());
        self.off = fault == Some(Fault::Crash);
        self.trace.push(operation);
        Ok(fault)
    }

    /// The same files, and nothing of what happens to them.
    pub(super) fn at_rest(&self) -> State {
        State {
            live: self.live.clone(),
            durable: self.durable.clone(),
            names: self.names.clone(),
            files: self.files.clone(),
            capacity: self.capacity,
            ..State::default()
        }
    }

    /// For operations that either happen or do not. In a crash it may have happened.
    pub(super) fn enter_whole(&mut self, operation: Operation, act: impl FnOnce(&mut State)) -> io::Result<()> {
        let fault = self.enter(operation)?;
        if matches!(fault, None | Some(Fault::Crash)) {
            act(self);
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn folder(&self, path: &Path) -> io::Result<()> {
        let root = path.parent().is_none_or(|parent| parent == path);
        match self.live.get(path) {
            Some(Node::Folder) => Ok(()),
            _ if root => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn parent(&self, path: &Path) -> io::Result<()> {
        self.folder(path.parent().unwrap_or(Path::new("")))
    }

    pub(super) fn rename_in(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.names.push(change);
    }

    pub(super) fn used(&self) -> u64 {
        let lengths = self.live.values().map(|node| match node {
            Node::File(file) => self.files[*file].live.len() as u64,
            Node::Folder => 0,
        });
        lengths.sum()
    }
}
