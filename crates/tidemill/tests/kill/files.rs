//! What a sink's folder has: its files are read as they appear, as a program would that follows them.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;

use crate::check::{Counts, difference};

/// A folder that a sink writes to.
pub struct Files {
    pub folder: PathBuf,
    /// CSV, or else lines of JSON.
    pub csv: bool,
    /// A number column whose sum is 0 after every file.
    pub balanced: Option<&'static str>,
    read: Mutex<Read>,
}

/// What was read so far.
#[derive(Default)]
struct Read {
    /// A hash of each file's content; it never changes.
    files: BTreeMap<String, u64>,
    /// The epoch that the last file goes up to.
    epoch: u64,
    rows: Counts,
    balance: i64,
    /// The changes by epoch; those of a file without epochs count for its last one.
    changes: BTreeMap<u64, Counts>,
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Files {
    pub fn new(folder: PathBuf, csv: bool, balanced: Option<&'static str>) -> Files {
        Files { folder, csv, balanced, read: Mutex::default() }
    }

    /// The names that a reader sees, and those that are being written.
    pub fn names(&self) -> (Vec<String>, bool) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
        let (hidden, mut seen): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with('.'));
        seen.sort();
        (seen, hidden.iter().any(|name| name.ends_with(".tmp") && !name.contains("fence")))
    }

    /// Reads the files that have come. Each is whole, comes after all others, and is there once.
    pub fn follow(&self) -> Result<(), String> {
        let mut read = self.read.lock().expect("no panic");
        for name in self.names().0 {
            if !read.files.contains_key(&name) {
                self.take(&mut read, &name).map_err(|fault| format!("{}/{name}: {fault}", self.folder.display()))?;
            }
        }
        Ok(())
    }

    fn take(&self, read: &mut Read, name: &str) -> Result<(), String> {
        let text = std::fs::read_to_string(self.folder.join(name)).map_err(|e| e.to_string())?;
        let mut parts = name.rsplit('-').skip(1);
        let epoch: u64 = parts.next().and_then(|part| part.parse().ok()).ok_or("its name has no epoch")?;
        if epoch <= read.epoch {
            return Err(format!("it goes up to epoch {epoch}, after a file up to {}", read.epoch));
        }
        if !text.ends_with('\n') {
            return Err(format!("it breaks off: {text:?}"));
        }
        let lines = text.lines();
        let changes = if self.csv { csv(lines, epoch)? } else { json(lines, epoch, self.balanced)? };
        let mut last = read.epoch;
        for Change { epoch: at, row, diff, amount } in changes {
            if at < last || at == read.epoch || at > epoch {
                return Err(format!("a change of epoch {at} after {last}, in a file from {} to {epoch}", read.epoch));
            }
            last = at;
            *read.changes.entry(at).or_default().entry(row.clone()).or_default() += diff;
            *read.rows.entry(row).or_default() += diff;
            read.balance += amount * diff;
        }
        read.rows.retain(|_, count| *count != 0);
        if let Some((row, count)) = read.rows.iter().find(|(_, count)| **count < 0) {
            return Err(format!("{row} is there {count} times"));
        }
        if read.balance != 0 {
            return Err(format!("the balance is {}", read.balance));
        }
        read.epoch = epoch;
        read.files.insert(name.to_owned(), hash(&text));
        Ok(())
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.read.lock().expect("no panic").files.len()
    }

    /// Where the rows differ from these.
    pub fn differs(&self, expected: &Counts) -> Option<String> {
        difference(expected, &self.read.lock().expect("no panic").rows)
    }

    /// All files are as they were when they appeared, and no others are there.
    pub fn unchanged(&self) -> Result<(), String> {
        let read = self.read.lock().expect("no panic");
        let names = self.names().0;
        if names.iter().ne(read.files.keys()) {
            return Err(format!("{}: there are {names:?}, not {:?}", self.folder.display(), read.files.keys()));
        }
        for (name, before) in &read.files {
            let text = std::fs::read_to_string(self.folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
            if hash(&text) != *before {
                return Err(format!("{}/{name} has changed", self.folder.display()));
            }
        }
        Ok(())
    }

    /// Epoch by epoch, the files have what a subscriber was told; that may have begun later.
    pub fn compare(&self, told: &BTreeMap<u64, Counts>) -> Option<String> {
        let read = self.read.lock().expect("no panic");
        let first = *told.keys().next()?;
        let mut own: BTreeMap<u64, Counts> = BTreeMap::new();
        for (epoch, changes) in &read.changes {
            add(own.entry((*epoch).max(first)).or_default(), changes);
        }
        let mut theirs: BTreeMap<u64, Counts> = BTreeMap::new();
        for (epoch, changes) in told {
            // In files without epochs, all up to the file's own are one.
            let epoch = own.range(epoch..).next().map_or(*epoch, |(epoch, _)| *epoch);
            add(theirs.entry(epoch).or_default(), changes);
        }
        let none = Counts::new();
        let epochs = theirs.keys().chain(own.keys());
        epochs.into_iter().find_map(|epoch| {
            let (theirs, own) = (theirs.get(epoch).unwrap_or(&none), own.get(epoch).unwrap_or(&none));
            difference(theirs, own).map(|text| format!("in epoch {epoch}, beside what subscribers were told, {text}"))
        })
    }
}

fn add(to: &mut Counts, changes: &Counts) {
    for (row, diff) in changes {
        *to.entry(row.clone()).or_default() += diff;
    }
}

/// A row that came or went.
struct Change {
    epoch: u64,
    row: String,
    diff: i64,
    /// The number whose sum is 0.
    amount: i64,
}

fn json<'a>(lines: impl Iterator<Item = &'a str>, of_file: u64, balanced: Option<&str>) -> Result<Vec<Change>, String> {
    let change = |line: &str| {
        let mut row: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        let members = row.as_object_mut().ok_or_else(|| format!("no object: {line}"))?;
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let mut own = |name| members.remove(name).map(|v| number(&v).ok_or_else(|| format!("{name}: {line}")));
        let (epoch, diff) = (own("epoch").transpose()?, own("diff").transpose()?.unwrap_or(1));
        let epoch = epoch.map_or(of_file, |epoch| epoch as u64);
        let amount = balanced.map_or(Some(0), |column| row.get(column).and_then(number));
        let amount = amount.ok_or_else(|| format!("no amount: {line}"))?;
        Ok(Change { epoch, row: row.to_string(), diff, amount })
    };
    lines.map(change).collect()
}

fn csv<'a>(mut lines: impl Iterator<Item = &'a str>, of_file: u64) -> Result<Vec<Change>, String> {
    let led = lines.next().ok_or("it has no header")?.starts_with("epoch,diff,");
    let change = |line: &str| {
        // None of the rows have commas or quotes in them.
        let cells: Vec<&str> = line.split(',').map(|cell| if cell.is_empty() { "NULL" } else { cell }).collect();
        let number = |i: usize| cells.get(i).and_then(|cell| cell.parse::<i64>().ok()).ok_or_else(|| line.to_owned());
        let (epoch, diff, row) = match led {
            true => (number(0)? as u64, number(1)?, cells[2..].join("|")),
            false => (of_file, 1, cells.join("|")),
        };
        Ok(Change { epoch, row, diff, amount: 0 })
    };
    lines.map(change).collect()
}
