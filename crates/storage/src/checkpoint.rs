//! Checkpoints: sets of files that a manifest commits at once.
//!
//! Files are put first, each under a new name; then the manifest that lists them. A checkpoint is
//! there when its manifest is. Reading takes the newest one that is whole, and says what was wrong
//! with those after it. Old files go only when a newer checkpoint was read back and found whole.

use std::collections::BTreeSet;

use crate::log::RecordNumber;
use crate::manifest::MANIFEST;
use crate::sealed::{FOOTER, seal, unseal};
use crate::{FileEntry, Manifest, Object, ObjectStore, StorageError};

/// The longest manifest in bytes: about 200,000 files.
const MAX_MANIFEST: usize = 16 << 20;
/// How the names of incarnations' claims begin.
const CLAIM: &str = "incarnation-";

/// The checkpoints in a store, as the incarnation that may write them.
pub struct Checkpoints<S> {
    store: S,
    incarnation: u64,
    next_sequence: u64,
    /// Files that were put, but are in no manifest yet.
    uncommitted: BTreeSet<String>,
}

/// The newest checkpoint that is whole.
#[derive(Debug)]
pub struct Newest {
    /// What it says; nothing if there was never any checkpoint.
    pub manifest: Option<Manifest>,
    /// Why newer ones were passed over.
    pub warnings: Vec<StorageError>,
}

