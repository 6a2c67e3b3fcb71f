//! Auctions read from files while the server is killed: the answers are those of a run without kills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::check::difference;
use crate::link::{Failed, Pg, Row};
use crate::random::Random;
use crate::report::Report;
use crate::server::{Home, PATIENCE, Ports, program};

/// The queries of `bench/nexmark/`.
const QUERIES: [&str; 8] = ["q3", "q4", "q5", "q7", "q8", "q9", "q18", "q20"];
/// Files that the events are in, and how many follow each other in one.
const FILES: usize = 2;
const CHUNK: usize = 100;

type Counts = BTreeMap<String, i64>;

/// Files of events, and what the queries say of them.
pub struct Reference {
    files: PathBuf,
    events: u64,
    queries: Vec<&'static str>,
    answers: BTreeMap<&'static str, Counts>,
}

fn bench(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/nexmark").join(file);
    std::fs::read_to_string(path).expect("the benchmark's SQL")
}

/// The streams, from a source like this.
fn schema(with: &str) -> String {
    let text = bench("schema.sql");
    text[text.find("CREATE SOURCE").expect("a source")..].replace("${SOURCE}", with)
}

/// A text about events, about those of one query: a source is read by the views that are there when it begins.
fn own(sql: &str, query: &str) -> String {
    let names =
        Regex::new(r"\b(SOURCE |VIEW |FROM |JOIN |TUMBLE\(|HOP\()(events|person|auction|bid)\b").expect("a pattern");
    names.replace_all(sql, format!("${{1}}${{2}}_{query}")).into_owned()
}

impl Reference {
    /// Writes the files, and asks a server that nobody kills.
    pub fn make(seed: u64, queries: usize) -> Reference {
        let events = crate::number("TIDEMILL_EVENTS", 70_000);
        let files = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill-events");
        let _ = std::fs::remove_dir_all(&files);
        std::fs::create_dir_all(&files).expect("a folder");
        write_events(&files, events);
        let (mut chosen, mut random) = (QUERIES.to_vec(), Random::new(seed));
        while chosen.len() > queries {
            chosen.swap_remove(random.below(chosen.len()));
        }
        let mut reference = Reference { files, events, queries: chosen, answers: BTreeMap::new() };
        let home = Home::new("kill-reference", "10s");
        let mut server = home.spawn();
        let (ports, _) = server.ready().expect("a server");
        let mut pg = Pg::connect(ports.pg).expect("a session");
        reference.define(&mut pg).expect("all is defined");
        reference.wait(&mut pg, PATIENCE).expect("all is read");
        reference.answers = reference.ask(&mut pg).expect("answers");
        let empty: Vec<_> = reference.answers.iter().filter(|(_, rows)| rows.is_empty()).collect();
        assert!(empty.is_empty(), "queries without an answer: {empty:?}");
        reference
    }

    /// Defines what is not there yet.
    fn define(&self, pg: &mut Pg) -> Result<(), Failed> {
        let mut there: Vec<String> = Vec::new();
        for show in ["SHOW SOURCES", "SHOW VIEWS", "SHOW TABLES"] {
            there.extend(pg.run(show)?.into_iter().map(|row| row[0].clone()));
        }
        let with = format!("WITH (connector = 'file', format = 'json', path = '{}')", self.files.display());
        let schema = schema(&with);
        let statements: Vec<&str> = schema.split(";\n").filter(|sql| !sql.contains("side_input")).collect();
        if !there.contains(&"fence".to_owned()) {
            pg.run("CREATE TABLE fence (a int)")?;
        }
        for query in self.queries.iter().copied() {
            if !there.contains(&format!("events_{query}")) {
                pg.run(&own(statements[0], query))?;
            }
            for sql in &statements[1..] {
                let sql = own(sql.trim(), query).replace("CREATE VIEW", "CREATE VIEW IF NOT EXISTS");
                if sql.contains("CREATE VIEW") {
                    pg.run(&sql)?;
                }
            }
            if !there.contains(&query.to_owned()) {
                pg.run(&format!(
                    "CREATE MATERIALIZED VIEW {query} AS {}",
                    own(&bench(&format!("{query}.sql")), query)
                ))?;
            }
        }
        Ok(())
    }

