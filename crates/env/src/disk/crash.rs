//! What is left after the power went.
//!
//! Whatever was not synced may be on disk or not, in any order: every sector of 512 bytes is as it
//! was after *some* of the file's unsynced changes, and the length likewise. Names that were not
//! synced are there or not, each by itself.

use super::simulated::{Change, Content};

/// What disks write whole or not at all, in bytes.
const SECTOR: usize = 512;

/// What happens to unsynced changes in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All are lost.
    Lost,
    /// All are on disk.
    Kept,
    /// Each meets a fate of its own, drawn from the seed: files keep nothing, all, the first few
    /// changes with the next one torn, or each sector whatever version.
    Mixed(u64),
}

impl Fate {
    pub(super) fn keeps_name(self, change: usize, of: usize) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Mixed(seed) => {
                let draw = mix(seed, 1);
                // In order up to some change, as file systems with a journal do; or any of them.
                let in_order = change < below(mix(seed, 2), of + 1);
                if draw.is_multiple_of(2) { in_order } else { mix(seed, 3 + change as u64).is_multiple_of(2) }
            }
        }
    }

    pub(super) fn of_file(self, file: usize) -> Fate {
        match self {
            Fate::Mixed(seed) => {
                let own = mix(seed ^ 0x66_69_6c_65, file as u64);
                match own % 6 {
                    0 => Fate::Lost,
                    1 => Fate::Kept,
                    _ => Fate::Mixed(own),
                }
            }
            all => all,
        }
    }
}

/// One of the contents that a file may have after a crash.
pub(super) fn survivor(content: &Content, fate: Fate) -> Vec<u8> {
    let changes = content.unsynced.len();
    let lengths = lengths(content);
    match fate {
        Fate::Lost => content.durable.clone(),
        Fate::Kept => combine(content, |_| changes, lengths[changes]),
        Fate::Mixed(seed) if mix(seed, 1).is_multiple_of(2) => {
            // The first few changes, and the next one up to some sector.
            let whole = below(mix(seed, 2), changes + 1);
            let Some(next) = content.unsynced.get(whole) else {
                return combine(content, |_| changes, lengths[changes]);
            };
            let (from, to) = match &next.change {
                Change::Write { offset, bytes } => (*offset, offset + bytes.len()),
                Change::SetLength(length) => (*length, lengths[whole].max(*length)),
            };
            let torn = from / SECTOR + below(mix(seed, 3), (to - from).div_ceil(SECTOR) + 1);
            let length = match &next.change {
                Change::Write { .. } => lengths[whole].max((torn * SECTOR).min(to)),
                Change::SetLength(_) => lengths[whole],
            };
            combine(content, |sector| whole + usize::from(sector < torn), length)
        }
        Fate::Mixed(seed) => {
            let length = any_length(&lengths, seed);
            combine(content, |sector| below(mix(seed ^ 0x73_65_63, sector as u64), changes + 1), length)
        }
    }
}

/// The lengths that the file had on its way: on disk, then after each unsynced change.
fn lengths(content: &Content) -> Vec<usize> {
    let mut lengths = vec![content.durable.len()];
    for unsynced in &content.unsynced {
        let last = lengths[lengths.len() - 1];
        lengths.push(match &unsynced.change {
            Change::Write { offset, bytes } => last.max(offset + bytes.len()),
            Change::SetLength(length) => *length,
        });
    }
    lengths
}

/// One of the lengths, or a sector's edge between the shortest and the longest.
fn any_length(lengths: &[usize], seed: u64) -> usize {
    if mix(seed, 4).is_multiple_of(2) {
        return lengths[below(mix(seed, 5), lengths.len())];
    }
    let (least, most) = lengths.iter().fold((usize::MAX, 0), |(a, b), l| (a.min(*l), b.max(*l)));
    let edge = least + below(mix(seed, 6), most - least + 1);
    (edge / SECTOR * SECTOR).clamp(least, most)
}

