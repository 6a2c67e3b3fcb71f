//! Two incarnations on one store, in every order in which their requests can reach it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{Checkpoints, FileEntry, Object, ObjectStore, StorageError};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Objects in memory, as one process sees them: while it races with another, each request waits for its turn.
#[derive(Clone, Default)]
struct Store {
    objects: Objects,
    race: Arc<Mutex<Option<(usize, Arc<Turns>)>>>,
}

/// Whose request is next.
struct Turns {
    left: Mutex<(Vec<usize>, [bool; 2])>,
    next: Condvar,
}

impl Turns {
    /// From the last to the first; when one process has ended, its turns are skipped, and after the last turn all go.
    fn wait(&self, who: usize) {
        let mut state = self.left.lock();
        loop {
            let (left, ended) = &mut *state;
            while left.last().is_some_and(|next| ended[*next]) {
                left.pop();
            }
            match left.last() {
                Some(next) if *next == who => drop(left.pop()),
                Some(_) => {
                    self.next.wait(&mut state);
                    continue;
                }
                None => {}
            }
            self.next.notify_all();
            return;
        }
    }
}

/// Says, also after a panic, that a process has no more requests.
struct End(Arc<Turns>, usize);

impl Drop for End {
    fn drop(&mut self) {
        self.0.left.lock().1[self.1] = true;
        self.0.next.notify_all();
    }
}

impl Store {
    fn enter(&self) {
        let race = self.race.lock().clone();
        if let Some((who, turns)) = race {
            turns.wait(who);
        }
    }
}

impl ObjectStore for Store {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.enter();
        self.objects.lock().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        self.enter();
        let mut objects = self.objects.lock();
        let new = !objects.contains_key(name);
        objects.entry(name.to_owned()).or_insert_with(|| bytes.to_vec());
        Ok(new)
    }

    fn get(&self, name: &str, _at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        self.enter();
        Ok(self.objects.lock().get(name).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        self.enter();
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, bytes)| Object { name: name.clone(), length: bytes.len() as u64 }).collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.enter();
        self.objects.lock().remove(name);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

/// All sequences with so many turns of the one and of the other.
fn orders(zeros: usize, ones: usize) -> Vec<Vec<usize>> {
    if zeros == 0 || ones == 0 {
        return vec![[vec![0; zeros], vec![1; ones]].concat()];
    }
    let mut all = orders(zeros - 1, ones);
    all.iter_mut().for_each(|order| order.push(0));
    for mut order in orders(zeros, ones - 1) {
        order.push(1);
        all.push(order);
    }
    all
}

/// What two processes come to whose requests reach their stores in this order.
fn race<A: Send + 'static, B: Send + 'static>(
    order: Vec<usize>,
    stores: [&Store; 2],
    first: impl FnOnce() -> A + Send + 'static,
    second: impl FnOnce() -> B + Send + 'static,
) -> (A, B) {
    let turns = Arc::new(Turns { left: Mutex::new((order, [false; 2])), next: Condvar::new() });
    for (who, store) in stores.into_iter().enumerate() {
        *store.race.lock() = Some((who, turns.clone()));
    }
    let ends = (End(turns.clone(), 0), End(turns, 1));
    let first = thread::spawn(move || {
        let _end = ends.0;
        first()
    });
    let second = thread::spawn(move || {
        let _end = ends.1;
        second()
    });
    let results = (first.join().unwrap(), second.join().unwrap());
    stores.into_iter().for_each(|store| *store.race.lock() = None);
    results
}

/// A checkpoint of one new file and those given.
fn take(checkpoints: &mut Checkpoints<Store>, epoch: u64, mut files: Vec<FileEntry>) -> Result<(), StorageError> {
    let name = format!("run-{}-{epoch}", checkpoints.incarnation());
    files.push(checkpoints.put_file(&name, epoch.to_le_bytes().to_vec())?);
    checkpoints.commit(epoch, epoch, files).map(drop)
}

fn newest<S: ObjectStore>(checkpoints: &Checkpoints<S>) -> u64 {
    let newest = checkpoints.newest().unwrap();
    assert!(newest.warnings.is_empty(), "{:?}", newest.warnings);
    newest.manifest.map_or(0, |manifest| manifest.epoch)
}

