//! Where checkpoints are kept: objects by name, as in an object store.

use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

use crate::folder::Folder;
use crate::{DataFolder, StorageError};

/// An object's name and its length in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

/// Objects by name. What was put is durable, and was never visible by half.
pub trait ObjectStore: Send + Sync {
    /// Stores an object, in place of the one that has the name.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError>;

    /// Stores an object if none has the name. Says whether it did.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError>;

    /// An object's bytes, if it is there.
    ///
    /// # Errors
    /// `Damaged` if it is longer than `at_most` bytes; it is not read then.
    fn get(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError>;

    /// The objects whose names begin so, sorted by name.
    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError>;

    /// Removes an object. It is no error if it is not there.
    fn delete(&self, name: &str) -> Result<(), StorageError>;

    /// What to call an object in a message.
    fn path(&self, name: &str) -> PathBuf;
}

/// Objects as files in a folder of the data folder, which one process owns.
pub struct FolderStore {
    folder: Folder,
    /// Held while a name's absence is made sure of.
    putting: Mutex<()>,
}

impl FolderStore {
    /// The store of this name in the data folder.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(data: &DataFolder, name: &str) -> Result<Self, StorageError> {
        check(name)?;
        let folder = data.inner(name)?;
        folder.remove_unfinished()?;
        folder.sync()?;
        Ok(FolderStore { folder, putting: Mutex::new(()) })
    }

    /// A store to read from.
    pub(crate) fn to_read(folder: Folder) -> Self {
        FolderStore { folder, putting: Mutex::new(()) }
    }
}

/// A store that is chosen at run time, or used by several.
impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        (**self).put(name, bytes)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        (**self).put_new(name, bytes)
    }

    fn get(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        (**self).get(name, at_most)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        (**self).list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        (**self).delete(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        (**self).path(name)
    }
}

/// Names are plain, so none leads out of the folder, hides, or means something to a shell.
pub(crate) fn check(name: &str) -> Result<(), StorageError> {
    let plain = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let good = (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.');
    if good && !name.ends_with(".new") { Ok(()) } else { Err(StorageError::Name(name.to_owned())) }
}

impl ObjectStore for FolderStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check(name)?;
        self.folder.put(name, bytes).map(drop)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        check(name)?;
        let _putting = self.putting.lock();
        if self.folder.length(name)?.is_some() {
            return Ok(false);
        }
        self.folder.put(name, bytes).map(|_| true)
    }

    fn get(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        check(name)?;
        self.folder.read(name, at_most)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        let names = self.folder.list()?.into_iter().filter(|name| name.starts_with(prefix) && check(name).is_ok());
        let objects = names.map(|name| Ok(self.folder.length(&name)?.map(|length| Object { name, length })));
        objects.filter_map(Result::transpose).collect()
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        check(name)?;
        if self.folder.length(name)?.is_some() { self.folder.remove(name) } else { Ok(()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.at(name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidemill_env::Env;

    use super::*;

    #[test]
    fn keeps_objects_by_name() {
        let temporary = tempfile::tempdir().unwrap();
        let simulated = (Env::simulated(Arc::default()), Path::new("/data"));
        for (env, path) in [(Env::real(), temporary.path()), simulated] {
            let data = DataFolder::open(&env, path).unwrap();
            let store = FolderStore::open(&data, "objects").unwrap();
            store.put("a-1", b"one").unwrap();
            assert!(store.put_new("a-2", b"two").unwrap());
            assert!(!store.put_new("a-2", b"three").unwrap());
            store.put("b", b"").unwrap();
            store.put("b", b"four").unwrap();
            assert_eq!(store.get("a-2", 3).unwrap().unwrap(), b"two");
            assert!(matches!(store.get("a-2", 2).unwrap_err(), StorageError::Damaged { .. }));
            assert_eq!(store.get("c", 9).unwrap(), None);
            assert_eq!(store.get("b", 9).unwrap().unwrap(), b"four");
            let names: Vec<_> = store.list("a").unwrap().into_iter().map(|o| (o.name, o.length)).collect();
            assert_eq!(names, [("a-1".to_owned(), 3), ("a-2".to_owned(), 3)]);
            store.delete("a-1").unwrap();
            store.delete("a-1").unwrap();
            assert_eq!(store.get("a-1", 9).unwrap(), None);
        }
    }

    #[test]
    fn names_stay_in_the_folder() {
        let data = DataFolder::open(&Env::simulated(Arc::default()), Path::new("/data")).unwrap();
        let store = FolderStore::open(&data, "objects").unwrap();
        let long = "a".repeat(129);
        for name in ["", ".", "..", "../a", "a/b", "/a", "A", "a.new", "a\0", "a\n", "é", &long] {
            assert!(matches!(store.put(name, b""), Err(StorageError::Name(_))), "{name:?}");
            assert!(matches!(store.get(name, 1), Err(StorageError::Name(_))), "{name:?}");
        }
    }
}
