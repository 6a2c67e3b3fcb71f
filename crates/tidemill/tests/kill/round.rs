//! A folder's life: clients at work on tables while the server is killed again and again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::book::{Book, Kind};
use crate::check::{Look, difference, fixed_views};
use crate::clients::{Passing, Signals, define, spawn, write};
use crate::gate::Gate;
use crate::link::Pg;
use crate::outlets::{self, Outlets};
use crate::postgres::Postgres;
use crate::random::Random;
use crate::report::Report;
use crate::server::{Home, PATIENCE, Ports, Server};
use crate::tables::{FINAL, TABLES, VIEWS, WATCHED};
use crate::watch::{self, Watch};

/// When the server is killed.
pub const PHASES: [&str; 11] = [
    "random",
    "ingest",
    "file",
    "checkpoint",
    "recovery",
    "sink",
    "definition",
    "delivery",
    "transaction",
    "takeover",
    "repair",
];

/// Clients that write.
const WRITERS: [Kind; 7] =
    [Kind::Orders, Kind::Orders, Kind::Events, Kind::Transfers, Kind::Bag, Kind::Transfers, Kind::Sales];

/// How often checkpoints are taken, a folder at a time.
const CHECKPOINTS: [&str; 4] = ["200ms", "50ms", "200ms", "1500ms"];

/// Views of all that are verified after each restart.
const VERIFIED: usize = 8;

/// All that shares a folder's life.
struct Round {
    seed: u64,
    random: Random,
    home: Home,
    gate: Arc<Gate>,
    signals: Arc<Signals>,
    books: Vec<Arc<Mutex<Book>>>,
    passing: Arc<Mutex<Passing>>,
    outlets: Arc<Outlets>,
    observer: Option<JoinHandle<()>>,
    observed: Arc<AtomicBool>,
    watches: Vec<Arc<Watch>>,
    clients: Vec<JoinHandle<()>>,
}

/// Runs a folder's life with so many kills.
pub fn run(seed: u64, kills: usize, postgres: Option<&Postgres>, report: &mut Report) {
    let mut round = Round::new(seed, postgres);
    let done = round.live(kills, report);
    round.observed.store(true, Ordering::Relaxed);
    round.observer.take().into_iter().for_each(|observer| drop(observer.join()));
    round.gate.end();
    round.clients.drain(..).for_each(|client| drop(client.join()));
    let mut faults = std::mem::take(&mut *round.signals.faults.lock().expect("no panic"));
    faults.extend(done.err());
    report.acknowledged += round.signals.acknowledged.load(Ordering::Relaxed);
    if faults.is_empty() {
        let _ = std::fs::remove_dir_all(&round.home.folder);
    } else {
        faults.push(format!(
            "round {seed} in {}; the server said:\n{}",
            round.home.folder.display(),
            round.home.last_words()
        ));
    }
    report.faults.extend(faults);
}

