//! Looking at a data folder that nobody uses, without changing anything in it.

use std::path::Path;

use tidemill_env::Env;

use crate::StorageError;
use crate::checkpoint::inspect::{CheckpointFindings, inspect_checkpoints};
use crate::folder::{Folder, LOG};
use crate::log::inspect::{LogFindings, inspect};
use crate::store::FolderStore;

/// A data folder that is looked at. No process can open it meanwhile; others may look too.
pub struct Inspection {
    folder: Folder,
}

/// How much is in one of the data folder's folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many files.
    pub files: u64,
    /// Their lengths in all.
    pub bytes: u64,
    /// How many of them were being written when a process ended; the next start removes them.
    pub unfinished: u64,
}

impl Inspection {
    /// Looks at a folder, with the right to read it. Nothing is changed, not even a lock's file made.
    ///
    /// # Errors
    /// `InUse` while a process has it; `Io` if it is not there.
    pub fn open(env: &Env, path: &Path) -> Result<Self, StorageError> {
        Ok(Inspection { folder: Folder::to_read(env, path)? })
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// How often the folder was opened; nothing if never.
    ///
    /// # Errors
    /// `Damaged` as for a start.
    pub fn incarnation(&self) -> Result<Option<u64>, StorageError> {
        self.folder.incarnation()
    }

    /// How much is in a folder of this folder (`""`: in itself); nothing if it is not there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn size(&self, name: &str) -> Result<Option<Size>, StorageError> {
        let folder = if name.is_empty() { Some(self.folder.clone()) } else { self.folder.existing(name)? };
        folder.map(|folder| folder.size()).transpose()
    }

    /// What there is of the log; nothing if there is none. `read` hears how many bytes were read.
    ///
    /// # Errors
    /// If the disk cannot say what there is. What is not as it was written is in the findings.
    pub fn log(&self, max_record: u64, read: &mut dyn FnMut(u64)) -> Result<Option<LogFindings>, StorageError> {
        let Some(folder) = self.folder.existing(LOG)? else { return Ok(None) };
        // A folder whose count is damaged does not say how young a segment may be.
        let next = self.incarnation().map_or(u64::MAX, |incarnation| incarnation.unwrap_or(0).saturating_add(1));
        inspect(&folder, next, max_record, read).map(Some)
    }

    /// What there is of the checkpoints in a folder; nothing if it is not there. `read` hears how many bytes were read.
    ///
    /// # Errors
    /// If the disk cannot say what there is. What is not as it was written is in the findings.
    pub fn checkpoints(
        &self,
        name: &str,
        read: &mut dyn FnMut(u64),
    ) -> Result<Option<CheckpointFindings>, StorageError> {
        let Some(folder) = self.folder.existing(name)? else { return Ok(None) };
        inspect_checkpoints(&FolderStore::to_read(folder), read).map(Some)
    }
}
