//! A server process that keeps everything in a folder, and is killed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a debug build on a busy machine, short enough to end a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program: `TIDEMILL_BINARY` may name a faster one.
pub fn program() -> PathBuf {
    std::env::var_os("TIDEMILL_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tidemill").into(), PathBuf::from)
}

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub pg: u16,
    pub http: u16,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Home {
    /// Holds the server's folder `data`, and its messages in `log`.
    pub folder: PathBuf,
    pub workers: usize,
    pub checkpoint_every: String,
}

/// A process; it may not be there yet for clients. Ends with the test.
pub struct Server {
    process: Child,
    began: Instant,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Home {
    /// An empty folder below the one for tests' files.
    pub fn new(name: &str, checkpoint_every: &str) -> Home {
        let checkpoint_every = std::env::var("TIDEMILL_CHECKPOINTS").unwrap_or_else(|_| checkpoint_every.to_owned());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Home { folder, workers: 2, checkpoint_every }
    }

    /// Starts a process.
    pub fn spawn(&self) -> Server {
        let log = File::options().append(true).create(true).open(self.folder.join("log")).expect("a file for the log");
        let process = Command::new(program())
            .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", &self.workers.to_string()])
            .args(["--checkpoint-every", &self.checkpoint_every, "--data"])
            .arg(self.folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a process");
        Server { process, began: Instant::now() }
    }

    /// The names of what checkpoints consist of.
    pub fn checkpoint_files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder.join("data/checkpoints")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The end of what the server has said.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Server {
    /// Waits until it serves. Gives where, and how long that took since its start.
    pub fn ready(&mut self) -> Result<(Ports, Duration), String> {
        let output = self.process.stdout.take().ok_or("it was waited for before")?;
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let addresses = BufReader::new(output).lines().map_while(Result::ok).filter_map(|line| {
                let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"))?;
                address.rsplit(':').next()?.parse::<u16>().ok()
            });
            addresses.take(2).for_each(|port| tell.send(port).unwrap_or_default());
        });
        let port = || told.recv_timeout(PATIENCE).map_err(|_| "the server does not come up".to_owned());
        let ports = Ports { pg: port()?, http: port()? };
        Ok((ports, self.began.elapsed()))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
