//! Checkpoints: sets of files that a manifest commits at once.
//!
//! Files are put first, each under a new name; then the manifest that lists them. A checkpoint is
//! there when its manifest is. Reading takes the newest one that is whole, and says what was wrong
//! with those after it. Old files go only when a newer checkpoint was read back and found whole.
//!
//! Several processes may share a store, of which the youngest incarnation counts. An older one that does not know
//! yet that it was replaced may still put objects, but: its [`Checkpoints::commit`] looks for
//! younger claims once more *after* the manifest is there, so what it reports as committed, every later
//! incarnation sees; what it puts later is a ghost that nobody takes (see [`Claims`]); and
//! [`Checkpoints::collect_garbage`] lists what it will remove before it looks whether it was replaced, so it never
//! removes what a younger one put. Only a file's name must not come twice: let it contain the incarnation.

pub(crate) mod inspect;
mod load;

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::claim::{CLAIM, Claims, Place, claim, fence, refuse_younger};
use crate::log::RecordNumber;
use crate::manifest::MANIFEST;
use crate::owner::OWNER;
use crate::sealed::{FOOTER, seal, unseal};
use crate::{FileEntry, Manifest, Object, ObjectStore, StorageError};

pub use load::{Loaded, Newest};

/// The longest manifest in bytes: about 200,000 files.
const MAX_MANIFEST: usize = 16 << 20;
/// How many others may take over at the same moment before this one gives up.
const MAX_RACE: usize = 100;

/// The checkpoints in a store, as the incarnation that may write them.
pub struct Checkpoints<S> {
    store: S,
    incarnation: u64,
    next_sequence: u64,
    /// Files that were put, but are in no manifest yet.
    uncommitted: BTreeSet<String>,
    /// Files that this process has read from the store and found whole, with their checksums.
    read_back: Mutex<BTreeMap<String, u64>>,
}

impl<S: ObjectStore> Checkpoints<S> {
    /// Takes over the store for an incarnation: older ones can commit nothing any more.
    ///
    /// # Errors
    /// `Replaced` if a younger one took over already.
    pub fn open(store: S, incarnation: u64) -> Result<Self, StorageError> {
        refuse_younger(incarnation, youngest(&store)?)?;
        store.put(&claim(incarnation), b"")?;
        Self::claimed(store, incarnation)
    }

    /// Takes over a store that several machines share, as a new incarnation, which no other process gets.
    ///
    /// `who` is what the claim says: some text that no other process has, say its machine, number and time of start.
    ///
    /// # Errors
    /// `Replaced` if others take over all the time; else what the store says.
    pub fn take_over(store: S, who: &str) -> Result<Self, StorageError> {
        let mut last = 0;
        for _ in 0..MAX_RACE {
            last = youngest(&store)? + 1;
            if store.put_new(&claim(last), who.as_bytes())? {
                return Self::claimed(store, last);
            }
        }
        Err(StorageError::Replaced { ours: last, theirs: last })
    }

    /// The rest of taking over, once the claim is there.
    fn claimed(store: S, incarnation: u64) -> Result<Self, StorageError> {
        let claims = Claims::of(&store)?;
        claims.refuse_younger_than(incarnation)?;
        let (mut sequence, mut last) = (0, (0, 0));
        for place in places(&store)? {
            refuse_younger(incarnation, place.0)?;
            sequence = sequence.max(place.1);
            if !claims.is_ghost(place) {
                last = last.max(place);
            }
        }
        store.put(&fence(incarnation, last), b"")?;
        for old in claims.claims_before(incarnation) {
            store.delete(&old)?;
        }
        let (uncommitted, read_back) = Default::default();
        Ok(Checkpoints { store, incarnation, next_sequence: sequence + 1, uncommitted, read_back })
    }

