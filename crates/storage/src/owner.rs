//! Checkpoints that are not in the data folder: where they are, and whose they are.
//!
//! A checkpoint says up to which record of a log it has everything, so it is of use only beside that log. A store that is elsewhere
//! therefore has an empty object that is named by the log's identity, and is refused to any other log before anything is put
//! there. The data folder has a file with the address, so that it is not started without its checkpoints.

use std::path::PathBuf;

use crate::folder::Folder;
use crate::sealed::{FOOTER, seal, unseal};
use crate::{DataFolder, Inspection, Log, ObjectStore, StorageError};

/// How the names of objects begin that say whose the store is.
pub(crate) const OWNER: &str = "owner-";
/// The data folder's file with the address.
const ELSEWHERE: &str = "elsewhere";
/// The longest address.
const LONGEST: usize = 4096;

/// Whether a store is this log's; it may be nobody's yet. Changes nothing.
///
/// # Errors
/// `Foreign` if it is another log's; else what the store says.
pub fn is_owned<S: ObjectStore>(store: &S, log: &Log) -> Result<bool, StorageError> {
    let owners = store.list(OWNER)?;
    let name = name(log);
    if owners.iter().any(|owner| owner.name != name) {
        return Err(StorageError::Foreign(store.path("")));
    }
    Ok(!owners.is_empty())
}

/// Makes a store the one of this log.
///
/// # Errors
/// As [`is_owned`].
pub fn own<S: ObjectStore>(store: &S, log: &Log) -> Result<(), StorageError> {
    is_owned(store, log)?;
    store.put_new(&name(log), b"")?;
    // Of two that come at once each sees the other one now, at the latest.
    let raced = is_owned(store, log);
    if let Err(StorageError::Foreign(_)) = raced {
        store.delete(&name(log))?;
    }
    raced.map(drop)
}

fn name(log: &Log) -> String {
    format!("{OWNER}{:016x}", log.identity())
}

impl DataFolder {
    /// Where the checkpoints are, if not in the folder.
    ///
    /// # Errors
    /// `Damaged` if the file is not what was written; else what the disk says.
    pub fn elsewhere(&self) -> Result<Option<String>, StorageError> {
        read(self.folder())
    }

    /// Notes where the checkpoints are.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_elsewhere(&self, address: &str) -> Result<(), StorageError> {
        let mut bytes = address.as_bytes().to_vec();
        seal(ELSEWHERE, &mut bytes);
        self.folder().put(ELSEWHERE, &bytes).map(drop)
    }
}

impl Inspection {
    /// Where the checkpoints are, if not in the folder.
    ///
    /// # Errors
    /// As [`DataFolder::elsewhere`].
    pub fn elsewhere(&self) -> Result<Option<String>, StorageError> {
        read(self.folder())
    }
}

fn read(folder: &Folder) -> Result<Option<String>, StorageError> {
    let path: PathBuf = folder.at(ELSEWHERE);
    let Some(mut bytes) = folder.read(ELSEWHERE, LONGEST + FOOTER)? else { return Ok(None) };
    unseal(ELSEWHERE, &mut bytes, &path)?;
    String::from_utf8(bytes).map(Some).map_err(|_| StorageError::damaged(&path, 0, "this is not an address"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tidemill_env::Env;

    use super::*;
    use crate::{Checkpoints, FolderStore, Handlers, LogOptions, inspect_checkpoints};

    fn log(data: &DataFolder) -> Log {
        let handlers = Handlers { advanced: Box::new(|_| {}), fatal: Box::new(|error| panic!("{error}")) };
        Log::open(data, LogOptions::default(), handlers).unwrap().log
    }

    #[test]
    fn a_store_is_one_logs() {
        let env = Env::simulated(Arc::default());
        let open = |path: &str| DataFolder::open(&env, Path::new(path)).unwrap();
        let (ours, theirs, bucket) = (open("/a"), open("/b"), open("/bucket"));
        let store = Arc::new(FolderStore::open(&bucket, "objects").unwrap());
        let log_of_ours = log(&ours);
        assert!(!is_owned(&store, &log_of_ours).unwrap());
        own(&store, &log_of_ours).unwrap();
        own(&store, &log_of_ours).unwrap();
        assert!(is_owned(&store, &log_of_ours).unwrap());
        let before = store.list("").unwrap();
        let error = own(&store, &log(&theirs)).unwrap_err();
        assert!(matches!(error, StorageError::Foreign(_)), "{error}");
        assert_eq!(store.list("").unwrap(), before, "nothing was put there");
        // It stays when garbage goes, and counts as none.
        let mut checkpoints = Checkpoints::open(Arc::clone(&store), 1).unwrap();
        assert!(matches!(checkpoints.put_file("owner-x", Vec::new()), Err(StorageError::Name(_))));
        let file = checkpoints.put_file("run-1", b"rows".to_vec()).unwrap();
        checkpoints.commit(1, 1, vec![file]).unwrap();
        checkpoints.collect_garbage(1).unwrap();
        assert!(is_owned(&store, &log_of_ours).unwrap());
        assert_eq!(inspect_checkpoints(&store, &mut |_| {}).unwrap().unlisted, []);
    }

    #[test]
    fn the_address_is_kept_and_checked() {
        let temporary = tempfile::tempdir().unwrap();
        let address = "s3://bucket/prefix";
        {
            let data = DataFolder::open(&Env::real(), temporary.path()).unwrap();
            assert_eq!(data.elsewhere().unwrap(), None);
            data.set_elsewhere("s3://other").unwrap();
            data.set_elsewhere(address).unwrap();
            assert_eq!(data.elsewhere().unwrap().as_deref(), Some(address));
        }
        let look = || Inspection::open(&Env::real(), temporary.path()).unwrap().elsewhere();
        assert_eq!(look().unwrap().as_deref(), Some(address));
        let path = temporary.path().join(ELSEWHERE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(look(), Err(StorageError::Damaged { .. })));
    }
}
