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
pub struct Folder {
    /// The folder, if there is a limit.
    own: Option<PathBuf>,
    /// Where it is, or would be.
    within: PathBuf,
    /// How the folders of processes of this one's number are called.
    prefix: String,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(folder) = &self.own {
            // What is left is removed by the next start.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Limit {
    /// Divides the memory up. `within`: where the folder is made, if none is named.
    pub fn apply(&self, config: Config, within: &Path) -> Result<(Config, Folder), Failure> {
        let within = self.spill.as_deref().unwrap_or(within).to_owned();
        let prefix = format!("process-{}-", config.index);
        let Some(memory) = self.memory else { return Ok((config, Folder { own: None, within, prefix })) };
        if memory < LEAST {
            return Err(Failure(format!("error: --memory {memory} is too little: at least {LEAST} are needed")));
        }
        let folder = within.join(format!("{prefix}{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure(format!("error: cannot make the folder {}: {e}", folder.display())))?;
        let bytes = usize::try_from(memory.as_u64()).unwrap_or(usize::MAX);
        Ok((config.with_memory(bytes, folder.clone()), Folder { own: Some(folder), within, prefix }))
    }
}

impl Folder {
    /// Removes what processes of this one's number have left. Only where no other process of this number can be.
    pub fn remove_others(&self) {
        let Ok(entries) = std::fs::read_dir(&self.within) else { return };
        let others = entries.flatten().map(|entry| entry.path()).filter(|path| Some(path) != self.own.as_ref());
        for path in others {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.prefix)) {
                let _ = std::fs::remove_dir_all(path);
            }
        }
    }
}
