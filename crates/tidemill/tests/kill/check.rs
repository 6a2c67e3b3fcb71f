//! What has to hold after each restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::book::Book;
use crate::clients::{Passing, Signals};
use crate::link::{Failed, Http, Pg, Row};
use crate::server::{PATIENCE, Ports};
use crate::tables::{COMPARED, FINAL, TABLES, UNVERIFIED, VIEWS};

/// The rows of a client: how many of each.
pub type Counts = BTreeMap<String, i64>;

/// A look at a server that nobody writes to.
pub struct Look<'a> {
    pg: Pg,
    http: Http,
    signals: &'a Signals,
    /// Where and when this is.
    place: String,
}

impl Look<'_> {
    pub fn at(ports: Ports, signals: &Signals, place: String) -> Result<Look<'_>, String> {
        let pg = Pg::connect(ports.pg).map_err(|error| format!("{error:?}"))?;
        let http = Http::connect(ports.http).map_err(|error| error.to_string())?;
        Ok(Look { pg, http, signals, place })
    }

    pub fn fault(&self, text: &str) {
        self.signals.fault(format!("{}: {text}", self.place));
    }

    /// The rows of a query; none, and a fault, if it fails.
    pub fn rows(&mut self, sql: &str) -> Vec<Row> {
        match self.pg.run(sql) {
            Ok(rows) => rows,
            Err(error) => {
                self.fault(&format!("{sql}: {error:?}"));
                Vec::new()
            }
        }
    }

    /// Each client's rows are those that it knows of; what was in doubt is there whole or not at all.
    pub fn books(&mut self, books: &[Arc<Mutex<Book>>]) {
        let mut found: BTreeMap<(&str, i64), Counts> = BTreeMap::new();
        for (table, columns) in COMPARED {
            let mut rows = self.rows(&format!("SELECT {columns} FROM {table}"));
            if columns.contains("ms") {
                rows.extend(self.rows(&format!("SELECT {columns} FROM {table}$late")));
            }
            for row in rows {
                let client = row[0].parse().unwrap_or(-1);
                *found.entry((table, client)).or_default().entry(row.join("|")).or_default() += 1;
            }
        }
        for book in books {
            let mut book = book.lock().expect("no panic");
            let in_doubt = book.in_doubt.take();
            let differs = |with| {
                COMPARED.iter().find_map(|(table, _)| {
                    let none = Counts::new();
                    let own = found.get(&(*table, book.client)).unwrap_or(&none);
                    difference(&book.expected(table, with), own).map(|text| format!("{table}: {text}"))
                })
            };
            match (differs(None), in_doubt.as_ref().and_then(|op| differs(Some(op)))) {
                (None, _) => {}
                (Some(_), None) if in_doubt.is_some() => in_doubt.into_iter().for_each(|op| book.enter(op)),
                (Some(without), with) => {
                    let asked: String = format!("{:?}", in_doubt.map(|op| op.how)).chars().take(300).collect();
                    self.fault(&format!(
                        "client {} after {} acknowledged: {without}; if what is in doubt was done: {with:?}; in doubt {asked}",
                        book.client, book.acknowledged
                    ));
                }
            }
        }
    }

    /// What was defined and dropped is there or not.
    pub fn catalog(&mut self, passing: &mut Passing) {
        let names =
            |rows: Vec<Row>| rows.into_iter().map(|mut row| row.swap_remove(0)).filter(|name| !name.contains('$'));
        let mut there: BTreeSet<String> = names(self.rows("SHOW TABLES")).collect();
        there.extend(names(self.rows("SHOW VIEWS")));
        there.extend(names(self.rows("SHOW SINKS")));
        let word = |sql: &str| sql.split_whitespace().nth(2).map(str::to_owned);
        let fixed = TABLES.iter().filter_map(|sql| word(sql)).chain(fixed_views().map(|(name, _)| (*name).to_owned()));
        let fixed = fixed.chain(passing.outlets.fixed().map(str::to_owned));
        let missing: Vec<String> = fixed.filter(|name| !there.remove(name)).collect();
        if let Some((name, _)) = passing.in_doubt.take() {
            match there.contains(&name) {
                true => passing.there.insert(name),
                false => passing.there.remove(&name),
            };
        }
        if !missing.is_empty() || passing.there != there {
            self.fault(&format!("missing {missing:?}; passing {:?}, and there are {there:?}", passing.there));
            passing.there = there;
        }
    }

    /// Waits until no view catches up any more.
    pub fn settle(&mut self) {
        let began = Instant::now();
        loop {
            let views = self.rows("SHOW VIEWS");
            let Some(view) = views.iter().find(|view| view[1] != "running") else { return };
            if view[1] != "catching up" || began.elapsed() > PATIENCE {
                return self.fault(&format!("a view does not run: {view:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Views equal their queries.
    pub fn verify(&mut self, views: impl IntoIterator<Item = String>) {
        for view in views.into_iter().filter(|view| !UNVERIFIED.contains(&view.as_str())) {
            match self.pg.run(&format!("VERIFY MATERIALIZED VIEW {view}")) {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    let some: Vec<String> = rows.iter().take(4).map(|row| row.join(" | ")).collect();
                    self.fault(&format!("view {view} is wrong in {} rows: {}", rows.len(), some.join("; ")));
                }
                Err(Failed::Refused(code, message)) => self.fault(&format!("VERIFY {view}: {code} {message}")),
                Err(Failed::Lost(error)) => return self.fault(&format!("VERIFY {view}: {error}")),
            }
        }
    }

    /// Sums and errors; needs no views to be verified.
    pub fn sums(&mut self, books: &[Arc<Mutex<Book>>]) {
        for (what, sql) in [
            ("the total", "SELECT total FROM total"),
            (
                "the number of rows without a share",
                "SELECT (SELECT count(*) FROM shares$errors) - (SELECT count(*) FROM orders WHERE divisor = 0)",
            ),
            ("the number of errors in a view", "SELECT n - (SELECT count(*) FROM shares$errors) FROM faulty"),
            ("late rows that are not", "SELECT count(*) FROM events$late WHERE at >= watermark"),
            (
                "windows said twice",
                "SELECT count(*) FROM (SELECT 1 FROM final_tumbled GROUP BY window_start, kind HAVING count(*) > 1) AS s",
            ),
        ] {
            // The errors of the last epoch enter with the next one.
            let (began, mut rows) = (Instant::now(), self.rows(sql));
            while rows != [["0"]] && began.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(Duration::from_millis(20));
                rows = self.rows(sql);
            }
            if rows != [["0"]] {
                self.fault(&format!("{what}: {rows:?}"));
            }
        }
        let bad: u64 = books.iter().map(|book| book.lock().expect("no panic").bad).sum();
        let rows = self.rows("SELECT count(*) FROM orders$bad");
        // A body in doubt that has nothing but bad records shows nowhere else.
        let found = rows.first().and_then(|row| row[0].parse::<u64>().ok());
        if found.is_none_or(|found| found < bad) {
            self.fault(&format!("{rows:?} bad records, and {bad} were acknowledged"));
        }
    }

    /// Rows that came in = applied + late + bad.
    pub fn counts(&mut self) {
        let answer = match self.http.ask("GET", "/v1/views", "") {
            Ok((200, answer)) => answer,
            other => return self.fault(&format!("GET /v1/views: {other:?}")),
        };
        let status: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        for relation in status["relations"].as_array().into_iter().flatten() {
            let [rows_in, applied, late, bad, rows] =
                ["rows_in", "applied", "late", "bad", "rows"].map(|name| relation[name].as_u64().unwrap_or(u64::MAX));
            let counts =
                format!("{}: {rows_in} in, {applied} applied, {late} late, {bad} bad, {rows} rows", relation["name"]);
            if relation["kind"] == "table" && rows_in != applied + late + bad {
                self.fault(&counts);
            }
            if relation["name"] == "events" {
                let kept =
                    self.rows("SELECT (SELECT count(*) FROM events) AS a, (SELECT count(*) FROM events$late) AS b");
                if kept != [[applied.to_string(), late.to_string()]] {
                    self.fault(&format!("{counts}, and kept are {kept:?}"));
                }
            }
        }
    }

    /// The last epoch.
    pub fn epoch(&mut self) -> u64 {
        let answer = self.http.ask("GET", "/healthz", "").map(|(_, answer)| answer).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&answer).ok().and_then(|a| a["epoch"].as_u64()).unwrap_or(0)
    }
}

/// The views that are always there.
pub fn fixed_views() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    VIEWS.iter().chain(FINAL)
}

/// Where two bags of rows differ; nothing if they do not.
pub fn difference(expected: &Counts, found: &Counts) -> Option<String> {
    let mut differences: Counts = found.clone();
    for (row, count) in expected {
        *differences.entry(row.clone()).or_default() -= count;
    }
    differences.retain(|_, count| *count != 0);
    let some: Vec<String> = differences.iter().take(4).map(|(row, count)| format!("{count:+} {row}")).collect();
    (!some.is_empty()).then(|| format!("{} rows differ: {}", differences.len(), some.join("; ")))
}
