//! A disk in memory that can fail, fill up and lose power.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::crash::{self, Fate};
use super::{Disk, DiskFile, DiskLock};

/// One operation of a trace. Its place in the trace is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it: they are the methods of Disk and DiskFile")]
pub enum Operation {
    CreateDir { path: PathBuf },
    Create { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    SyncDir { path: PathBuf },
    Read { path: PathBuf, offset: u64 },
    Write { path: PathBuf, offset: u64, length: u64 },
    SetLength { path: PathBuf, length: u64 },
    Sync { path: PathBuf },
}

impl Operation {
    /// Whether it does anything that a crash could undo or prevent.
    pub fn changes(&self) -> bool {
        !matches!(self, Operation::Read { .. })
    }
}

/// What an operation can be made to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error of the device. Half of a write is done; a failed sync has forgotten what it should
    /// have written, and no later one makes up for it.
    Device,
    /// The disk is full. Half of a write is done.
    NoSpace,
    /// The power goes while it is under way: nothing works any more, see [`SimulatedDisk::crash`].
    Crash,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::Device => io::Error::from_raw_os_error(5),
            Fault::NoSpace => ErrorKind::StorageFull.into(),
            Fault::Crash => io::Error::other("the simulated machine is off"),
        }
    }
}

/// A disk in memory, deterministic, that remembers what was synced. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    /// Names as programs see them, and as they are on disk.
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What is not synced yet, in order.
    names: Vec<NameChange>,
    files: Vec<Content>,
    locks: BTreeSet<PathBuf>,
    trace: Vec<Operation>,
    faults: BTreeMap<usize, Fault>,
    capacity: Option<u64>,
    off: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// A name set, or taken away; or both at once.
#[derive(Clone)]
pub(super) struct NameChange {
    set: Option<(PathBuf, Node)>,
    unset: Option<PathBuf>,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, node)) = &self.set {
            names.insert(path.clone(), *node);
        }
    }

    fn folder(&self) -> &Path {
        let path = self.set.as_ref().map(|(path, _)| path).or(self.unset.as_ref());
        path.and_then(|p| p.parent()).unwrap_or(Path::new(""))
    }
}

/// A file's bytes as programs see them, as they are on disk, and what lies between.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Unsynced>,
}

/// A change of a file's content that may or may not be on disk.
#[derive(Clone)]
pub(super) struct Unsynced {
    pub(super) change: Change,
    /// A failed sync gave it up: the next one will not write it.
    given_up: bool,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
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
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(Unsynced { change, given_up: false });
    }

    fn sync(&mut self) {
        for Unsynced { change, .. } in self.unsynced.drain(..).filter(|u| !u.given_up) {
            change.apply(&mut self.durable);
        }
    }
}

impl State {
    /// Records an operation. `Ok(None)`: go on; `Ok(Some(fault))`: fail in the way of the fault.
    fn enter(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        if self.off {
            return Err(Fault::Crash.error());
        }
        let fault = self.faults.remove(&self.trace.len());
        self.off = fault == Some(Fault::Crash);
        self.trace.push(operation);
        Ok(fault)
    }