/// The file whose every sector is as it was after the given number of unsynced changes.
fn combine(content: &Content, version: impl Fn(usize) -> usize, length: usize) -> Vec<u8> {
    let mut bytes = content.durable.clone();
    for (i, unsynced) in content.unsynced.iter().enumerate() {
        let (from, to) = match &unsynced.change {
            Change::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Change::SetLength(length) => (*length, bytes.len()),
        };
        if to > bytes.len() {
            bytes.resize(to, 0);
        }
        let mut at = from;
        while at < to {
            let end = ((at / SECTOR + 1) * SECTOR).min(to);
            if version(at / SECTOR) > i {
                match &unsynced.change {
                    Change::Write { bytes: new, .. } => bytes[at..end].copy_from_slice(&new[at - from..end - from]),
                    Change::SetLength(_) => bytes[at..end].fill(0),
                }
            }
            at = end;
        }
    }
    bytes.resize(length, 0);
    bytes
}

/// SplitMix64's step: a well-mixed number from a seed and a place in its sequence.
fn mix(seed: u64, place: u64) -> u64 {
    let mut z = seed.wrapping_add((place.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(draw: u64, bound: usize) -> usize {
    (draw % bound as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::{Disk, Fault, SimulatedDisk};
    use super::*;

    fn content(disk: &SimulatedDisk, name: &str) -> Option<Vec<u8>> {
        disk.files().into_iter().find(|(path, _)| path == Path::new(name)).map(|(_, bytes)| bytes)
    }

    #[test]
    fn only_what_was_synced_is_certain() {
        let disk = SimulatedDisk::default();
        let file = disk.create(Path::new("/a")).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(content(&disk.crash(Fate::Lost), "/a"), None, "its name was not synced");
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(b"two", 3).unwrap();
        assert_eq!(content(&disk.crash(Fate::Lost), "/a").unwrap(), b"one");
        assert_eq!(content(&disk.crash(Fate::Kept), "/a").unwrap(), b"onetwo");
        disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
        for seed in 0..100 {
            let after = disk.crash(Fate::Mixed(seed));
            assert!(content(&after, "/a").is_some() != content(&after, "/b").is_some(), "a rename is one step");
        }
    }

    #[test]
    fn unsynced_writes_are_lost_kept_torn_and_reordered() {
        let disk = SimulatedDisk::default();
        let file = disk.create(Path::new("/a")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[1; 2 * SECTOR], 0).unwrap();
        file.write_at(&[2; SECTOR], 2 * SECTOR as u64).unwrap();
        let seen: BTreeSet<Vec<u8>> = (0..2000)
            .map(|seed| {
                let bytes = content(&disk.crash(Fate::Mixed(seed)), "/a").unwrap();
                bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
            })
            .collect();
        let wanted: [&[u8]; 7] = [&[], &[1], &[1, 1], &[1, 1, 2], &[0, 0, 2], &[1, 0, 2], &[0, 1, 0]];
        for state in wanted {
            assert!(seen.contains(state), "{state:?} in {seen:?}");
        }
    }

    #[test]
    fn a_photograph_shows_what_was() {
        let disk = SimulatedDisk::default();
        let file = disk.create(Path::new("/a")).unwrap();
        disk.photograph(2, 3);
        disk.sync_dir(Path::new("/")).unwrap();
        for bytes in [b"one", b"two"] {
            file.write_at(bytes, 0).unwrap();
            file.sync().unwrap();
        }
        let shown: Vec<_> =
            disk.photographs().into_iter().map(|(n, disk)| (n, content(&disk.crash(Fate::Lost), "/a"))).collect();
        assert_eq!(shown, [(3, Some(Vec::new())), (5, Some(b"one".to_vec()))]);
        assert_eq!((disk.operations(), disk.photographs().len()), (6, 0));
    }

    #[test]
    fn a_failed_sync_is_not_made_up_for() {
        let disk = SimulatedDisk::default();
        let file = disk.create(Path::new("/a")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(b"lost", 0).unwrap();
        disk.fail_at(disk.trace().len(), Fault::Device);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(content(&disk, "/a").unwrap(), b"lost", "programs still see it");
        assert_eq!(content(&disk.crash(Fate::Kept), "/a").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let disk = SimulatedDisk::default();
        let file = disk.create(Path::new("/a")).unwrap();
        disk.set_capacity(Some(5));
        let error = file.write_at(b"tidemill", 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(content(&disk, "/a").unwrap(), b"tidem");
        assert_eq!(disk.free_space(Path::new("/")).unwrap(), 0);
        file.write_at(b"TIDEM", 0).unwrap();
    }
}