    /// The incarnation that writes.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
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
        if is_own(name) {
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

    /// Gives up the files that are in no manifest yet: garbage collection may remove them.
    pub fn abandon(&mut self) {
        self.uncommitted.clear();
    }

    /// A file's content, if it is what the manifest says.
    ///
    /// # Errors
    /// `Damaged` if it is missing, or another one.
    pub fn get_file(&self, entry: &FileEntry) -> Result<Vec<u8>, StorageError> {
        let bytes = read_file(&self.store, entry)?;
        self.read_back.lock().insert(entry.name.clone(), entry.checksum);
        Ok(bytes)
    }

    /// Commits a checkpoint. After this it is the newest one; without it, nothing has changed.
    ///
    /// # Errors
    /// `Replaced` if a younger incarnation took over meanwhile, which then may or may not have found this checkpoint;
    /// else what the disk says.
    pub fn commit(
        &mut self,
        epoch: u64,
        log_position: RecordNumber,
        files: Vec<FileEntry>,
    ) -> Result<Manifest, StorageError> {
        Claims::of(&self.store)?.refuse_younger_than(self.incarnation)?;
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
        // Whoever claims after this looks for manifests after this, and so finds it.
        Claims::of(&self.store)?.refuse_younger_than(self.incarnation)?;
        for file in &manifest.files {
            self.uncommitted.remove(&file.name);
        }
        Ok(manifest)
    }

    /// Removes what no checkpoint needs, but for the newest `keep`, at least one, that are readable. Of the
    /// newest, all is read back first that this process has not yet read; nothing is removed if it is not whole. Returns
    /// the log position of the oldest one kept: records below it are not needed any more.
    ///
    /// # Errors
    /// `Damaged` if the newest checkpoint is not whole; `Replaced` if a younger incarnation took over; else what the
    /// disk says. Nothing was removed then, or only what nobody needs.
    pub fn collect_garbage(&self, keep: usize) -> Result<RecordNumber, StorageError> {
        let objects = self.store.list("")?;
        let claims = Claims::among(&objects);
        let (ghosts, names) = manifests(&objects, &claims);
        let mut kept = Vec::new();
        let mut rest = names.into_iter().rev();
        let Some(newest) = rest.next() else { return Ok(0) };
        kept.push(self.read_back(newest, &objects)?);
        let mut old = ghosts;
        for name in rest {
            match self.manifest(name) {
                _ if kept.len() >= keep => old.push(name),
                Ok(manifest) => kept.push(manifest),
                Err(StorageError::Damaged { .. }) => old.push(name),
                // A disk that cannot read now may be able to later.
                Err(error) => return Err(error),
            }
        }
        // What was listed above is older than any claim that is not seen here.
        Claims::of(&self.store)?.refuse_younger_than(self.incarnation)?;
        for name in old {
            self.store.delete(name)?;
        }
        let needed: BTreeSet<&str> =
            kept.iter().flat_map(|manifest| &manifest.files).map(|file| file.name.as_str()).collect();
        for Object { name, .. } in &objects {
            if !is_own(name) && !needed.contains(name.as_str()) && !self.uncommitted.contains(name) {
                self.store.delete(name)?;
            }
        }
        let oldest = kept.iter().map(|manifest| manifest.incarnation).min().unwrap_or(0);
        for name in claims.fences_before(oldest, self.incarnation) {
            self.store.delete(&name)?;
        }
        self.read_back.lock().retain(|name, _| needed.contains(name.as_str()));
        Ok(kept.iter().map(|manifest| manifest.log_position).min().unwrap_or(0))
    }

    fn manifest(&self, name: &str) -> Result<Manifest, StorageError> {
        read_manifest(&self.store, name)
    }

    /// The manifest, once each of its files was read by this process at some time, and still is there.
    fn read_back(&self, name: &str, objects: &[Object]) -> Result<Manifest, StorageError> {
        let manifest = self.manifest(name)?;
        for file in &manifest.files {
            let found = objects.binary_search_by(|object| object.name.as_str().cmp(&file.name));
            let there = found.is_ok_and(|at| objects[at].length == file.length.saturating_add(FOOTER as u64));
            let read = self.read_back.lock().get(&file.name) == Some(&file.checksum);
            if !(there && read) {
                self.get_file(file)?;
            }
        }
        Ok(manifest)
    }
}

/// Whether an object is none of the files that manifests list.
pub(crate) fn is_own(name: &str) -> bool {
    [MANIFEST, CLAIM, OWNER].iter().any(|own| name.starts_with(own))
}

/// A manifest that is whole.
pub(crate) fn read_manifest<S: ObjectStore>(store: &S, name: &str) -> Result<Manifest, StorageError> {
    let path = store.path(name);
    let damaged = |cause: String| StorageError::damaged(&path, 0, cause);
    let bytes = store.get(name, MAX_MANIFEST)?;
    let mut bytes = bytes.ok_or_else(|| damaged("the manifest is missing".into()))?;
    unseal(name, &mut bytes, &path)?;
    Manifest::decode(&bytes).map_err(damaged)
}

/// The content of a file that is the one that a manifest lists.
pub(crate) fn read_file<S: ObjectStore>(store: &S, entry: &FileEntry) -> Result<Vec<u8>, StorageError> {
    let path = store.path(&entry.name);
    let damaged = |cause: String| Err(StorageError::damaged(&path, 0, cause));
    let Some(most) = usize::try_from(entry.length).ok().and_then(|length| length.checked_add(FOOTER)) else {
        return damaged(format!("a length of {} bytes cannot be", entry.length));
    };
    let Some(mut bytes) = store.get(&entry.name, most)? else { return damaged("the file is missing".into()) };
    let checksum = unseal(&entry.name, &mut bytes, &path)?;
    if bytes.len() as u64 != entry.length || checksum != entry.checksum {
        return damaged("this is not the file that the manifest lists".into());
    }
    Ok(bytes)
}

/// The names of the ghosts' manifests among objects, and those of the others, oldest first.
pub(crate) fn manifests<'a>(objects: &'a [Object], claims: &Claims) -> (Vec<&'a str>, Vec<&'a str>) {
    let names = objects.iter().map(|object| object.name.as_str()).filter(|name| name.starts_with(MANIFEST));
    names.partition(|name| Manifest::place(name).is_some_and(|place| claims.is_ghost(place)))
}

/// Where the manifests are among all, by their names.
fn places<S: ObjectStore>(store: &S) -> Result<Vec<Place>, StorageError> {
    Ok(store.list(MANIFEST)?.iter().map(|object| Manifest::place(&object.name).unwrap_or_default()).collect())
}

/// The youngest incarnation that left a trace; 0 if none did.
fn youngest<S: ObjectStore>(store: &S) -> Result<u64, StorageError> {
    let committed = places(store)?.into_iter().map(|place| place.0).max();
    Ok(committed.unwrap_or(0).max(Claims::of(store)?.youngest()))
}
