//! Reading the newest checkpoint that is whole.

use super::{Checkpoints, manifests};
use crate::claim::Claims;
use crate::{FileEntry, Manifest, ObjectStore, StorageError};

/// The newest checkpoint that is whole.
#[derive(Debug)]
pub struct Newest {
    /// What it says; nothing if there was never any checkpoint.
    pub manifest: Option<Manifest>,
    /// Why newer ones were passed over.
    pub warnings: Vec<StorageError>,
}

/// What was made of the newest checkpoint that is whole.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What the manifest says and what was made of the files; nothing if there was never any checkpoint.
    pub checkpoint: Option<(Manifest, T)>,
    /// Why newer ones were passed over.
    pub warnings: Vec<StorageError>,
}

impl<S: ObjectStore> Checkpoints<S> {
    /// The newest checkpoint that is whole: its manifest and all its files were read and checked.
    ///
    /// # Errors
    /// `NoCheckpoint` if there are manifests, but none with a whole checkpoint; `Io` if the disk
    /// cannot say what there is.
    pub fn newest(&self) -> Result<Newest, StorageError> {
        let Loaded { checkpoint, warnings } = self.load(|_| (), |(), _, _| Ok(()))?;
        Ok(Newest { manifest: checkpoint.map(|(manifest, ())| manifest), warnings })
    }

    /// Loads the newest checkpoint that is whole, reading each file once.
    ///
    /// `begin` makes an empty state for a manifest, `take` puts a file into it, in the order of the manifest; both
    /// begin anew with the checkpoint before if a file is not whole, or if `take` cannot make anything of it and
    /// says why. One file is in memory at a time, beside what `take` keeps.
    ///
    /// # Errors
    /// As [`Checkpoints::newest`].
    pub fn load<T>(
        &self,
        mut begin: impl FnMut(&Manifest) -> T,
        mut take: impl FnMut(&mut T, &FileEntry, Vec<u8>) -> Result<(), String>,
    ) -> Result<Loaded<T>, StorageError> {
        let mut warnings = Vec::new();
        let objects = self.store.list("")?;
        let (_, names) = manifests(&objects, &Claims::among(&objects));
        for name in names.into_iter().rev() {
            match self.load_one(name, &mut begin, &mut take) {
                Ok(checkpoint) => return Ok(Loaded { checkpoint: Some(checkpoint), warnings }),
                Err(error) => warnings.push(error),
            }
        }
        if warnings.is_empty() {
            return Ok(Loaded { checkpoint: None, warnings });
        }
        let reasons: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        Err(StorageError::NoCheckpoint(reasons.join("; ")))
    }

    fn load_one<T>(
        &self,
        name: &str,
        begin: &mut impl FnMut(&Manifest) -> T,
        take: &mut impl FnMut(&mut T, &FileEntry, Vec<u8>) -> Result<(), String>,
    ) -> Result<(Manifest, T), StorageError> {
        let manifest = self.manifest(name)?;
        let mut state = begin(&manifest);
        for file in &manifest.files {
            let bytes = self.get_file(file)?;
            let taken = take(&mut state, file, bytes);
            taken.map_err(|cause| StorageError::damaged(&self.store.path(&file.name), 0, cause))?;
        }
        Ok((manifest, state))
    }
}
