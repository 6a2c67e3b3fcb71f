//! The data folder: who owns it, and how files get into it whole.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_env::{Disk, DiskFile, DiskLock, Env, ReadOnlyDisk};

use crate::error::At;
use crate::sealed::{FOOTER, seal, unseal};
use crate::{Size, StorageError};

const LOCK: &str = "lock";
const INCARNATION: &str = "incarnation";
pub(crate) const LOG: &str = "log";

/// The folder that a process owns, and nobody else until this is dropped and all logs and stores
/// that were opened in it.
pub struct DataFolder {
    folder: Folder,
    incarnation: u64,
    opened_micros: i64,
}

impl DataFolder {
    /// Takes the folder, which is made if need be, and counts one incarnation more.
    ///
    /// # Errors
    /// `InUse` while another process has it.
    pub fn open(env: &Env, path: &Path) -> Result<Self, StorageError> {
        let disk = env.disk().clone();
        make(&*disk, path)?;
        let lock = match disk.lock(&path.join(LOCK)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(StorageError::InUse(path.to_owned())),
            other => other.at("lock", path)?,
        };
        let folder = Folder { disk, path: path.to_owned(), _lock: Some(lock.into()) };
        folder.remove_unfinished()?;
        let incarnation = folder.incarnation()?.unwrap_or(0) + 1;
        let mut bytes = incarnation.to_le_bytes().to_vec();
        seal(INCARNATION, &mut bytes);
        folder.put(INCARNATION, &bytes)?;
        Ok(DataFolder { folder, incarnation, opened_micros: env.now_micros() })
    }

    /// How often the folder was opened, this time included. A process with a smaller number is a
    /// ghost, and what it writes must be refused.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// When it was opened, in microseconds since the Unix epoch.
    pub(crate) fn opened_micros(&self) -> i64 {
        self.opened_micros
    }

    /// A folder in this one, made if need be.
    pub(crate) fn inner(&self, name: &str) -> Result<Folder, StorageError> {
        let path = self.folder.at(name);
        make(&*self.folder.disk, &path)?;
        Ok(Folder { path, ..self.folder.clone() })
    }
}

/// Makes a folder and those above it.
fn make(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let Some(above) = path.parent() else { return Ok(()) };
    let there = disk.exists(path).at("look for", path)?;
    if !there {
        make(disk, above)?;
        disk.create_dir(path).at("create", path)?;
    }
    // One that is there may have been made just before a crash, so its name is synced always; but
    // not in a folder of others, which we may not even open.
    match disk.sync_dir(above) {
        Err(error) if there && error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other.at("sync", above),
    }
}

/// A folder in the data folder, or this one itself, and the disk that it is on.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    /// As long as anyone may write, nobody else may. Without it nothing may be written.
    _lock: Option<Arc<dyn DiskLock>>,
}

impl Folder {
    /// A folder that can only be read. No process writes in it while this is there, unless it never had a lock.
    pub(crate) fn to_read(env: &Env, path: &Path) -> Result<Self, StorageError> {
        let disk = Arc::new(ReadOnlyDisk(env.disk().clone()));
        disk.list(path).at("read", path)?;
        let lock = match disk.lock_shared(&path.join(LOCK)) {
            Ok(lock) => Some(lock.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(StorageError::InUse(path.to_owned())),
            Err(error) => return Err(error).at("lock", path),
        };
        Ok(Folder { disk, path: path.to_owned(), _lock: lock })
    }

    /// A folder in this one, if it is there.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Self>, StorageError> {
        let path = self.at(name);
        let there = self.disk.exists(&path).at("look for", &path)?;
        Ok(there.then(|| Folder { path, ..self.clone() }))
    }

