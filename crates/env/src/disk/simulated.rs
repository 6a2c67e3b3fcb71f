//! A disk in memory that can fail, fill up and lose power.

mod operations;
mod state;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::crash::{self, Fate};
pub(super) use state::{Change, Content};
use state::{Node, State};

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
        let after = self.0.lock().at_rest();
        SimulatedDisk(Arc::new(Mutex::new(after)))
    }

    /// How many operations there were so far.
    pub fn operations(&self) -> usize {
        self.0.lock().trace.len()
    }

    /// From now on keeps what the disk is like before operations that change something: one of so many, from that one
    /// on. A program that ends when its disk fails can be tried so, without it being told.
    pub fn photograph(&self, one_of: usize, first: usize) {
        self.0.lock().photographs.chosen = Some((one_of.max(1), first));
    }

    /// What was kept: the numbers of operations, and the disk as it was before each.
    pub fn photographs(&self) -> Vec<(usize, SimulatedDisk)> {
        let taken = std::mem::take(&mut self.0.lock().photographs.taken);
        taken.into_iter().map(|(operation, state)| (operation, SimulatedDisk(Arc::new(Mutex::new(state))))).collect()
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