/// A store with a checkpoint of incarnation 7, which goes on, and the same store for incarnation 8.
fn two() -> (Checkpoints<Store>, Store, Store) {
    let store = Store::default();
    let other = Store { objects: store.objects.clone(), ..Store::default() };
    let mut old = Checkpoints::open(store.clone(), 7).unwrap();
    take(&mut old, 1, Vec::new()).unwrap();
    (old, store, other)
}

#[test]
fn a_commit_of_an_older_incarnation_counts_for_all_or_for_nobody() {
    let (mut seen, mut passed_over, mut committed) = (0, 0, 0);
    for (number, order) in orders(4, 14).into_iter().enumerate() {
        let (mut old, store, other) = two();
        // Half of the young ones end before they commit anything.
        let commits = number % 2 == 0;
        let objects = other.clone();
        let (old, young) = race(
            order,
            [&store, &other],
            move || take(&mut old, 2, Vec::new()),
            move || {
                let mut young = Checkpoints::open(objects, 8).unwrap();
                let found = newest(&young);
                if commits {
                    take(&mut young, 3, Vec::new()).unwrap();
                }
                found
            },
        );
        match old {
            Ok(()) => {
                assert_eq!(young, 2, "what was reported as committed is found");
                committed += 1;
            }
            Err(StorageError::Replaced { ours: 7, theirs: 8 }) => {}
            Err(error) => panic!("{error}"),
        }
        seen += usize::from(young == 2);
        passed_over += usize::from(young == 1);
        for incarnation in 9..11 {
            let next = Checkpoints::open(store.clone(), incarnation).unwrap();
            let expected = if commits { 3 } else { young };
            assert_eq!(newest(&next), expected, "a late manifest of incarnation 7 is never the newest");
            next.collect_garbage(2).unwrap();
            assert_eq!(newest(&next), expected);
        }
    }
    assert!(seen > 20 && passed_over > 20 && committed > 0, "{seen} {passed_over} {committed}");
}

#[test]
fn an_older_incarnation_removes_nothing_that_a_younger_one_needs() {
    // Of all 116,280 orders every 37th.
    for order in orders(7, 14).into_iter().step_by(37) {
        let (mut old, store, other) = two();
        take(&mut old, 2, Vec::new()).unwrap();
        old.put_file("run-7-3", vec![3]).unwrap();
        let objects = other.clone();
        let (_, young) = race(
            order,
            [&store, &other],
            move || old.collect_garbage(1),
            move || {
                let mut young = Checkpoints::open(objects, 8).unwrap();
                let kept = young.newest().unwrap().manifest.unwrap().files;
                take(&mut young, 4, kept).unwrap();
                young
            },
        );
        let manifest = young.newest().unwrap().manifest.unwrap();
        assert_eq!((manifest.epoch, manifest.files.len()), (4, 2));
        young.collect_garbage(1).unwrap();
        let names = store.list("").unwrap().into_iter().map(|object| object.name);
        let left: Vec<_> = names.filter(|name| name.starts_with("run-") || name.starts_with("manifest-")).collect();
        let manifest = "manifest-00000000000000000008-00000000000000000003";
        assert_eq!(left, [manifest, "run-7-2", "run-8-4"]);
    }
}

#[test]
fn those_who_take_over_at_once_get_numbers_of_their_own() {
    for order in orders(6, 6) {
        let (_, store, other) = two();
        let (one, two) = (store.clone(), other.clone());
        let results = race(
            order,
            [&store, &other],
            move || Checkpoints::take_over(one, "one"),
            move || Checkpoints::take_over(two, "two"),
        );
        let mut numbers = Vec::new();
        for result in [results.0, results.1] {
            match result {
                Ok(mut checkpoints) => numbers.push((checkpoints.incarnation(), take(&mut checkpoints, 5, Vec::new()))),
                Err(StorageError::Replaced { ours: 8, theirs: 9 }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        numbers.sort_by_key(|(number, _)| *number);
        let (last, committed) = numbers.pop().unwrap();
        assert_eq!((last, committed.is_ok()), (9, true));
        assert!(numbers.iter().all(|(number, committed)| *number == 8 && committed.is_err()));
    }
}
