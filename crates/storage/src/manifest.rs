//! What a manifest says, as lines of text that a person can read.

use std::fmt::Write;
use std::str::FromStr;

use crate::log::RecordNumber;

const FIRST_LINE: &str = "tidemill manifest 1";

/// A file that belongs to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name in the store.
    pub name: String,
    /// The length of its content in bytes, without the footer.
    pub length: u64,
    /// The checksum in its footer.
    pub checksum: u64,
}

/// Commits a checkpoint: all of its files, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The incarnation that wrote it.
    pub incarnation: u64,
    /// Counts the manifests over all incarnations.
    pub sequence: u64,
    /// The epoch whose end the checkpoint is.
    pub epoch: u64,
    /// The first record of the log that is not in the checkpoint.
    pub log_position: RecordNumber,
    /// Its files, in the order in which they were given.
    pub files: Vec<FileEntry>,
}

/// How the names of manifests begin.
pub(crate) const MANIFEST: &str = "manifest-";

impl Manifest {
    /// Names sort as manifests do: a younger incarnation's after all of an older one's.
    pub(crate) fn name(&self) -> String {
        format!("{MANIFEST}{:020}-{:020}", self.incarnation, self.sequence)
    }

    /// The incarnation and the sequence in a manifest's name.
    pub(crate) fn place(name: &str) -> Option<(u64, u64)> {
        let (incarnation, sequence) = name.strip_prefix(MANIFEST)?.split_once('-')?;
        Some((incarnation.parse().ok()?, sequence.parse().ok()?))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Manifest { incarnation, sequence, epoch, log_position, files } = self;
        let mut text = format!(
            "{FIRST_LINE}\nincarnation {incarnation}\nsequence {sequence}\nepoch {epoch}\nlog {log_position}\nfiles {}\n",
            files.len()
        );
        for FileEntry { name, length, checksum } in files {
            let _ = writeln!(text, "{name} {length} {checksum:016x}");
        }
        text.into_bytes()
    }

    /// The manifest, or what is wrong with the text.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "the manifest is not text".to_owned())?;
        let mut lines = text.lines();
        match lines.next() {
            Some(FIRST_LINE) => {}
            other => return Err(format!("the first line is {other:?}, not {FIRST_LINE:?}")),
        }
        let mut field = |name: &str| -> Result<u64, String> {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')?.parse().ok());
            value.ok_or_else(|| format!("{line:?} stands where {name:?} and a number should"))
        };
        let [incarnation, sequence] = [field("incarnation")?, field("sequence")?];
        let [epoch, log_position, count] = [field("epoch")?, field("log")?, field("files")?];
        let files: Vec<FileEntry> = lines.map(str::parse).collect::<Result<_, _>>()?;
        if files.len() as u64 != count {
            return Err(format!("{} files are listed, but {count} are announced", files.len()));
        }
        Ok(Manifest { incarnation, sequence, epoch, log_position, files })
    }
}

impl FromStr for FileEntry {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let entry = || {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            let length = words.next()?.parse().ok()?;
            let checksum = u64::from_str_radix(words.next()?, 16).ok()?;
            words.next().is_none().then_some(FileEntry { name, length, checksum })
        };
        entry().ok_or_else(|| format!("{line:?} is not a file's name, length and checksum"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let files = vec![
            FileEntry { name: "a-1".into(), length: u64::MAX, checksum: 0 },
            FileEntry { name: "b".into(), length: 0, checksum: u64::MAX },
        ];
        let manifest = Manifest { incarnation: 3, sequence: 9, epoch: 17, log_position: 4, files };
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(Manifest::place(&manifest.name()), Some((3, 9)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = "tidemill manifest 1\nincarnation 1\nsequence 1\nepoch 1\nlog 1\nfiles 1\na 1 00ff\n";
        Manifest::decode(good.as_bytes()).unwrap();
        for (from, to, says) in [
            ("manifest 1", "manifest 2", "first line"),
            ("epoch", "epoche", "\"epoch\" and a number"),
            ("log 1", "log -1", "\"log\" and a number"),
            ("files 1", "files 2", "2 are announced"),
            ("00ff", "zz", "checksum"),
            ("a 1 00ff", "a 1 00ff x", "checksum"),
        ] {
            let error = Manifest::decode(good.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(Manifest::decode(&[0xff]).is_err());
    }
}
