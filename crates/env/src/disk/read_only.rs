//! A disk on which nothing can be changed, for programs that only look.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock};

/// Another disk, to be read only: whatever would change it is an error of kind `ReadOnlyFilesystem`, and files are
/// opened for reading, so that the right to write them is not needed.
pub struct ReadOnlyDisk(pub Arc<dyn Disk>);

fn refuse<T>() -> io::Result<T> {
    Err(ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        refuse()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn create(&self, _path: &Path) -> io::Result<Box<dyn DiskFile>> {
        refuse()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ReadOnlyFile(self.0.open_to_read(path)?)))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refuse()
    }

    fn sync_dir(&self, _folder: &Path) -> io::Result<()> {
        refuse()
    }

    fn free_space(&self, folder: &Path) -> io::Result<u64> {
        self.0.free_space(folder)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn DiskLock>> {
        refuse()
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock_shared(path)
    }
}

struct ReadOnlyFile(Box<dyn DiskFile>);

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refuse()
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        refuse()
    }

    fn sync(&self) -> io::Result<()> {
        refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimulatedDisk;

    #[test]
    fn nothing_changes() {
        let below = SimulatedDisk::default();
        let (folder, path) = (Path::new("/"), Path::new("/a"));
        below.create(path).unwrap().write_at(b"tidemill", 0).unwrap();
        let before = (below.files(), below.trace().len());
        let disk = ReadOnlyDisk(Arc::new(below.clone()));
        let file = disk.open(path).unwrap();
        let mut buffer = [0; 9];
        assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 4);
        assert_eq!((disk.list(folder).unwrap(), file.length().unwrap()), (vec!["a".to_owned()], 8));
        let refused = [
            disk.create_dir(Path::new("/b")).err(),
            disk.create(Path::new("/b")).err(),
            disk.rename(path, Path::new("/b")).err(),
            disk.remove(path).err(),
            disk.sync_dir(folder).err(),
            disk.lock(Path::new("/lock")).err(),
            file.write_at(b"x", 0).err(),
            file.set_length(0).err(),
            file.sync().err(),
        ];
        for (i, error) in refused.into_iter().enumerate() {
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::ReadOnlyFilesystem), "{i}");
        }
        assert_eq!(below.files(), before.0);
        assert_eq!(below.trace().len(), before.1 + 1, "one read");
    }
}
