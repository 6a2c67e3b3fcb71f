//! `--memory`: state that does not fit goes to disk.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use tidemill_engine::Config;

use crate::Failure;

/// With less, nothing would go on.
const LEAST: ByteSize = ByteSize::mib(128);

/// How much memory may be taken.
#[derive(clap::Args)]
pub struct Limit {
    /// Memory that this process should take at most, such as 512MB or 2GiB; state of views that does not fit goes to disk.
    #[arg(long, value_name = "SIZE", env = "TIDEMILL_MEMORY")]
    memory: Option<ByteSize>,
    /// The folder for state that does not fit in memory [default: in the data folder, else where the system has temporary files].
    #[arg(long, value_name = "FOLDER", requires = "memory", env = "TIDEMILL_SPILL")]
    spill: Option<PathBuf>,
}

/// A folder of this process, which goes with it.
pub struct Folder(Option<PathBuf>);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            // What is left is removed by the next start.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Limit {
    /// Divides the memory up. `within`: where the folder is made, if none is named.
    pub fn apply(&self, config: Config, within: &Path) -> Result<(Config, Folder), Failure> {
        let Some(memory) = self.memory else { return Ok((config, Folder(None))) };
        if memory < LEAST {
            return Err(Failure(format!("error: --memory {memory} is too little: at least {LEAST} are needed")));
        }
        let within = self.spill.as_deref().unwrap_or(within);
        let folder = within.join(format!("process-{}-{}", config.index, std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure(format!("error: cannot make the folder {}: {e}", folder.display())))?;
        let bytes = usize::try_from(memory.as_u64()).unwrap_or(usize::MAX);
        Ok((config.with_memory(bytes, folder.clone()), Folder(Some(folder))))
    }
}

impl Folder {
    /// Removes what processes before have left beside this one's folder. Only for a folder that no other process uses.
    pub fn remove_others(&self) {
        let Some(own) = &self.0 else { return };
        let Some(entries) = own.parent().and_then(|within| std::fs::read_dir(within).ok()) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != own) {
            let of_process = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("process-"));
            if of_process {
                let _ = std::fs::remove_dir_all(path);
            }
        }
    }
}
