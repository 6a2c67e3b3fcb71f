//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Disk, DiskFile, DiskLock};

/// The operating system's disk.
pub struct RealDisk;

/// The working folder's name is empty in the parent of a bare file name.
fn folder(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        folder(path).try_exists()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder(path))? {
            let entry = entry?;
            // We give our files plain names; whatever has another kind of name is not ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(folder(path))?.sync_all()
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(folder(path))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        held(file.try_lock(), file)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = File::open(path)?;
        held(file.try_lock_shared(), file)
    }
}

fn held(result: Result<(), TryLockError>, file: File) -> io::Result<Box<dyn DiskLock>> {
    match result {
        Ok(()) => Ok(Box::new(file)),
        Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl DiskLock for File {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_what_the_trait_says() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let file = RealDisk.create(&a).unwrap();
        assert_eq!(RealDisk.create(&a).err().map(|e| e.kind()), Some(ErrorKind::AlreadyExists));
        file.write_at(b"tidemill", 4).unwrap();
        file.sync().unwrap();
        assert_eq!(file.length().unwrap(), 12);
        file.set_length(8).unwrap();
        RealDisk.create_dir(&folder.path().join("inner")).unwrap();
        RealDisk.create_dir(&folder.path().join("inner")).unwrap();
        RealDisk.rename(&a, &b).unwrap();
        RealDisk.sync_dir(folder.path()).unwrap();
        assert_eq!(RealDisk.list(folder.path()).unwrap(), ["b"]);
        let mut buffer = [9; 16];
        let read = RealDisk.open(&b).unwrap().read_at(&mut buffer, 2).unwrap();
        assert_eq!(&buffer[..read], b"\0\0tide");
        assert!(RealDisk.free_space(folder.path()).unwrap() > 0);
        RealDisk.remove(&b).unwrap();
        assert!(!RealDisk.exists(&b).unwrap());
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        assert_eq!(RealDisk.lock_shared(&path).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        drop(held);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn a_share_of_a_lock_keeps_others_from_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(RealDisk.lock_shared(&path).err().map(|e| e.kind()), Some(ErrorKind::NotFound));
        drop(RealDisk.lock(&path).unwrap());
        let shares = [RealDisk.lock_shared(&path).unwrap(), RealDisk.lock_shared(&path).unwrap()];
        assert_eq!(RealDisk.lock(&path).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        drop(shares);
        RealDisk.lock(&path).unwrap();
    }
}
