//! Where a start finds its checkpoint, and where the next ones go: in the data folder, or elsewhere.

use std::sync::Arc;

use tidemill_storage::{
    Checkpoints, DataFolder, FolderStore, Loaded, Log, Manifest, ObjectStore, StorageError, is_owned, own,
};

use super::{Packs, Store};
use crate::config::CheckpointStore;

/// The folder's own store of checkpoints.
const INSIDE: &str = "checkpoints";

/// The checkpoints, and the newest one that is whole.
pub(crate) struct Found {
    /// Where the next ones go.
    pub(crate) checkpoints: Checkpoints<Store>,
    pub(crate) newest: Option<(Manifest, Packs)>,
    /// It is not where the next ones go, so that the first of these has to have everything.
    pub(crate) moved: bool,
}

/// Why no checkpoint can be looked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the checkpoints of this data folder are in {0}: start with --checkpoints {0}")]
    Elsewhere(String),
    #[error(
        "the checkpoints of this data folder are in {before}, and {now} has none of them: start with --checkpoints \
         {before}, or copy them first"
    )]
    Other { before: String, now: String },
    #[error("{0} has none of the checkpoints of this data folder any more, and the log alone does not have everything")]
    Gone(String),
}

/// Finds them, and takes the store over for the folder's incarnation.
/// About `most` bytes of what is read stay in memory.
pub(crate) fn find(
    elsewhere: Option<&CheckpointStore>,
    folder: &DataFolder,
    log: &Log,
    most: usize,
) -> Result<Found, NotFound> {
    let before = folder.elsewhere()?;
    let Some(elsewhere) = elsewhere else {
        return match before {
            Some(address) => Err(NotFound::Elsewhere(address)),
            None => inside(folder, most),
        };
    };
    let (now, store) = (elsewhere.address(), elsewhere.store());
    let ours = is_owned(&store, log)?;
    match before {
        Some(before) if before != now && !ours => return Err(NotFound::Other { before, now: now.to_owned() }),
        Some(before) if !ours && log.first() > 0 => return Err(NotFound::Gone(before)),
        _ if ours => {}
        _ => own(&store, log)?,
    }
    folder.set_elsewhere(now)?;
    let checkpoints = Checkpoints::open(store, folder.incarnation())?;
    let newest = load(&checkpoints, most)?;
    let old = FolderStore::open(folder, INSIDE)?;
    let left = old.list("")?;
    if newest.is_some() || left.is_empty() {
        // They were left behind when the first one came to the other store.
        for object in left {
            old.delete(&object.name)?;
        }
        return Ok(Found { checkpoints, newest, moved: false });
    }
    let newest = inside(folder, most)?.newest;
    Ok(Found { checkpoints, moved: newest.is_some(), newest })
}

fn inside(folder: &DataFolder, most: usize) -> Result<Found, NotFound> {
    let store: Store = Arc::new(FolderStore::open(folder, INSIDE)?);
    let checkpoints = Checkpoints::open(store, folder.incarnation())?;
    let newest = load(&checkpoints, most)?;
    Ok(Found { checkpoints, newest, moved: false })
}

/// The newest checkpoint, each file of which is read.
fn load(checkpoints: &Checkpoints<Store>, most: usize) -> Result<Option<(Manifest, Packs)>, NotFound> {
    let loaded = checkpoints.load(
        |manifest| Packs::new(&manifest.files, most),
        |packs, entry, bytes| {
            packs.keep(&entry.name, bytes);
            Ok(())
        },
    )?;
    let Loaded { checkpoint, warnings } = loaded;
    for warning in warnings {
        tracing::warn!(%warning, "a checkpoint is damaged; an older one is used");
    }
    Ok(checkpoint)
}
