//! Sinks over the views, and what has to be in the places that they write to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::check::{Counts, Look, difference};
use crate::clients::Signals;
use crate::files::Files;
use crate::link::{Pg, Row};
use crate::postgres::Database;
use crate::random::Random;
use crate::server::Ports;
use crate::watch::{self, Watch};

/// Sinks to folders: name, view or query, format.
const FOLDERS: [(&str, &str, &str); 7] = [
    ("files_joined", "joined", "json"),
    ("files_matched", "full_joined", "json"),
    ("files_balances", "balances", "json"),
    ("files_sessions", "final_sessions", "json"),
    ("files_best", "best", "csv"),
    ("files_tumbled", "final_tumbled", "csv"),
    ("files_bag", "(SELECT k, v, count(*) AS n FROM bag GROUP BY k, v)", "csv"),
];

/// Sinks to tables of PostgreSQL: name and table, view, columns, and the key, by which rows are replaced.
const TABLES: [(&str, &str, &str, &str); 5] = [
    ("table_joined", "joined", "id bigint, item text, amount numeric, name text, region text", "id"),
    ("table_balances", "balances", "account int, balance numeric", "account"),
    ("table_tumbled", "tumbled", "window_start timestamp, kind text, n bigint, s bigint", "window_start, kind"),
    ("rows_tumbled", "final_tumbled", "window_start timestamp, kind text, n bigint, s bigint", ""),
    (
        "rows_sessions",
        "final_sessions",
        "kind text, window_start timestamp, window_end timestamp, n bigint, least int",
        "",
    ),
];

/// What holds in PostgreSQL at any moment: what it is, and a query that gives 0.
const ALWAYS: [(&str, &str); 3] = [
    ("the sum of balances", "SELECT coalesce(sum(balance), 0) FROM table_balances"),
    ("windows that came again", "SELECT count(*) - count(DISTINCT (window_start, kind)) FROM rows_tumbled"),
    (
        "sessions that came again",
        "SELECT count(*) - count(DISTINCT (kind, window_start, window_end)) FROM rows_sessions",
    ),
];

/// How long a sink may take until it has everything, once nothing changes.
const CATCH_UP: Duration = Duration::from_secs(40);

/// The places of a folder's life.
pub struct Outlets {
    folder: PathBuf,
    files: Vec<(&'static str, &'static str, Files)>,
    pub database: Option<Database>,
}

impl Outlets {
    /// Places below that folder, and in that database.
    pub fn new(folder: &Path, database: Option<Database>) -> Outlets {
        let folder = folder.join("sinks");
        std::fs::create_dir_all(&folder).expect("a folder");
        let files = |(name, view, format): (&'static str, &'static str, &str)| {
            (name, view, Files::new(folder.join(name), format == "csv", balanced(view)))
        };
        Outlets { files: FOLDERS.into_iter().map(files).collect(), folder, database }
    }

    /// Statements that make the sinks that are always there.
    pub fn definitions(&self) -> Result<Vec<String>, String> {
        let folders = FOLDERS.iter().map(|(name, view, format)| self.folder_sink(name, view, format));
        let mut all: Vec<String> = folders.collect();
        for (name, view, columns, key) in TABLES {
            all.extend(self.table_sink(name, view, columns, key)?);
        }
        Ok(all)
    }

