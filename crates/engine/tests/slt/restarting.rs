//! A database in this process that stops and starts again between statements, on one folder.

use std::time::Duration;

use tempfile::TempDir;
use tidemill_engine::{Config, Data, Spill};

use super::embedded::Embedded;
use super::play::Database;
use super::random::Random;

/// What is kept in a folder, and whoever has it now.
pub struct Restarting {
    database: Option<Embedded>,
    folder: TempDir,
    spill: TempDir,
    random: Random,
    /// What a client has set, which ends with its session.
    settings: Vec<String>,
    in_transaction: bool,
}

impl Restarting {
    /// An empty database.
    pub fn new(seed: u64) -> Restarting {
        let folder = tempfile::tempdir().expect("a folder");
        let mut restarting = Restarting {
            database: None,
            folder,
            spill: tempfile::tempdir().expect("a folder"),
            random: Random::new(seed),
            settings: Vec::new(),
            in_transaction: false,
        };
        restarting.start();
        restarting
    }

    fn start(&mut self) {
        // Sometimes everything is in the checkpoint, sometimes everything in the journal, mostly some in both.
        let every = [0, 0, 3, 30, 3_600_000][self.random.below(5)];
        let data = Data { checkpoint_every: Duration::from_millis(every), ..Data::new(self.folder.path()) };
        let workers = 1 + self.random.below(3);
        // Sometimes no state stays in memory from one step to the next.
        let spill = (self.random.below(2) == 0).then(|| Spill { folder: self.spill.path().into(), state_bytes: 0 });
        self.database = Some(Embedded::with(Config { workers, data: Some(data), spill, ..Config::default() }));
    }

    async fn restart(&mut self) {
        let durability = self.database().engine.status().durability.expect("a data folder");
        assert_eq!(durability.checkpoint_failed, None);
        // The folder is free once the engine has stopped.
        self.database = None;
        self.start();
        for setting in self.settings.clone() {
            self.database().run(&setting).await.expect("a setting that was accepted");
        }
    }

    fn database(&mut self) -> &mut Embedded {
        self.database.as_mut().expect("it was started")
    }
}

impl Database for Restarting {
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        if !self.in_transaction && self.random.below(3) == 0 {
            self.restart().await;
        }
        let answer = self.database().run(sql).await;
        match sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "BEGIN" | "START" => self.in_transaction = true,
            "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.in_transaction = false,
            "SET" if answer.is_ok() => self.settings.push(sql.to_owned()),
            _ => {}
        }
        answer
    }

    fn definition(&self, view: &str) -> Option<(String, Vec<String>)> {
        self.database.as_ref()?.definition(view)
    }
}
