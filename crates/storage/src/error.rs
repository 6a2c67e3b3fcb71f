//! What goes wrong on a disk.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A disk that does not do what it should, or a file that is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's content is not what was written.
    #[error("{} is damaged at byte {offset}: {cause}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        cause: String,
    },
    /// Another process uses the folder.
    #[error("the folder {} is in use by another process; stop that one first", .0.display())]
    InUse(PathBuf),
    /// A younger process took over; this one may not write any more.
    #[error("incarnation {ours} was replaced by incarnation {theirs} and may not write any more")]
    Replaced {
        /// The number of this process's incarnation.
        ours: u64,
        /// The number of the one that took over.
        theirs: u64,
    },
    /// The store has the checkpoints of another log.
    #[error("{} has the checkpoints of another data folder: use that folder with it, or another place", .0.display())]
    Foreign(PathBuf),
    /// A name that a store cannot give to an object.
    #[error("{0:?} cannot be an object's name: use a-z, 0-9, '-', '_' and '.', at most 128 of them, no '.' in front")]
    Name(String),
    /// There is a manifest or more, but no complete checkpoint.
    #[error("no checkpoint is readable: {0}")]
    NoCheckpoint(String),
    /// The log does not hold the records that are needed.
    #[error("record {needed} is needed, but the log holds records from {first} up to, not including, {end}")]
    NotInLog {
        /// The record where reading should begin.
        needed: u64,
        /// The log's first record.
        first: u64,
        /// The number after the log's last record.
        end: u64,
    },
}

impl StorageError {
    pub(crate) fn damaged(path: &Path, offset: u64, cause: impl Into<String>) -> Self {
        StorageError::Damaged { path: path.to_owned(), offset, cause: cause.into() }
    }

    /// Whether the disk is full, which may pass.
    pub fn is_full(&self) -> bool {
        let StorageError::Io { source, .. } = self else { return false };
        matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// Whether a sync failed: nobody knows what is on disk, so the process must end and start again.
    pub fn is_fatal(&self) -> bool {
        matches!(self, StorageError::Io { action: SYNC, .. })
    }
}

/// The action of an error of a sync.
const SYNC: &str = "sync";

/// Names the action and the file of an error of the operating system.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { action, path: path.to_owned(), source })
    }
}
