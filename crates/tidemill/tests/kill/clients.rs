//! Clients at work: writers, and one that defines and drops.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::book::{Book, How, Kind, Op};
use crate::gate::Gate;
use crate::link::{Failed, Http, Pg};
use crate::outlets::Outlets;
use crate::random::Random;
use crate::tables::PASSING;

/// What clients tell the one who kills.
#[derive(Default)]
pub struct Signals {
    /// What has been acknowledged.
    pub acknowledged: AtomicU64,
    /// Transactions that change or delete rows, when they begin.
    pub changing: AtomicU64,
    /// Late rows that are let in, when that begins.
    pub repairing: AtomicU64,
    /// Definitions, when they begin.
    pub defining: AtomicU64,
    /// Definitions of sinks, when they begin.
    pub leading: AtomicU64,
    /// What must not be.
    pub faults: Mutex<Vec<String>>,
}

impl Signals {
    pub fn fault(&self, text: String) {
        eprintln!("FAULT {text}");
        self.faults.lock().expect("no panic").push(text);
    }
}

/// Writes until there is no server any more.
pub fn write(book: &Mutex<Book>, gate: &Gate, signals: &Signals) {
    let mut seen = 0;
    while let Some((generation, ports)) = gate.enter(seen) {
        seen = generation;
        let over_http = matches!(book.lock().expect("no panic").kind, Kind::Orders | Kind::Events);
        if over_http {
            if let Ok(mut http) = Http::connect(ports.http) {
                while write_one(book, signals, |op| post(&mut http, op)) {}
            }
        } else if let Ok(mut pg) = Pg::connect(ports.pg) {
            while write_one(book, signals, |op| state(&mut pg, op)) {}
        }
    }
}

/// Does one thing; false: the connection is gone.
fn write_one(book: &Mutex<Book>, signals: &Signals, mut send: impl FnMut(&Op) -> Result<(), Failed>) -> bool {
    let (op, pause) = {
        let mut book = book.lock().expect("no panic");
        if book.retired {
            return false;
        }
        let op = book.next();
        book.in_doubt = Some(op.clone());
        (op, book.pause())
    };
    if let How::Statements(all) = &op.how
        && all.iter().any(|sql| sql.contains("UPDATE") || sql.contains("DELETE"))
    {
        signals.changing.fetch_add(1, Ordering::Relaxed);
    }
    if matches!(&op.how, How::Statements(all) if all[0].starts_with("APPLY")) {
        signals.repairing.fetch_add(1, Ordering::Relaxed);
    }
    let answer = send(&op);
    let mut book = book.lock().expect("no panic");
    let code = match answer {
        Ok(()) => None,
        Err(Failed::Lost(_)) => return false,
        Err(Failed::Refused(code, message)) => Some((code, message)),
    };
    book.in_doubt = None;
    if code.as_ref().map(|(code, _)| code.as_str()) == op.refused {
        book.acknowledged += 1;
        book.enter(op);
        signals.acknowledged.fetch_add(1, Ordering::Relaxed);
    } else {
        let how: String = format!("{:?}", op.how).chars().take(300).collect();
        signals.fault(format!("client {}: {code:?}, not {:?}: {how}", book.client, op.refused));
    }
    drop(book);
    std::thread::sleep(Duration::from_micros(pause));
    true
}

fn post(http: &mut Http, op: &Op) -> Result<(), Failed> {
    let How::Rows { table, body } = &op.how else { return Ok(()) };
    let wait = if body.len() % 2 == 0 { "" } else { "?wait=published" };
    let (status, answer) = http.ask("POST", &format!("/v1/ingest/{table}{wait}"), body)?;
    let refused: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    match (status, refused["refused"].as_u64()) {
        (200, Some(bad)) if bad == op.bad => Ok(()),
        _ => Err(Failed::Refused(status.to_string(), answer)),
    }
}

