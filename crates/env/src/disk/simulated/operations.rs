//! What programs do with a simulated disk.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::state::{Change, Content, NameChange, Node, State};
use super::{Fault, Operation, SimulatedDisk};
use crate::disk::{Disk, DiskFile, DiskLock};

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
        let mut state = self.0.lock();
        if state.locks.contains_key(path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.locks.insert(path.to_owned(), 0);
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.0.lock();
        state.file(path)?;
        match state.locks.get_mut(path) {
            Some(0) => return Err(ErrorKind::WouldBlock.into()),
            Some(shares) => *shares += 1,
            None => drop(state.locks.insert(path.to_owned(), 1)),
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
        let mut state = self.disk.0.lock();
        match state.locks.get_mut(&self.path) {
            Some(shares) if *shares > 1 => *shares -= 1,
            _ => drop(state.locks.remove(&self.path)),
        }
    }
}