impl<S: ObjectStore> Checkpoints<S> {
    /// Takes over the store for an incarnation: older ones can commit nothing any more.
    ///
    /// # Errors
    /// `Replaced` if a younger one took over already.
    pub fn open(store: S, incarnation: u64) -> Result<Self, StorageError> {
        let mut sequence = 0;
        for object in store.list(MANIFEST)? {
            let place = Manifest::place(&object.name).unwrap_or_default();
            sequence = sequence.max(place.1);
            refuse_younger(incarnation, place.0)?;
        }
        let claims = claims(&store)?;
        refuse_younger(incarnation, claims.last().copied().unwrap_or(0))?;
        store.put(&claim(incarnation), b"")?;
        for old in claims.into_iter().filter(|old| *old < incarnation) {
            store.delete(&claim(old))?;
        }
        Ok(Checkpoints { store, incarnation, next_sequence: sequence + 1, uncommitted: BTreeSet::new() })
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Stores a file that the next manifest may list. The name must be new.
    ///
    /// # Errors
    /// `Damaged` if the name is taken; else what the disk says.
    pub fn put_file(&mut self, name: &str, mut content: Vec<u8>) -> Result<FileEntry, StorageError> {
        if name.starts_with(MANIFEST) || name.starts_with(CLAIM) {
            return Err(StorageError::Name(name.to_owned()));
        }
        let length = content.len() as u64;
        let checksum = seal(name, &mut content);
        if !self.store.put_new(name, &content)? {
            return Err(StorageError::damaged(&self.store.path(name), 0, "there is a file of this name already"));
        }
        self.uncommitted.insert(name.to_owned());
        Ok(FileEntry { name: name.to_owned(), length, checksum })
    }

    /// A file's content, if it is what the manifest says.
    ///
    /// # Errors
    /// `Damaged` if it is missing, or another one.
    pub fn get_file(&self, entry: &FileEntry) -> Result<Vec<u8>, StorageError> {
        let path = self.store.path(&entry.name);
        let damaged = |cause: String| Err(StorageError::damaged(&path, 0, cause));
        let Some(most) = usize::try_from(entry.length).ok().and_then(|length| length.checked_add(FOOTER)) else {
            return damaged(format!("a length of {} bytes cannot be", entry.length));
        };
        let Some(mut bytes) = self.store.get(&entry.name, most)? else { return damaged("the file is missing".into()) };
        let checksum = unseal(&entry.name, &mut bytes, &path)?;
        if bytes.len() as u64 != entry.length || checksum != entry.checksum {
            return damaged("this is not the file that the manifest lists".into());
        }
        Ok(bytes)
    }

    /// Commits a checkpoint. After this it is the newest one; without it, nothing has changed.
    ///
    /// # Errors
    /// `Replaced` if a younger incarnation took over meanwhile; else what the disk says.
    pub fn commit(
        &mut self,
        epoch: u64,
        log_position: RecordNumber,
        files: Vec<FileEntry>,
    ) -> Result<Manifest, StorageError> {
        refuse_younger(self.incarnation, claims(&self.store)?.last().copied().unwrap_or(0))?;
        let (incarnation, sequence) = (self.incarnation, self.next_sequence);
        let manifest = Manifest { incarnation, sequence, epoch, log_position, files };
        let name = manifest.name();
        let mut bytes = manifest.encode();
        seal(&name, &mut bytes);
        // A failed attempt may have left its manifest: the same number is never tried again.
        self.next_sequence += 1;
        if !self.store.put_new(&name, &bytes)? {
            return Err(StorageError::damaged(
                &self.store.path(&name),
                0,
                "there is a manifest of this number already",
            ));
        }
        for file in &manifest.files {
            self.uncommitted.remove(&file.name);
        }
        Ok(manifest)
    }

    /// The newest checkpoint that is whole: its manifest and all its files were read and checked.
    ///
    /// # Errors
    /// `NoCheckpoint` if there are manifests, but none with a whole checkpoint; `Io` if the disk
    /// cannot say what there is.
    pub fn newest(&self) -> Result<Newest, StorageError> {
        let mut warnings = Vec::new();
        for name in self.manifests()?.iter().rev() {
            match self.whole(name) {
                Ok(manifest) => return Ok(Newest { manifest: Some(manifest), warnings }),
                Err(error) => warnings.push(error),
            }
        }
        if warnings.is_empty() {
            return Ok(Newest { manifest: None, warnings });
        }
        let reasons: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        Err(StorageError::NoCheckpoint(reasons.join("; ")))
    }

    /// Removes what no checkpoint needs, but for the newest `keep`, at least one, that are readable. The newest
    /// is read back whole first; nothing is removed if it is not. Returns the log position of the
    /// oldest one kept: records below it are not needed any more.
    ///
    /// # Errors
    /// `Damaged` if the newest checkpoint is not whole; else what the disk says.
    pub fn collect_garbage(&self, keep: usize) -> Result<RecordNumber, StorageError> {
        let names = self.manifests()?;
        let mut kept = Vec::new();
        let mut rest = names.iter().rev();
        let Some(newest) = rest.next() else { return Ok(0) };
        kept.push(self.whole(newest)?);
        let mut old = Vec::new();
        for name in rest {
            match self.manifest(name) {
                _ if kept.len() >= keep => old.push(name),
                Ok(manifest) => kept.push(manifest),
                Err(StorageError::Damaged { .. }) => old.push(name),
                // A disk that cannot read now may be able to later.
                Err(error) => return Err(error),
            }
        }
        for name in old {
            self.store.delete(name)?;
        }
        let needed: BTreeSet<&str> =
            kept.iter().flat_map(|manifest| &manifest.files).map(|file| file.name.as_str()).collect();
        for Object { name, .. } in self.store.list("")? {
            let ours = name.starts_with(MANIFEST) || name.starts_with(CLAIM);
            if !ours && !needed.contains(name.as_str()) && !self.uncommitted.contains(&name) {
                self.store.delete(&name)?;
            }
        }
        Ok(kept.iter().map(|manifest| manifest.log_position).min().unwrap_or(0))
    }

    /// The manifests' names, oldest first.
    fn manifests(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.store.list(MANIFEST)?.into_iter().map(|object| object.name).collect())
    }

    fn manifest(&self, name: &str) -> Result<Manifest, StorageError> {
        let path = self.store.path(name);
        let damaged = |cause: String| StorageError::damaged(&path, 0, cause);
        let bytes = self.store.get(name, MAX_MANIFEST)?;
        let mut bytes = bytes.ok_or_else(|| damaged("the manifest is missing".into()))?;
        unseal(name, &mut bytes, &path)?;
        Manifest::decode(&bytes).map_err(damaged)
    }

    fn whole(&self, name: &str) -> Result<Manifest, StorageError> {
        let manifest = self.manifest(name)?;
        for file in &manifest.files {
            self.get_file(file)?;
        }
        Ok(manifest)
    }
}

fn claim(incarnation: u64) -> String {
    format!("{CLAIM}{incarnation:020}")
}

/// The incarnations that took over, oldest first.
fn claims<S: ObjectStore>(store: &S) -> Result<Vec<u64>, StorageError> {
    let claims = store.list(CLAIM)?;
    Ok(claims.iter().filter_map(|object| object.name[CLAIM.len()..].parse().ok()).collect())
}

fn refuse_younger(ours: u64, theirs: u64) -> Result<(), StorageError> {
    if theirs > ours { Err(StorageError::Replaced { ours, theirs }) } else { Ok(()) }
}
