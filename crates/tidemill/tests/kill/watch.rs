//! Subscribers that come back after each kill and add up what they are told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use crate::check::Counts;
use crate::clients::Signals;
use crate::gate::Gate;
use crate::server::PATIENCE;

/// What a subscriber has seen of a view.
pub struct Watch {
    pub view: &'static str,
    /// Whether rows are never taken back.
    pub only_grows: bool,
    /// Whether what was told is kept by epoch.
    pub recorded: bool,
    pub seen: Mutex<Seen>,
}

/// What was told.
#[derive(Default)]
pub struct Seen {
    /// The epoch up to which it has seen everything; none before the first rows.
    pub epoch: Option<u64>,
    /// Rows and how often they are there.
    pub rows: Counts,
    /// What was told, by epoch; the first rows too.
    pub changes: BTreeMap<u64, Counts>,
    pub events: u64,
}

/// An event: its position, kind and data.
#[derive(Default)]
struct Event {
    id: Option<u64>,
    kind: String,
    data: String,
}

/// Events as they come over a connection.
struct Events {
    lines: std::io::Lines<BufReader<TcpStream>>,
}

impl Events {
    /// The events that bring the reader to the next epoch; `None` once the connection is gone.
    fn next_epoch(&mut self) -> Option<Vec<Event>> {
        let (mut event, mut parts) = (Event::default(), Vec::new());
        loop {
            let line = self.lines.next()?.ok()?;
            if let Some(id) = line.strip_prefix("id: ") {
                event.id = id.parse().ok();
            } else if let Some(kind) = line.strip_prefix("event: ") {
                event.kind = kind.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = data.to_owned();
            } else if line.is_empty() && !event.kind.is_empty() {
                let whole = event.id.is_some() || event.kind == "error" || event.kind == "end";
                parts.push(std::mem::take(&mut event));
                if whole {
                    return Some(parts);
                }
            }
        }
    }
}

/// Watches until there is no server any more.
pub fn watch(watch: &Watch, gate: &Gate, signals: &Signals) {
    let mut generation = 0;
    while let Some((next, ports)) = gate.enter(generation) {
        generation = next;
        if let Err(fault) = follow(watch, ports.http) {
            signals.fault(format!("subscriber of {}: {fault}", watch.view));
            // What it has seen is worth nothing now.
            *watch.seen.lock().expect("no panic") = Seen::default();
        }
    }
}

/// Follows a view over one connection until that is lost.
fn follow(watch: &Watch, port: u16) -> Result<(), String> {
    let after = watch.seen.lock().expect("no panic").epoch;
    let Some(mut events) = open(watch.view, after, port)? else { return Ok(()) };
    while let Some(events) = events.next_epoch() {
        take(watch, &events)?;
    }
    Ok(())
}

/// A view's rows as of now, as subscribers are told.
pub fn snapshot(view: &'static str, port: u16) -> Result<Seen, String> {
    let watch = Watch { view, only_grows: false, recorded: false, seen: Mutex::default() };
    let mut events = open(view, None, port)?.ok_or("no connection")?;
    take(&watch, &events.next_epoch().ok_or("the snapshot breaks off")?)?;
    watch.seen.into_inner().map_err(|e| e.to_string())
}

/// Subscribes. `None`: the server is gone.
fn open(view: &str, after: Option<u64>, port: u16) -> Result<Option<Events>, String> {
    let Ok(stream) = request(view, after, port) else { return Ok(None) };
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(status)) = lines.next() else { return Ok(None) };
    if !status.contains(" 200 ") {
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        return Err(format!("after epoch {after:?}: {status} {}", rest.join(" ")));
    }
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    Ok(Some(Events { lines }))
}

fn request(view: &str, after: Option<u64>, port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let after = after.map_or(String::new(), |epoch| format!("Last-Event-ID: {epoch}\r\n"));
    // The older protocol ends an answer with the connection, without chunks.
    write!(stream, "GET /v1/subscribe/{view} HTTP/1.0\r\nHost: x\r\n{after}\r\n")?;
    Ok(stream)
}

/// Takes the events of one epoch.
fn take(watch: &Watch, events: &[Event]) -> Result<(), String> {
    let mut seen = watch.seen.lock().expect("no panic");
    let Some(last) = events.last().and_then(|event| event.id) else {
        let last: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
        return Err(format!("after epoch {:?} it ended: {}", seen.epoch, last.join(" ")));
    };
    let id = Some(last);
    if id <= seen.epoch && !(seen.epoch == id && events[0].kind == "progress") {
        return Err(format!("after epoch {:?} came {id:?}", seen.epoch));
    }
    seen.epoch = id;
    for event in events.iter().filter(|event| event.kind != "progress") {
        let data: serde_json::Value = serde_json::from_str(&event.data).map_err(|e| format!("{e}: {}", event.data))?;
        if event.kind == "snapshot" && seen.events > 0 {
            return Err("a snapshot came again".to_owned());
        }
        if data["epoch"].as_u64() != id {
            return Err(format!("epoch {id:?} brought {}", data["epoch"]));
        }
        add(&mut seen.rows, &data, watch.only_grows)?;
        if watch.recorded {
            add(seen.changes.entry(last).or_default(), &data, false)?;
        }
    }
    seen.events += 1;
    if let Some((row, count)) = seen.rows.iter().find(|(_, count)| **count < 0) {
        return Err(format!("in epoch {id:?} {row} is there {count} times"));
    }
    if watch.view == "total" && seen.rows.keys().ne([r#"{"total":0}"#]) && seen.rows.keys().ne([r#"{"total":"0"}"#]) {
        return Err(format!("in epoch {id:?} the total is {:?}", seen.rows));
    }
    Ok(())
}

/// Adds the rows of an event.
fn add(rows: &mut Counts, data: &serde_json::Value, only_grows: bool) -> Result<(), String> {
    let (Some(changed), Some(diffs)) = (data["rows"].as_array(), data["diffs"].as_array()) else {
        return Err(format!("no rows: {data}"));
    };
    for (row, diff) in changed.iter().zip(diffs) {
        let diff = diff.as_i64().ok_or("a diff is no number")?;
        let (row, count) = (row.to_string(), rows.get(&row.to_string()).copied().unwrap_or(0) + diff);
        if only_grows && (diff != 1 || count != 1) {
            return Err(format!("{row} came {diff} times and is there {count} times"));
        }
        if count == 0 {
            rows.remove(&row)
        } else {
            rows.insert(row, count)
        };
    }
    Ok(())
}