    /// For operations that either happen or do not. In a crash it may have happened.
    fn enter_whole(&mut self, operation: Operation, act: impl FnOnce(&mut State)) -> io::Result<()> {
        let fault = self.enter(operation)?;
        if matches!(fault, None | Some(Fault::Crash)) {
            act(self);
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        let root = path.parent().is_none_or(|parent| parent == path);
        match self.live.get(path) {
            Some(Node::Folder) => Ok(()),
            _ if root => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<()> {
        self.folder(path.parent().unwrap_or(Path::new("")))
    }

    fn rename_in(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.names.push(change);
    }

    fn used(&self) -> u64 {
        let lengths = self.live.values().map(|node| match node {
            Node::File(file) => self.files[*file].live.len() as u64,
            Node::Folder => 0,
        });
        lengths.sum()
    }
}

/// What a test does to the disk.
impl SimulatedDisk {
    /// Makes the operation with this number fail; numbers count from the disk's creation.
    pub fn fail_at(&self, operation: usize, fault: Fault) {
        self.0.lock().faults.insert(operation, fault);
    }

    /// How many bytes the files may have in all; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// All operations so far.
    pub fn trace(&self) -> Vec<Operation> {
        self.0.lock().trace.clone()
    }

    /// The disk as the next start of the machine finds it if the power goes now.
    pub fn crash(&self, fate: Fate) -> SimulatedDisk {
        let state = self.0.lock();
        let mut names = state.durable.clone();
        for (i, change) in state.names.iter().enumerate() {
            if fate.keeps_name(i, state.names.len()) {
                change.apply(&mut names);
            }
        }
        let mut after = State { capacity: state.capacity, ..State::default() };
        for (path, node) in &names {
            // A folder whose creation was lost takes everything in it along.
            let lost = path.ancestors().skip(1).any(|folder| {
                folder.parent().is_some_and(|up| up != folder) && names.get(folder) != Some(&Node::Folder)
            });
            let node = match node {
                _ if lost => continue,
                Node::Folder => Node::Folder,
                Node::File(file) => {
                    let bytes = crash::survivor(&state.files[*file], fate.of_file(*file));
                    after.files.push(Content { live: bytes.clone(), durable: bytes, unsynced: Vec::new() });
                    Node::File(after.files.len() - 1)
                }
            };
            after.live.insert(path.clone(), node);
        }
        after.durable = after.live.clone();
        SimulatedDisk(Arc::new(Mutex::new(after)))
    }

    /// The disk as the next process finds it if this one is killed now and the machine stays on.
    pub fn restart(&self) -> SimulatedDisk {
        let state = self.0.lock().clone();
        let after = State { locks: BTreeSet::new(), trace: Vec::new(), faults: BTreeMap::new(), off: false, ..state };
        SimulatedDisk(Arc::new(Mutex::new(after)))
    }

    /// Changes a file behind everyone's back, as a failing disk does.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&self, path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let file = state.file(path).expect("damage is done to a file that is there");
        let content = &mut state.files[file];
        content.sync();
        how(&mut content.live);
        content.durable = content.live.clone();
    }

    /// All files and their contents.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.0.lock();
        let files = state.live.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path.clone(), state.files[*file].live.clone())),
            Node::Folder => None,
        });
        files.collect()
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.parent(path)?;
        if state.live.contains_key(path) {
            return state.folder(path);
        }
        let set = Some((path.to_owned(), Node::Folder));
        state.enter_whole(Operation::CreateDir { path: path.to_owned() }, |state| {
            state.rename_in(NameChange { set, unset: None });
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.0.lock();
        Ok(state.live.contains_key(path) || state.folder(path).is_ok())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        state.folder(folder)?;
        let files = state.live.iter().filter(|(path, node)| **node != Node::Folder && path.parent() == Some(folder));
        Ok(files.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.parent(path)?;
        if state.live.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        let set = Some((path.to_owned(), Node::File(file)));
        state.enter_whole(Operation::Create { path: path.to_owned() }, |state| {
            state.files.push(Content::default());
            state.rename_in(NameChange { set, unset: None });
        })?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.lock().file(path)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let node = Node::File(state.file(from)?);
        if from.parent() != to.parent() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "files are renamed within their folder only"));
        }
        let change = NameChange { set: Some((to.to_owned(), node)), unset: Some(from.to_owned()) };
        let operation = Operation::Rename { from: from.to_owned(), to: to.to_owned() };
        state.enter_whole(operation, |state| state.rename_in(change))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.file(path)?;
        let change = NameChange { set: None, unset: Some(path.to_owned()) };
        state.enter_whole(Operation::Remove { path: path.to_owned() }, |state| state.rename_in(change))
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.folder(folder)?;
        if let Some(fault) = state.enter(Operation::SyncDir { path: folder.to_owned() })? {
            return Err(fault.error());
        }
        let State { names, durable, .. } = &mut *state;
        names.retain(|change| {
            let here = change.folder() == folder;
            if here {
                change.apply(durable);
            }
            !here
        });
        Ok(())
    }

    fn free_space(&self, _folder: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        if !self.0.lock().locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned() }))
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    path: PathBuf,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        if let Some(fault) = state.enter(Operation::Read { path: self.path.clone(), offset })? {
            return Err(fault.error());
        }
        let live = &state.files[self.file].live;
        let from = live.len().min(offset as usize);
        let read = buffer.len().min(live.len() - from);
        buffer[..read].copy_from_slice(&live[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let length = bytes.len() as u64;
        let fault = state.enter(Operation::Write { path: self.path.clone(), offset, length })?;
        let grows = (offset + length).saturating_sub(state.files[self.file].live.len() as u64);
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        let (kept, result) = match fault {
            Some(Fault::Crash) => (length, Err(Fault::Crash.error())),
            Some(fault) => (length / 2, Err(fault.error())),
            None if grows > room => (length - (grows - room), Err(Fault::NoSpace.error())),
            None => (length, Ok(())),
        };
        let bytes = bytes[..kept as usize].to_vec();
        state.files[self.file].change(Change::Write { offset: offset as usize, bytes });
        result
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].live.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.enter_whole(Operation::SetLength { path: self.path.clone(), length }, |state| {
            state.files[self.file].change(Change::SetLength(length as usize));
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.enter(Operation::Sync { path: self.path.clone() })?;
        let content = &mut state.files[self.file];
        match fault {
            None => content.sync(),
            Some(Fault::Crash) => {}
            Some(_) => content.unsynced.iter_mut().for_each(|u| u.given_up = true),
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl DiskLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.0.lock().locks.remove(&self.path);
    }
}