fn state(pg: &mut Pg, op: &Op) -> Result<(), Failed> {
    let How::Statements(all) = &op.how else { return Ok(()) };
    for sql in all {
        if let Err(error) = pg.run(sql) {
            if let Failed::Refused(..) = error {
                pg.run("ROLLBACK")?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// What there is of passing views and tables.
pub struct Passing {
    /// Where sinks write to.
    pub outlets: Arc<Outlets>,
    pub there: BTreeSet<String>,
    /// What was asked, but not answered: a name, and whether it would be there.
    pub in_doubt: Option<(String, bool)>,
    made: u64,
    /// Nothing is defined any more.
    pub retired: bool,
}

impl Passing {
    pub fn new(outlets: Arc<Outlets>) -> Passing {
        Passing { outlets, there: BTreeSet::new(), in_doubt: None, made: 0, retired: false }
    }
}

/// Defines and drops until there is no server any more.
pub fn define(passing: &Mutex<Passing>, seed: u64, gate: &Gate, signals: &Signals) {
    let (mut seen, mut random) = (0, Random::new(seed));
    while let Some((generation, ports)) = gate.enter(seen) {
        seen = generation;
        let Ok(mut pg) = Pg::connect(ports.pg) else { continue };
        while define_one(passing, &mut random, &mut pg, signals) {
            std::thread::sleep(Duration::from_millis(random.below(120) as u64));
        }
    }
}

fn define_one(passing: &Mutex<Passing>, random: &mut Random, pg: &mut Pg, signals: &Signals) -> bool {
    let (sql, name, there) = {
        let mut passing = passing.lock().expect("no panic");
        if passing.retired {
            return false;
        }
        let pick = random.below(passing.there.len().max(1));
        let chosen = passing.there.iter().nth(pick).cloned();
        let mut doubt = true;
        let (sql, name, there) = match chosen {
            // Whatever happens, there is the old one or the new one.
            Some(name) if name.starts_with('v') && random.below(4) == 0 => {
                doubt = false;
                let query = PASSING[random.below(PASSING.len())];
                (format!("CREATE OR REPLACE MATERIALIZED VIEW {name} AS {query}"), name, true)
            }
            Some(name) if random.below(6) < passing.there.len() => {
                let kind = match name.chars().next() {
                    Some('t') => "TABLE",
                    Some('v') => "MATERIALIZED VIEW",
                    _ => "SINK",
                };
                (format!("DROP {kind} {name}"), name, false)
            }
            _ => {
                passing.made += 1;
                let made = passing.made;
                match random.below(PASSING.len() + 6) {
                    n if n >= PASSING.len() + 2 => match passing.outlets.passing(made, random) {
                        Ok((name, sql)) => (sql, name, true),
                        Err(fault) => {
                            signals.fault(fault);
                            return false;
                        }
                    },
                    n if n < PASSING.len() => {
                        let name = format!("v{made}");
                        (format!("CREATE MATERIALIZED VIEW {name} AS {}", PASSING[n]), name, true)
                    }
                    _ => {
                        let name = format!("t{made}");
                        (format!("CREATE TABLE {name} (a int PRIMARY KEY, b text)"), name, true)
                    }
                }
            }
        };
        passing.in_doubt = doubt.then(|| (name.clone(), there));
        (sql, name, there)
    };
    signals.defining.fetch_add(1, Ordering::Relaxed);
    if sql.contains(" SINK ") {
        signals.leading.fetch_add(1, Ordering::Relaxed);
    }
    let answer = pg.run(&sql);
    if let Err(Failed::Lost(_)) = answer {
        return false;
    }
    let mut passing = passing.lock().expect("no panic");
    passing.in_doubt = None;
    match answer {
        Ok(_) if there => drop(passing.there.insert(name)),
        Ok(_) => drop(passing.there.remove(&name)),
        // Its connection was just being cut.
        Err(Failed::Refused(code, _)) if code == "58000" && there && name.starts_with('p') => {}
        Err(error) => signals.fault(format!("{sql}: {error:?}")),
    }
    true
}

/// A client and what it shares.
pub fn spawn<T: Send + Sync + 'static>(
    shared: &Arc<T>,
    gate: &Arc<Gate>,
    signals: &Arc<Signals>,
    work: impl FnOnce(&T, &Gate, &Signals) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let (shared, gate, signals) = (shared.clone(), gate.clone(), signals.clone());
    std::thread::spawn(move || work(&shared, &gate, &signals))
}
