//! Changes as files in a folder, a file per commit; each change is in exactly one.
//!
//! `<sink>-<epoch>-<incarnation>.<ending>` holds the changes up to the end of that epoch, since the file before it. It is
//! written under a name that begins with a dot and ends in `.tmp`, synced, and renamed: a reader sees all of it or
//! nothing, and its name is the record that the epoch is committed.
//!
//! `.<sink>.fence` holds the greatest incarnation that has come. A commit reads it and renames under the lock
//! `.<sink>.lock`, which `open` takes too: an older incarnation cannot slip its file in behind it.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch};
use tidemill_env::{Disk, DiskLock, Env};

use super::rows::{FileFormat, Mode};
use crate::options::Options;
use crate::sink::{Opening, Pace, Sink, SinkError};

/// Longest fence that is read; a right one is far shorter.
const FENCE_BYTES: usize = 64;

/// Writes files into a folder.
pub struct FolderSink {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// The sink's name in a form that any file may have.
    name: String,
    mode: Mode,
    format: FileFormat,
    schema: SchemaRef,
    interval: Duration,
    incarnation: u64,
    waiting: Vec<RecordBatch>,
}

impl FolderSink {
    /// A sink from its options: `path`, `format` (json, csv or parquet), `mode`, `commit_interval`.
    pub fn new(
        name: &str,
        options: &[(String, String)],
        schema: &SchemaRef,
        append_only: bool,
        env: &Env,
    ) -> Result<FolderSink, SinkError> {
        let mut options = Options::new(options);
        let folder = PathBuf::from(options.required("path")?);
        let mode = Mode::of(&mut options, append_only)?;
        let format = FileFormat::of(&mut options, Path::new(""))?;
        let interval = options.duration("commit_interval", super::COMMIT_INTERVAL)?;
        options.finish()?;
        Ok(FolderSink {
            disk: env.disk().clone(),
            folder,
            name: file_name(name),
            mode,
            format,
            schema: mode.schema(schema),
            interval,
            incarnation: 0,
            waiting: Vec::new(),
        })
    }

    fn hidden(&self, what: &str) -> PathBuf {
        self.folder.join(format!(".{}.{what}", self.name))
    }

    /// The epoch that a file of this sink commits, by the file's name.
    fn epoch_of(&self, file: &str) -> Option<Epoch> {
        let stem = file.strip_suffix(self.format.extension())?.strip_suffix('.')?;
        let (stem, incarnation) = stem.rsplit_once('-')?;
        incarnation.parse::<u64>().ok()?;
        let (name, epoch) = stem.rsplit_once('-')?;
        (name == self.name).then(|| epoch.parse().ok()).flatten()
    }

