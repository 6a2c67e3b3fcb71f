//! Checkpoints in a real store that speaks S3's protocol; `tests/run-s3` starts one and runs these.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidemill_env::Env;
use tidemill_storage::{
    Checkpoints, DataFolder, FileEntry, Handlers, Log, LogOptions, ObjectStore, S3Options, S3Store, StorageError,
    is_owned, own,
};

/// Set by `tests/run-s3`: the bucket, which is there, and the store's `host:port`. The key comes by the usual variables.
fn bucket() -> String {
    std::env::var("TIDEMILL_S3_BUCKET").unwrap()
}

fn address() -> String {
    std::env::var("TIDEMILL_S3_ADDRESS").unwrap()
}

fn options(address: &str) -> S3Options {
    let endpoint = Some(format!("http://{address}"));
    S3Options { endpoint, allow_http: Some(true), patience: Duration::from_secs(20), ..S3Options::default() }
}

/// A prefix that no other test has.
fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("s3://{}/of-{}/{count}", bucket(), std::process::id())
}

fn store(prefix: &str) -> S3Store {
    S3Store::open(prefix, &options(&address())).unwrap()
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn objects_are_kept_by_name() {
    let prefix = prefix();
    let objects = store(&prefix);
    assert_eq!(objects.list("").unwrap(), []);
    objects.put("a-1", b"one").unwrap();
    assert!(objects.put_new("a-2", b"two").unwrap());
    assert!(!objects.put_new("a-2", b"two").unwrap(), "the same bytes are no excuse");
    objects.put("b", b"").unwrap();
    objects.put("b", b"four").unwrap();
    assert!(!objects.put_new("b", b"").unwrap());
    assert_eq!(objects.get("a-2", 3).unwrap().unwrap(), b"two");
    let error = objects.get("a-2", 2).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{prefix}/a-2 is damaged at byte 2: the object has 3 bytes")), "{error}");
    assert_eq!(objects.get("c", 9).unwrap(), None);
    assert_eq!(objects.get("b", 9).unwrap().unwrap(), b"four");
    // What is further below, or has a name that none of ours has, is another's.
    store(&format!("{prefix}/a-3")).put("x", b"").unwrap();
    let names: Vec<_> = objects.list("a").unwrap().into_iter().map(|o| (o.name, o.length)).collect();
    assert_eq!(names, [("a-1".to_owned(), 3), ("a-2".to_owned(), 3)]);
    objects.delete("a-1").unwrap();
    objects.delete("a-1").unwrap();
    assert_eq!(objects.get("a-1", 9).unwrap(), None);
    for name in ["", "..", "a/b", "A", "a.new"] {
        assert!(matches!(objects.put(name, b""), Err(StorageError::Name(_))), "{name:?}");
    }
    let large: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    objects.put("large", &large).unwrap();
    assert!(objects.get("large", large.len()).unwrap().unwrap() == large);
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn a_list_of_many_pages_is_whole_and_sorted() {
    let objects = store(&prefix());
    let mut names: Vec<String> = (0..1203).rev().map(|i| format!("run-{i}")).collect();
    thread::scope(|scope| {
        for part in names.chunks(151) {
            let objects = &objects;
            scope.spawn(move || part.iter().for_each(|name| objects.put(name, b"").unwrap()));
        }
    });
    names.sort();
    let listed: Vec<String> = objects.list("run-").unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(listed, names);
    assert_eq!(objects.list("run-12").unwrap().len(), 1 + 10 + 3);
}

fn content(epoch: u64, file: u64) -> Vec<u8> {
    format!("file {file} of epoch {epoch} ").repeat(100).into_bytes()
}

/// One checkpoint: two new files, and one that the checkpoint before has too.
fn take(checkpoints: &mut Checkpoints<S3Store>, epoch: u64) -> Result<Vec<FileEntry>, StorageError> {
    let before = checkpoints.newest()?.manifest;
    let mut files: Vec<_> = before.into_iter().flat_map(|manifest| manifest.files).take(1).collect();
    for file in 0..2 {
        let name = format!("run-{}-{epoch}-{file}", checkpoints.incarnation());
        files.push(checkpoints.put_file(&name, content(epoch, file))?);
    }
    Ok(checkpoints.commit(epoch, epoch * 10, files)?.files)
}

/// The newest checkpoint's epoch, and how many newer ones were passed over.
fn newest(checkpoints: &Checkpoints<S3Store>) -> (u64, usize) {
    let loaded = checkpoints.load(
        |_| 0,
        |files, entry, bytes| {
            let words: Vec<u64> = entry.name.split('-').filter_map(|word| word.parse().ok()).collect();
            *files += 1;
            if bytes == content(words[1], words[2]) { Ok(()) } else { Err("another content".into()) }
        },
    );
    let loaded = loaded.unwrap();
    let epoch = loaded.checkpoint.map_or(0, |(manifest, files)| {
        assert_eq!(manifest.files.len(), files);
        manifest.epoch
    });
    (epoch, loaded.warnings.len())
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn checkpoints_are_committed_found_and_cleared_away() {
    let prefix = prefix();
    for incarnation in 1..4 {
        let mut checkpoints = Checkpoints::open(store(&prefix), incarnation).unwrap();
        assert_eq!(newest(&checkpoints), ((incarnation - 1) * 3, 0));
        for epoch in incarnation * 3 - 2..=incarnation * 3 {
            take(&mut checkpoints, epoch).unwrap();
            let needed = checkpoints.collect_garbage(2).unwrap();
            assert_eq!(needed, epoch.saturating_sub(1).max(1) * 10);
        }
        let names = checkpoints.store().list("").unwrap();
        assert!(names.len() <= 3 + 2 + 2 * 3, "{names:?}");
    }
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let prefix = prefix();
    let mut checkpoints = Checkpoints::open(store(&prefix), 1).unwrap();
    take(&mut checkpoints, 1).unwrap();
    let files = take(&mut checkpoints, 2).unwrap();
    let manifests = checkpoints.store().list("manifest-").unwrap();
    let names = [&files[2].name, &manifests[1].name];
    for name in names {
        let good = checkpoints.store().get(name, 1 << 20).unwrap().unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 4;
        for bad in [Some(flipped), Some(good[..good.len() - 1].to_vec()), Some(Vec::new()), None] {
            match &bad {
                Some(bad) => checkpoints.store().put(name, bad).unwrap(),
                None => checkpoints.store().delete(name).unwrap(),
            }
            // Of a manifest that is gone there is no trace.
            let noticed = usize::from(bad.is_some() || !name.starts_with("manifest"));
            assert_eq!(newest(&checkpoints), (1, noticed), "{name}");
            if noticed == 1 {
                let error = checkpoints.collect_garbage(1).unwrap_err();
                assert!(error.to_string().starts_with(&format!("{prefix}/{name} is damaged")), "{error}");
            }
        }
        checkpoints.store().put(name, &good).unwrap();
        assert_eq!(newest(&checkpoints), (2, 0));
    }
    checkpoints.store().delete(&files[0].name).unwrap();
    assert!(matches!(checkpoints.newest(), Err(StorageError::NoCheckpoint(_))));
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn an_older_incarnation_commits_nothing() {
    let prefix = prefix();
    let mut old = Checkpoints::open(store(&prefix), 7).unwrap();
    take(&mut old, 1).unwrap();
    let mut new = Checkpoints::open(store(&prefix), 8).unwrap();
    assert!(matches!(take(&mut old, 2), Err(StorageError::Replaced { ours: 7, theirs: 8 })));
    assert!(matches!(old.collect_garbage(1), Err(StorageError::Replaced { ours: 7, theirs: 8 })));
    assert!(matches!(Checkpoints::open(store(&prefix), 7).err(), Some(StorageError::Replaced { .. })));
    // Its manifest comes late, as if the network had held it back: nobody takes it.
    let manifest = store(&prefix).get("manifest-00000000000000000007-00000000000000000001", 1 << 20).unwrap().unwrap();
    new.store().put("manifest-00000000000000000007-00000000000000000009", &manifest).unwrap();
    assert_eq!(newest(&new), (1, 0));
    take(&mut new, 3).unwrap();
    assert_eq!(newest(&new), (3, 0));
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn many_that_take_over_at_once_get_numbers_of_their_own() {
    let prefix = prefix();
    let results = thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|i| {
                let store = store(&prefix);
                scope.spawn(move || Checkpoints::take_over(store, &format!("process {i}")))
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let mut numbers = Vec::new();
    let mut committed = 0;
    for result in results {
        match result {
            Ok(mut checkpoints) => {
                numbers.push(checkpoints.incarnation());
                committed += usize::from(take(&mut checkpoints, 1).is_ok());
            }
            Err(StorageError::Replaced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    numbers.sort_unstable();
    let before = numbers.len();
    numbers.dedup();
    assert_eq!((numbers.len(), committed), (before, 1), "{numbers:?}");
}

/// What happens to a connection.
#[derive(Clone, Copy)]
enum Fate {
    /// It is closed at once.
    Refused,
    /// The request goes through, the answer does not come back.
    AnswerLost,
}

/// Stands before the store; connections meet the fates that are sent, in turn, and pass when there are none.
fn proxy() -> (String, mpsc::Sender<Fate>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (send, fates) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let fate = fates.try_recv().ok();
            if let Some(Fate::Refused) = fate {
                continue;
            }
            let server = TcpStream::connect(crate::address()).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(from, to, false));
            thread::spawn(move || pass(server, client, matches!(fate, Some(Fate::AnswerLost))));
        }
    });
    (address, send)
}

fn pass(mut from: TcpStream, mut to: TcpStream, lose: bool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if lose || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

/// A store whose next connections meet these fates; one that is open is used first.
fn through(fates: &[Fate], request: impl FnOnce(S3Store)) {
    let (address, send) = proxy();
    let objects = S3Store::open(&prefix(), &options(&address)).unwrap();
    fates.iter().for_each(|fate| send.send(*fate).unwrap());
    request(objects);
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn a_lost_answer_is_no_other_process() {
    for fates in [&[Fate::AnswerLost][..], &[Fate::Refused, Fate::AnswerLost, Fate::AnswerLost]] {
        through(fates, |objects| {
            thread::scope(|scope| {
                // Requests at once need connections of their own.
                let puts: Vec<_> = (0..4)
                    .map(|i| {
                        let objects = &objects;
                        scope.spawn(move || objects.put_new(&format!("a-{i}"), b"ours").unwrap())
                    })
                    .collect();
                assert!(puts.into_iter().all(|put| put.join().unwrap()));
            });
            assert!(!objects.put_new("a-1", b"ours").unwrap());
            assert_eq!(objects.list("").unwrap().len(), 4);
        });
    }
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn what_cannot_work_is_said_at_once() {
    let open = |url: &str, options: &S3Options| S3Store::open(url, options).err().unwrap().to_string();
    let error = open("s3://no-such-bucket/a", &options(&address()));
    assert!(error.starts_with("cannot list s3://no-such-bucket/a/: ") && error.contains("404"), "{error}");
    let wrong = S3Options { secret_access_key: Some("wrong".into()), ..options(&address()) };
    let error = open(&prefix(), &wrong);
    assert!(error.contains("403") && !error.contains("wrong"), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let away = S3Options { patience: Duration::from_millis(100), ..options(&free) };
    let error = open(&prefix(), &away);
    assert!(error.starts_with("cannot list s3://") && error.to_lowercase().contains("refused"), "{error}");
    let error = open("file:///a", &away);
    assert!(error.contains("does not begin with s3://"), "{error}");
    let plain = S3Options { allow_http: Some(false), ..options(&address()) };
    let error = open(&prefix(), &plain);
    assert!(error.contains("cannot"), "{error}");
}

#[test]
#[ignore = "needs a store: tests/run-s3"]
fn a_store_belongs_to_one_log() {
    let temporary = tempfile::tempdir().unwrap();
    let log = |name: &str| {
        let data = DataFolder::open(&Env::real(), &temporary.path().join(name)).unwrap();
        let handlers = Handlers { advanced: Box::new(|_| {}), fatal: Box::new(|error| panic!("{error}")) };
        Log::open(&data, LogOptions::default(), handlers).unwrap().log
    };
    let (ours, theirs, objects) = (log("ours"), log("theirs"), store(&prefix()));
    assert!(!is_owned(&objects, &ours).unwrap());
    own(&objects, &ours).unwrap();
    assert!(is_owned(&objects, &ours).unwrap());
    assert!(matches!(own(&objects, &theirs), Err(StorageError::Foreign(_))));
    assert_eq!(objects.list("").unwrap().len(), 1);
    let mut checkpoints = Checkpoints::open(objects, 1).unwrap();
    take(&mut checkpoints, 1).unwrap();
    checkpoints.collect_garbage(1).unwrap();
    assert!(is_owned(checkpoints.store(), &ours).unwrap());
}