    /// The names of the sinks that are always there.
    pub fn fixed(&self) -> impl Iterator<Item = &'static str> {
        let tables = TABLES.iter().filter(|_| self.database.is_some()).map(|(name, ..)| *name);
        FOLDERS.iter().map(|(name, ..)| *name).chain(tables)
    }

    fn folder_sink(&self, name: &str, from: &str, format: &str) -> String {
        let path = self.folder.join(name);
        let from = match from.strip_prefix('(').and_then(|query| query.strip_suffix(')')) {
            Some(query) => format!("AS {query}"),
            None => format!("FROM {from}"),
        };
        format!(
            "CREATE SINK {name} {from} WITH (connector = 'file', path = '{}/', format = '{format}')",
            path.display()
        )
    }

    /// Makes the table; the statement for the sink, if there is a database.
    fn table_sink(&self, name: &str, view: &str, columns: &str, key: &str) -> Result<Option<String>, String> {
        let Some(database) = &self.database else { return Ok(None) };
        let (in_table, option) = match key {
            "" => (String::new(), String::new()),
            key => (format!(", PRIMARY KEY ({key})"), format!(", primary_key = '{key}'")),
        };
        database.run(&format!("CREATE TABLE {name} ({columns}{in_table})"))?;
        Ok(Some(format!("CREATE SINK {name} FROM {view} WITH ({} '{name}'{option})", database.options())))
    }

    /// A name for a sink that comes and goes, and the statement that makes it. What it writes, and where, follows from
    /// the name.
    pub fn passing(&self, made: u64, random: &mut Random) -> Result<(String, String), String> {
        let (folder, table) = (random.below(FOLDERS.len()), random.below(TABLES.len()));
        if random.below(2) == 0 {
            let (name, (_, view, columns, key)) = (format!("p{table}_{made}"), TABLES[table]);
            if let Some(sql) = self.table_sink(&name, view, columns, key)? {
                return Ok((name, sql));
            }
        }
        let (name, (_, view, format)) = (format!("f{folder}_{made}"), FOLDERS[folder]);
        let sql = self.folder_sink(&name, view, format);
        Ok((name, sql))
    }

    /// Looks at all places all the time, until that is done.
    pub fn observe(&self, done: &AtomicBool, signals: &Signals) {
        let mut pg: Option<Pg> = None;
        let mut random = Random::new(1);
        let mut wrong = false;
        for turn in 0u64.. {
            if done.load(Ordering::Relaxed) || wrong {
                return;
            }
            for (_, _, files) in &self.files {
                if let Err(fault) = files.follow() {
                    signals.fault(fault);
                    wrong = true;
                }
            }
            if let Some(database) = self.database.as_ref().filter(|_| turn.is_multiple_of(4)) {
                let asked = pg.take().map_or_else(|| database.connect(), Ok).and_then(|mut pg| {
                    let cut = random.below(100) == 0;
                    ask(&mut pg, cut).map(|()| pg)
                });
                match asked {
                    Ok(there) => pg = Some(there),
                    Err(fault) => {
                        signals.fault(fault);
                        wrong = true;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a sink is in the middle of a file or a transaction.
    pub fn wait_for_commit(&self, in_table: bool) {
        let (began, mut pg) =
            (Instant::now(), self.database.as_ref().filter(|_| in_table).and_then(|d| d.connect().ok()));
        let transactions = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND application_name = 'tidemill' AND backend_xid IS NOT NULL";
        while began.elapsed() < Duration::from_secs(3) {
            let commits = match &mut pg {
                Some(pg) => pg.run(transactions).is_ok_and(|rows| !rows.is_empty()),
                None => self.files.iter().any(|(_, _, files)| files.names().1),
            };
            if commits {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until a server that comes up has told the first place that it is there, or for so long.
    pub fn wait_for_takeover(&self, most: Duration) {
        let (began, before) = (Instant::now(), self.incarnations());
        while self.incarnations() == before && began.elapsed() < most {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Which start of the server each place has seen last.
    fn incarnations(&self) -> Vec<String> {
        let fence = |(name, _, files): &(&str, _, Files)| {
            std::fs::read_to_string(files.folder.join(format!(".{name}.fence"))).unwrap_or_default()
        };
        self.files.iter().map(fence).collect()
    }

    /// All places have exactly what the views have.
    pub fn check(&self, look: &mut Look<'_>, ports: Ports, passing: impl Iterator<Item = String>) {
        let mut all = Vec::new();
        for name in passing {
            match (name.chars().next(), index(&name)) {
                (Some('f'), Some(index)) => all.push((name, FOLDERS[index].1, None)),
                (Some('p'), Some(index)) => all.push((name, TABLES[index].1, Some(TABLES[index].2))),
                _ => {}
            }
        }
        all.extend(FOLDERS.iter().map(|(name, view, _)| ((*name).to_owned(), *view, None)));
        let tables = TABLES.iter().filter(|_| self.database.is_some());
        all.extend(tables.map(|(name, view, columns, _)| ((*name).to_owned(), *view, Some(*columns))));
        let began = Instant::now();
        for (name, view, columns) in all {
            let mut found = self.differs(look, ports, &name, view, columns);
            while found.is_some() && began.elapsed() < CATCH_UP {
                std::thread::sleep(Duration::from_millis(20));
                found = self.differs(look, ports, &name, view, columns);
            }
            let sinks = look.rows("SHOW SINKS");
            let state = sinks.iter().find(|row| row[0] == name);
            if let Some(text) = found.or_else(|| state.filter(|row| row[1] == "stopped").map(|row| row[4].clone())) {
                look.fault(&format!("sink {name} of {view}: {text}; it is {state:?}"));
            }
        }
    }

    /// Where a sink's place differs from the view.
    fn differs(
        &self,
        look: &mut Look<'_>,
        ports: Ports,
        name: &str,
        view: &'static str,
        columns: Option<&str>,
    ) -> Option<String> {
        if let (Some(columns), Some(database)) = (columns, &self.database) {
            let names: Vec<&str> = columns.split(", ").filter_map(|column| column.split(' ').next()).collect();
            let ask = |from| format!("SELECT {} FROM {from}", names.join(", "));
            let expected = counted(look.rows(&ask(view)));
            return match database.run(&ask(name)) {
                Ok(found) => difference(&expected, &counted(found)),
                Err(error) => Some(error),
            };
        }
        let passing;
        let files = match self.files.iter().find(|(own, ..)| *own == name) {
            Some((.., files)) => files,
            None => {
                let csv = FOLDERS[index(name)?].2 == "csv";
                passing = Files::new(self.folder.join(name), csv, balanced(view));
                &passing
            }
        };
        let expected = match files.csv {
            true => counted(look.rows(&format!("SELECT * FROM {view} AS own"))),
            false => match watch::snapshot(view, ports.http) {
                Ok(seen) => seen.rows,
                Err(error) => return Some(error),
            },
        };
        files.follow().err().or_else(|| files.differs(&expected))
    }

    /// Once all is there: each file is as it was, and has, epoch by epoch, what subscribers were told. Gives the number
    /// of files.
    pub fn compare(&self, watches: &[Arc<Watch>], signals: &Signals) -> usize {
        for (name, view, files) in &self.files {
            if let Err(fault) = files.unchanged() {
                signals.fault(fault);
            }
            let Some(watch) = watches.iter().find(|watch| watch.view == *view && !files.csv) else { continue };
            let seen = watch.seen.lock().expect("no panic");
            if let Some(text) = files.compare(&seen.changes) {
                signals.fault(format!("sink {name}: {text}"));
            }
        }
        self.files.iter().map(|(.., files)| files.count()).sum()
    }
}

/// Which kind of sink that comes and goes has this name.
fn index(name: &str) -> Option<usize> {
    name.get(1..)?.split('_').next()?.parse().ok()
}

/// Rows, and how many there are of each.
fn counted(rows: Vec<Row>) -> Counts {
    let mut counts = Counts::new();
    rows.into_iter().for_each(|row| *counts.entry(row.join("|")).or_default() += 1);
    counts
}

/// Whether what a view's sink writes is compared, epoch by epoch, with what subscribers are told.
pub fn is_compared(view: &str) -> bool {
    FOLDERS.iter().any(|(_, own, format)| *own == view && *format == "json")
}

/// Transfers move money, so that balances add up to nothing.
fn balanced(view: &str) -> Option<&'static str> {
    (view == "balances").then_some("balance")
}

/// Asks for what always holds; now and then the sinks' connections are cut first.
fn ask(pg: &mut Pg, cut: bool) -> Result<(), String> {
    if cut {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'tidemill'";
        pg.run(cut).map_err(|error| format!("{error:?}"))?;
    }
    for (what, sql) in ALWAYS {
        let rows = pg.run(sql).map_err(|error| format!("{sql}: {error:?}"))?;
        if rows != [["0"]] {
            return Err(format!("{what}: {rows:?}"));
        }
    }
    Ok(())
}