    /// Whether a file was never finished, and is this sink's.
    fn is_leftover(&self, file: &str) -> bool {
        let Some(stem) = file.strip_prefix('.').and_then(|f| f.strip_suffix(".tmp")) else { return false };
        self.epoch_of(stem).is_some() || stem.strip_suffix(".fence") == Some(self.name.as_str())
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, SinkError> {
        let path = self.hidden("lock");
        self.disk.lock(&path).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => SinkError::retry(format!("{}: another process holds the lock", path.display())),
            _ => failed(&path, &error),
        })
    }

    /// The incarnation that has the folder.
    fn fence(&self) -> Result<Option<u64>, SinkError> {
        let path = self.hidden("fence");
        let file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, &error)),
        };
        let mut bytes = [0; FENCE_BYTES];
        let length = file.read_at(&mut bytes, 0).map_err(|e| failed(&path, &e))?;
        let number = str::from_utf8(&bytes[..length]).ok().and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| SinkError::Fatal(format!("{}: this is no incarnation", path.display())))
    }

    /// Writes a file under a name that nobody looks at; what was left under it is gone.
    fn write_aside(&self, aside: &Path, bytes: &[u8]) -> Result<(), SinkError> {
        let write = || {
            self.remove(aside)?;
            let file = self.disk.create(aside)?;
            file.write_at(bytes, 0)?;
            file.sync()
        };
        write().map_err(|e| failed(aside, &e))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Makes a rename durable. A sync of names that failed cannot be made up for.
    fn sync_names(&self) -> Result<(), SinkError> {
        self.disk.sync_dir(&self.folder).map_err(|e| SinkError::Fatal(format!("{}: {e}", self.folder.display())))
    }

    fn make_folder(&self) -> Result<(), SinkError> {
        let make = || {
            if self.disk.exists(&self.folder)? {
                return Ok(());
            }
            self.disk.create_dir(&self.folder)?;
            self.disk.sync_dir(self.folder.parent().unwrap_or(Path::new("")))
        };
        make().map_err(|e| failed(&self.folder, &e))
    }

    /// The last epoch that is there; removes what was never finished.
    fn look_around(&self) -> Result<Option<Epoch>, SinkError> {
        let files = self.disk.list(&self.folder).map_err(|e| failed(&self.folder, &e))?;
        for file in files.iter().filter(|f| self.is_leftover(f)) {
            let path = self.folder.join(file);
            self.remove(&path).map_err(|e| failed(&path, &e))?;
        }
        Ok(files.iter().filter_map(|f| self.epoch_of(f)).max())
    }

    fn take_over(&self, opening: Opening) -> Result<(), SinkError> {
        let (fence, aside) = (self.hidden("fence"), self.hidden("fence.tmp"));
        self.write_aside(&aside, opening.incarnation.to_string().as_bytes())?;
        self.disk.rename(&aside, &fence).map_err(|e| failed(&fence, &e))
    }
}

/// A name in the characters that every file system takes.
fn file_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

fn failed(path: &Path, error: &io::Error) -> SinkError {
    let reason = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::Interrupted => SinkError::retry(reason),
        _ => SinkError::Fatal(reason),
    }
}

impl Sink for FolderSink {
    fn open(&mut self, opening: Opening) -> Result<Option<Epoch>, SinkError> {
        self.make_folder()?;
        let _held = self.lock()?;
        let recorded = self.fence()?;
        if let Some(recorded) = recorded.filter(|r| *r > opening.incarnation) {
            return Err(SinkError::fenced(opening.incarnation, recorded));
        }
        let committed = self.look_around()?;
        if opening.created && committed.is_some() {
            return Err(SinkError::Fatal(format!(
                "{} holds files of an earlier sink of this name: move them away, or choose another folder or name",
                self.folder.display()
            )));
        }
        if !opening.created && recorded.is_none() {
            return Err(SinkError::Fatal(format!(
                "{} is missing, so what the folder has cannot be known",
                self.hidden("fence").display()
            )));
        }
        self.take_over(opening)?;
        // Also for a file whose rename nobody synced: it counts as committed from now on.
        self.sync_names()?;
        self.incarnation = opening.incarnation;
        Ok(committed)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        self.waiting.push(self.mode.rows(epoch, delta)?);
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let file = format!("{}-{epoch:020}-{}.{}", self.name, self.incarnation, self.format.extension());
        let (path, aside) = (self.folder.join(&file), self.folder.join(format!(".{file}.tmp")));
        self.write_aside(&aside, &self.format.file(&self.schema, &self.waiting)?)?;
        let _held = self.lock()?;
        let recorded = self.fence()?;
        if recorded != Some(self.incarnation) {
            // It would be removed by the next one that opens, at the latest.
            let _ = self.remove(&aside);
            return Err(match recorded {
                Some(recorded) => SinkError::fenced(self.incarnation, recorded),
                None => SinkError::Fenced("another incarnation has dropped the sink".into()),
            });
        }
        self.disk.rename(&aside, &path).map_err(|e| failed(&path, &e))?;
        self.waiting.clear();
        self.sync_names()
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        let _held = self.lock()?;
        if self.fence()? == Some(self.incarnation) {
            let path = self.hidden("fence");
            self.remove(&path).map_err(|e| failed(&path, &e))?;
            self.sync_names()?;
        }
        Ok(())
    }

    fn pace(&self) -> Pace {
        Pace { commit_interval: self.interval, local: true, retry_for: None }
    }
}