impl Round {
    fn new(seed: u64, postgres: Option<&Postgres>) -> Round {
        let mut random = Random::new(seed);
        let home = Home::new(&format!("kill-{seed}"), CHECKPOINTS[random.below(CHECKPOINTS.len())]);
        let (gate, signals, clock) = (Arc::<Gate>::default(), Arc::<Signals>::default(), Arc::new(AtomicI64::new(0)));
        let book = |(client, kind): (usize, &Kind)| {
            Arc::new(Mutex::new(Book::new(client as i64 + 1, *kind, seed, clock.clone())))
        };
        let books: Vec<_> = WRITERS.iter().enumerate().map(book).collect();
        let only_grows = |view| FINAL.iter().any(|(name, _)| *name == view);
        let watch = |view: &'static str| {
            let (only_grows, recorded) = (only_grows(view), outlets::is_compared(view));
            Arc::new(Watch { view, only_grows, recorded, seen: Mutex::default() })
        };
        let watches: Vec<_> = WATCHED.into_iter().map(watch).collect();
        let database = postgres.map(|postgres| postgres.database(&format!("kill_{seed}")));
        let outlets = Arc::new(Outlets::new(&home.folder, database));
        let passing = Arc::new(Mutex::new(Passing::new(outlets.clone())));
        Round {
            seed,
            random,
            home,
            gate,
            signals,
            books,
            passing,
            outlets,
            observer: None,
            observed: Arc::default(),
            watches,
            clients: Vec::new(),
        }
    }

    fn live(&mut self, kills: usize, report: &mut Report) -> Result<(), String> {
        let (mut server, ports) = self.start(report)?;
        let mut pg = Pg::connect(ports.pg).map_err(|e| format!("{e:?}"))?;
        let views = VIEWS.iter().map(|(name, query)| format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
        let last = FINAL.iter().map(|(n, q)| format!("CREATE MATERIALIZED VIEW {n} AS {q} EMIT ON WINDOW CLOSE"));
        for sql in
            TABLES.iter().map(|sql| (*sql).to_owned()).chain(views).chain(last).chain(self.outlets.definitions()?)
        {
            pg.run(&sql).map_err(|e| format!("{sql}: {e:?}"))?;
        }
        drop(pg);
        let (outlets, observed, signals) = (self.outlets.clone(), self.observed.clone(), self.signals.clone());
        self.observer = Some(std::thread::spawn(move || outlets.observe(&observed, &signals)));
        self.employ();
        let target = report.kills() + kills;
        let mut ports = ports;
        let first = self.random.below(PHASES.len());
        for phase in PHASES.into_iter().cycle().skip(first) {
            if report.kills() >= target || self.has_faults() {
                break;
            }
            self.gate.open(ports);
            self.wait_for(phase);
            server.kill();
            report.kill(phase);
            self.gate.all_wait(self.clients.len());
            match phase {
                "recovery" => self.kill_in_recovery(report),
                "takeover" => self.kill_in_takeover(report),
                _ => {}
            }
            (server, ports) = self.start(report)?;
            self.check(ports, format!("round {} kill {} ({phase})", self.seed, report.kills()), VERIFIED)?;
        }
        if self.has_faults() { Ok(()) } else { self.finish(ports, report) }
    }

    fn has_faults(&self) -> bool {
        !self.signals.faults.lock().expect("no panic").is_empty()
    }

    /// Starts a server; now and then with another number of workers.
    fn start(&mut self, report: &mut Report) -> Result<(Server, Ports), String> {
        self.home.workers = if self.random.below(4) == 0 { 1 + self.random.below(4) } else { 2 };
        let mut server = self.home.spawn();
        let (ports, took) = server.ready()?;
        report.started(took);
        Ok((server, ports))
    }

    /// Hires the clients; they wait.
    fn employ(&mut self) {
        let (gate, signals, seed) = (&self.gate, &self.signals, self.seed);
        self.clients.extend(self.books.iter().map(|book| spawn(book, gate, signals, write)));
        self.clients.push(spawn(&self.passing, gate, signals, move |p, gate, signals| define(p, seed, gate, signals)));
        self.clients.extend(self.watches.iter().map(|w| spawn(w, gate, signals, watch::watch)));
    }

    /// Waits for the moment to kill.
    fn wait_for(&mut self, phase: &str) {
        let micros = |random: &mut Random, most: usize| Duration::from_micros(random.below(most) as u64);
        let random = &mut self.random;
        match phase {
            "ingest" => {
                self.signals.wait(|s| &s.acknowledged, 1 + random.below(60) as u64);
                std::thread::sleep(micros(random, 5_000));
            }
            "checkpoint" => {
                // The files of a checkpoint are young for a moment only.
                std::thread::sleep(micros(random, 500_000));
                let before = self.home.checkpoint_files();
                let began = Instant::now();
                while self.home.checkpoint_files().is_subset(&before) && began.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                std::thread::sleep(micros(random, 25_000));
            }
            "definition" => {
                self.signals.wait(|s| &s.defining, 1 + random.below(4) as u64);
                std::thread::sleep(micros(random, 60_000));
            }
            "sink" => {
                self.signals.wait(|s| &s.leading, 1);
                std::thread::sleep(micros(random, 60_000));
            }
            "file" | "delivery" => {
                std::thread::sleep(micros(random, 500_000));
                self.outlets.wait_for_commit(phase == "delivery");
                std::thread::sleep(micros(random, 4_000));
            }
            "repair" => {
                self.signals.wait(|s| &s.repairing, 1);
                std::thread::sleep(micros(random, 40_000));
            }
            "transaction" => {
                self.signals.wait(|s| &s.changing, 1 + random.below(12) as u64);
                std::thread::sleep(micros(random, 12_000));
            }
            _ => std::thread::sleep(micros(random, 1_500_000)),
        }
    }

    /// Kills again before anyone is served.
    fn kill_in_recovery(&mut self, report: &mut Report) {
        for _ in 0..1 + self.random.below(2) {
            let most = 300.max(report.longest().as_millis() as usize);
            let server = self.home.spawn();
            std::thread::sleep(Duration::from_millis(1 + self.random.below(most) as u64));
            drop(server);
            report.kill("in recovery");
        }
    }

    /// Kills again when sinks come to their places.
    fn kill_in_takeover(&mut self, report: &mut Report) {
        let server = self.home.spawn();
        self.outlets.wait_for_takeover(report.longest().max(Duration::from_secs(1)));
        std::thread::sleep(Duration::from_micros(self.random.below(30_000) as u64));
        drop(server);
        report.kill("in takeover");
    }

    fn check(&mut self, ports: Ports, place: String, verified: usize) -> Result<(), String> {
        let mut look = Look::at(ports, &self.signals, place)?;
        look.books(&self.books);
        let mut passing = self.passing.lock().expect("no panic");
        look.catalog(&mut passing);
        look.settle();
        look.sums(&self.books);
        look.counts();
        self.outlets.check(&mut look, ports, passing.there.iter().cloned());
        let mut views: Vec<String> = fixed_views().map(|(name, _)| (*name).to_owned()).collect();
        while views.len() > verified {
            views.swap_remove(self.random.below(views.len()));
        }
        views.extend(passing.there.iter().filter(|name| name.starts_with('v')).cloned());
        look.verify(views);
        Ok(())
    }

    /// All views once more, and what subscribers have added up.
    fn finish(&mut self, ports: Ports, report: &mut Report) -> Result<(), String> {
        self.check(ports, format!("round {} at the end", self.seed), usize::MAX)?;
        // Writers end here, subscribers come once more.
        for book in &self.books {
            book.lock().expect("no panic").retired = true;
        }
        self.passing.lock().expect("no panic").retired = true;
        self.gate.open(ports);
        let epoch = Look::at(ports, &self.signals, "the end".into())?.epoch();
        for watch in &self.watches {
            let began = Instant::now();
            while watch.seen.lock().expect("no panic").epoch.is_none_or(|seen| seen < epoch) {
                if began.elapsed() > PATIENCE || self.has_faults() {
                    return Err(format!("the subscriber of {} does not come to epoch {epoch}", watch.view));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let now = watch::snapshot(watch.view, ports.http)?;
            let seen = watch.seen.lock().expect("no panic");
            if let Some(text) = difference(&now.rows, &seen.rows) {
                self.signals.fault(format!("round {}: the subscriber of {} added up {text}", self.seed, watch.view));
            }
        }
        report.files += self.outlets.compare(&self.watches, &self.signals);
        Ok(())
    }
}

impl Signals {
    /// Waits until a number has grown by so much, or for a while.
    fn wait(&self, of: impl Fn(&Signals) -> &AtomicU64, by: u64) {
        let (began, from) = (Instant::now(), of(self).load(Ordering::Relaxed));
        while of(self).load(Ordering::Relaxed) < from + by && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