    /// How often the data folder was opened; nothing if never.
    pub(crate) fn incarnation(&self) -> Result<Option<u64>, StorageError> {
        let path = self.at(INCARNATION);
        match self.read(INCARNATION, 8 + FOOTER)? {
            // The folders below are made only after the file is durable.
            None if self.existing(LOG)?.is_some() => Err(StorageError::damaged(&path, 0, "the file is missing")),
            None => Ok(None),
            Some(mut bytes) => {
                unseal(INCARNATION, &mut bytes, &path)?;
                if bytes.len() != 8 {
                    return Err(StorageError::damaged(&path, 0, "this is not a number"));
                }
                Ok(Some(crate::number(&bytes, 0)))
            }
        }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The files whose names do not say that they are unfinished.
    pub(crate) fn list(&self) -> Result<Vec<String>, StorageError> {
        let mut names = self.disk.list(&self.path).at("list", &self.path)?;
        names.retain(|name| !name.ends_with(UNFINISHED));
        Ok(names)
    }

    /// How much is in it.
    pub(crate) fn size(&self) -> Result<Size, StorageError> {
        let mut size = Size::default();
        for name in self.disk.list(&self.path).at("list", &self.path)? {
            size.files += 1;
            size.bytes += self.length(&name)?.unwrap_or(0);
            size.unfinished += u64::from(name.ends_with(UNFINISHED));
        }
        Ok(size)
    }

    /// Removes what a crash left half-written.
    pub(crate) fn remove_unfinished(&self) -> Result<(), StorageError> {
        for name in self.disk.list(&self.path).at("list", &self.path)? {
            if name.ends_with(UNFINISHED) {
                self.disk.remove(&self.at(&name)).at("remove", &self.at(&name))?;
            }
        }
        Ok(())
    }

    /// Makes a file with this content appear under its name whole and durable, or not at all, in
    /// place of the one that had the name.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<Box<dyn DiskFile>, StorageError> {
        let (path, unfinished) = (self.at(name), self.at(&format!("{name}{UNFINISHED}")));
        let written = self.write_unfinished(&unfinished, bytes);
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                // On a full disk this makes room for the next attempt; if it fails too, the next
                // start removes it.
                let _ = self.disk.remove(&unfinished);
                return Err(error);
            }
        };
        self.disk.rename(&unfinished, &path).at("rename", &unfinished)?;
        self.sync()?;
        Ok(file)
    }

    fn write_unfinished(&self, path: &Path, bytes: &[u8]) -> Result<Box<dyn DiskFile>, StorageError> {
        let file = match self.disk.create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.disk.remove(path).at("remove", path)?;
                self.disk.create(path)
            }
            other => other,
        };
        let file = file.at("create", path)?;
        let mut rest = bytes;
        loop {
            let (piece, more) = rest.split_at(rest.len().min(PIECE));
            file.write_at(piece, (bytes.len() - rest.len()) as u64).at("write", path)?;
            file.sync().at("sync", path)?;
            if more.is_empty() {
                return Ok(file);
            }
            rest = more;
        }
    }

    /// A file's content, or nothing if there is no such file.
    ///
    /// # Errors
    /// `Damaged` if it is longer than it may be; it is not read then.
    pub(crate) fn read(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.at(name);
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.at("open", &path)?,
        };
        let length = file.length().at("measure", &path)?;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= at_most) else {
            let cause = format!("the file has {length} bytes where at most {at_most} can be");
            return Err(StorageError::damaged(&path, at_most as u64, cause));
        };
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0).at("read", &path)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// A file's length in bytes, or nothing if there is no such file.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let path = self.at(name);
        match self.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.at("open", &path)?.length().at("measure", &path).map(Some),
        }
    }

    /// Removes a file for good.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.at(name);
        self.disk.remove(&path).at("remove", &path)?;
        self.sync()
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.disk.sync_dir(&self.path).at("sync", &self.path)
    }
}

/// Files are synced after so many bytes: a sync of the log meanwhile may have to wait for all that the disk has been given and not yet
/// written.
const PIECE: usize = 4 << 20;

/// How the names of files end that are being written.
const UNFINISHED: &str = ".new";

#[cfg(test)]
mod tests {
    use tidemill_env::{RealDisk, SimulatedDisk};

    use super::*;

    fn on(disk: Arc<dyn Disk>) -> Env {
        Env::simulated(Arc::default()).with_disk(disk)
    }

    #[test]
    fn one_process_at_a_time_and_incarnations_grow() {
        let temporary = tempfile::tempdir().unwrap();
        let disks: [Arc<dyn Disk>; 2] = [Arc::new(RealDisk), Arc::new(SimulatedDisk::default())];
        for (disk, path) in disks.into_iter().zip([temporary.path().join("a/b"), PathBuf::from("/a/b")]) {
            for expected in 1..4 {
                let folder = DataFolder::open(&on(disk.clone()), &path).unwrap();
                assert_eq!(folder.incarnation(), expected);
                let second = DataFolder::open(&on(disk.clone()), &path).err().unwrap();
                assert!(matches!(second, StorageError::InUse(_)), "{second}");
            }
        }
    }

    #[test]
    fn a_store_keeps_the_folder_locked() {
        let env = Env::simulated(Arc::default());
        let data = DataFolder::open(&env, Path::new("/data")).unwrap();
        let inner = data.inner("store").unwrap();
        drop(data);
        assert!(matches!(DataFolder::open(&env, Path::new("/data")), Err(StorageError::InUse(_))));
        drop(inner);
        DataFolder::open(&env, Path::new("/data")).unwrap();
    }

    #[test]
    fn a_missing_incarnation_is_refused_once_there_is_a_log() {
        let disk = SimulatedDisk::default();
        let path = Path::new("/data");
        drop(DataFolder::open(&on(Arc::new(disk.clone())), path).unwrap().inner(LOG).unwrap());
        disk.remove(&path.join(INCARNATION)).unwrap();
        for _ in 0..3 {
            let error = DataFolder::open(&on(Arc::new(disk.clone())), path).err().unwrap();
            assert!(error.to_string().ends_with("incarnation is damaged at byte 0: the file is missing"), "{error}");
        }
    }

    #[test]
    fn a_damaged_incarnation_is_refused() {
        let disk = SimulatedDisk::default();
        let path = Path::new("/data");
        drop(DataFolder::open(&on(Arc::new(disk.clone())), path).unwrap());
        for bit in 0..(8 + FOOTER) * 8 {
            let bad = disk.restart();
            bad.damage(&path.join(INCARNATION), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let error = DataFolder::open(&on(Arc::new(bad)), path).err().unwrap();
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
    }
}
