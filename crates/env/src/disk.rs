//! The door to the disk: what a program needs that must not lose anything.
//!
//! Nothing here is durable until it is synced: a file's content by [`DiskFile::sync`], the names in
//! a folder (created, renamed, removed) by [`Disk::sync_dir`]. A sync that failed must not be
//! repeated: the operating system may have forgotten what it could not write, and the second call
//! would then succeed without having written anything.

mod crash;
mod read_only;
mod real;
mod simulated;

pub use crash::Fate;
pub use read_only::ReadOnlyDisk;
pub use real::RealDisk;
pub use simulated::{Fault, Operation, SimulatedDisk};

use std::io;
use std::path::Path;

/// Folders and files.
pub trait Disk: Send + Sync {
    /// Makes a folder in an existing one. It is no error if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether there is a file or a folder of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The names of the files in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// A new, empty file. An error of kind `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// An existing file, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// An existing file, for reading only.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    /// Gives a file another name in the same folder; a file that had it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes all creations, renames and removals in the folder durable.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that can still be written to the disk that holds the folder.
    fn free_space(&self, folder: &Path) -> io::Result<u64>;

    /// Takes the lock of this name, creating its file if need be, until the value is dropped or
    /// the process ends. An error of kind `WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Takes a share of the lock of this name, which many may hold, but not beside the holder of the whole. Changes
    /// nothing on the disk. An error of kind `NotFound` if its file is not there, of kind `WouldBlock` if another
    /// holds the whole.
    fn lock_shared(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Reads into the buffer from an offset; fewer bytes than asked for only at the file's end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at an offset. If it fails, any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// The file's length.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes the file's content and length durable, but not its name.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that is held until this is dropped.
pub trait DiskLock: Send + Sync {}