    /// Waits until all is read; false: not in that time.
    fn wait(&self, pg: &mut Pg, most: Duration) -> Result<bool, Failed> {
        let began = Instant::now();
        loop {
            let sources = pg.run("SHOW SOURCES")?;
            if let Some(stopped) = sources.iter().find(|row| row[1] == "stopped") {
                return Err(Failed::Refused("none".into(), stopped.join("|")));
            }
            if sources.len() == self.queries.len() && sources.iter().all(|row| row[1] == "ended") {
                // What was read before is published before this.
                pg.run("INSERT INTO fence VALUES (1)")?;
                return Ok(true);
            }
            if began.elapsed() >= most {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&self, pg: &mut Pg) -> Result<BTreeMap<&'static str, Counts>, Failed> {
        let mut answers = BTreeMap::new();
        for query in self.queries.iter().copied() {
            let mut counts = Counts::new();
            let rows = pg.run(&format!("SELECT * FROM {query}"))?;
            rows.into_iter().for_each(|row| *counts.entry(row.join("|")).or_default() += 1);
            answers.insert(query, counts);
        }
        Ok(answers)
    }

    /// What is wrong once all is read.
    fn complaints(&self, pg: &mut Pg) -> Result<Vec<String>, Failed> {
        let mut wrong = Vec::new();
        for (query, rows) in self.ask(pg)? {
            wrong.extend(difference(&self.answers[query], &rows).map(|text| format!("{query}: {text}")));
        }
        let all = self.events.to_string();
        let miscounted = |row: &&Row| row[2..6] != [&all, &all, "0", "0"];
        wrong.extend(pg.run("SHOW SOURCES")?.iter().filter(miscounted).map(|row| format!("counts: {}", row.join(" "))));
        Ok(wrong)
    }
}

/// Writes events with the built-in generator, so that each file has a part of any time.
fn write_events(folder: &Path, events: u64) {
    let schema = schema(&format!("WITH (connector = 'nexmark', events = {events})"));
    let source = schema.split(";\n").next().expect("the source");
    let all = "CREATE MATERIALIZED VIEW e AS SELECT event_type, person, auction, bid, \"dateTime\" AS t FROM events";
    let script = format!("{source}; {all}; SELECT event_type, person, auction, bid FROM e ORDER BY t");
    let output = Command::new(program()).args(["run", "--format", "json", "-c", &script]).output();
    let output = output.expect("a run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut parts = vec![String::new(); FILES];
    for (i, line) in text.lines().enumerate() {
        parts[i / CHUNK % FILES].push_str(line);
        parts[i / CHUNK % FILES].push('\n');
    }
    assert_eq!(text.lines().count() as u64, events);
    for (i, part) in parts.into_iter().enumerate() {
        std::fs::write(folder.join(format!("part-{i}.json")), part).expect("a file");
    }
}

/// Reads the files once, with so many kills at most.
pub fn run(seed: u64, kills: usize, reference: &Reference, report: &mut Report) {
    let mut random = Random::new(seed);
    let home = Home::new(&format!("kill-streams-{seed}"), ["50ms", "200ms", "1s"][random.below(3)]);
    match read(home.clone(), &mut random, kills, reference, report) {
        Ok(wrong) if wrong.is_empty() => drop(std::fs::remove_dir_all(&home.folder)),
        Ok(wrong) => report.faults.extend(wrong),
        Err(error) => report.faults.push(error),
    }
    if !report.faults.is_empty() {
        let said = home.last_words();
        report.faults.push(format!("streams {seed} in {}; the server said:\n{said}", home.folder.display()));
    }
}

fn read(
    mut home: Home,
    random: &mut Random,
    kills: usize,
    reference: &Reference,
    report: &mut Report,
) -> Result<Vec<String>, String> {
    for kill in 0.. {
        home.workers = if random.below(4) == 0 { 1 + random.below(4) } else { 2 };
        let mut server = home.spawn();
        if kill < kills && kill > 0 && random.below(4) == 0 {
            let most = 300.max(report.longest().as_millis() as usize);
            std::thread::sleep(Duration::from_millis(1 + random.below(most) as u64));
            report.kill("recovery");
            continue;
        }
        let (ports, took): (Ports, _) = server.ready()?;
        report.started(took);
        let last = kill >= kills;
        let most = if last { PATIENCE * 2 } else { Duration::from_millis(random.below(1_200) as u64) };
        let mut pg = Pg::connect(ports.pg).map_err(|e| format!("{e:?}"))?;
        if kill == 0 && !last {
            // Also while it is being defined.
            let defined = std::thread::scope(|scope| {
                let defining = scope.spawn(|| reference.define(&mut pg));
                std::thread::sleep(most * 2);
                server.kill();
                defining.join()
            });
            if let Ok(Err(Failed::Refused(code, message))) = defined {
                return Err(format!("{code} {message}"));
            }
            report.kill("definition");
            continue;
        }
        reference.define(&mut pg).map_err(|e| format!("{e:?}"))?;
        if reference.wait(&mut pg, most).map_err(|e| format!("{e:?}"))? {
            return reference.complaints(&mut pg).map_err(|e| format!("{e:?}"));
        }
        if last {
            return Err("the files are not read to their end".to_owned());
        }
        report.kill("reading");
    }
    Ok(Vec::new())
}
