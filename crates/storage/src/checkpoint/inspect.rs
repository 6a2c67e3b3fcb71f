//! Looking at checkpoints without taking the store over.

use std::collections::BTreeSet;

use super::{is_own, manifests, read_file, read_manifest};
use crate::claim::Claims;
use crate::sealed::FOOTER;
use crate::{Manifest, Object, ObjectStore, StorageError};

/// What there is in a store of checkpoints.
#[derive(Debug)]
pub struct CheckpointFindings {
    /// All checkpoints, the newest first.
    pub checkpoints: Vec<CheckpointFinding>,
    /// The incarnation that may commit; 0 if none ever could.
    pub owner: u64,
    /// Objects of no checkpoint, which the next one's garbage collection removes.
    pub unlisted: Vec<Object>,
}

/// A checkpoint, by its manifest.
#[derive(Debug)]
pub struct CheckpointFinding {
    /// The manifest's name.
    pub name: String,
    /// What it says, if it can be read.
    pub manifest: Option<Manifest>,
    /// What is wrong with it and its files.
    pub damage: Vec<StorageError>,
    /// Whether it came too late from an incarnation that had been replaced, and so does not count.
    pub ghost: bool,
}

impl CheckpointFindings {
    /// The checkpoint that a start would take.
    pub fn newest_whole(&self) -> Option<&Manifest> {
        let mut counting = self.checkpoints.iter().filter(|checkpoint| !checkpoint.ghost);
        counting.find(|checkpoint| checkpoint.damage.is_empty())?.manifest.as_ref()
    }
}

/// Looks at all checkpoints of a store and changes nothing. Each file is read and checked once; `read` hears how many
/// bytes were read of it.
///
/// # Errors
/// If the store cannot say what there is.
pub fn inspect_checkpoints<S: ObjectStore>(
    store: &S,
    read: &mut dyn FnMut(u64),
) -> Result<CheckpointFindings, StorageError> {
    let objects = store.list("")?;
    let claims = Claims::among(&objects);
    let (ghosts, counting) = manifests(&objects, &claims);
    let mut listed = BTreeSet::new();
    let mut whole = BTreeSet::new();
    let mut checkpoints = Vec::new();
    let all = ghosts.iter().map(|name| (*name, true)).chain(counting.iter().map(|name| (*name, false)));
    for (name, ghost) in all {
        let mut damage = Vec::new();
        let manifest = read_manifest(store, name).map_err(|error| damage.push(error)).ok();
        for file in manifest.iter().flat_map(|manifest| &manifest.files) {
            listed.insert(file.name.clone());
            if whole.contains(&(file.name.clone(), file.checksum)) {
                continue;
            }
            match read_file(store, file) {
                Ok(_) => {
                    read(file.length + FOOTER as u64);
                    whole.insert((file.name.clone(), file.checksum));
                }
                Err(error) => damage.push(error),
            }
        }
        checkpoints.push(CheckpointFinding { name: name.to_owned(), manifest, damage, ghost });
    }
    checkpoints.sort_by(|a, b| b.name.cmp(&a.name));
    let unlisted = objects.into_iter().filter(|o| !is_own(&o.name) && !listed.contains(&o.name)).collect();
    Ok(CheckpointFindings { checkpoints, owner: claims.youngest(), unlisted })
}
