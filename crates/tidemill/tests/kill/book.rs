//! What a client has done: its rows as it knows them, and what it does next.
//!
//! A client only touches rows of its own, so that it knows exactly what of it has to be there. What it does follows
//! from a seed and from what it has done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::random::Random;

/// A row's table, and a number that the row has there.
pub type Key = (&'static str, i64);

/// How something is done.
#[derive(Clone, Debug)]
pub enum How {
    /// Statements, each sent once the one before is answered.
    Statements(Vec<String>),
    /// Lines of JSON for a table.
    Rows { table: &'static str, body: String },
}

/// Something that is done whole or not at all.
#[derive(Clone, Debug)]
pub struct Op {
    pub how: How,
    /// What the rows are then; `None`: gone.
    pub effect: Vec<(Key, Option<String>)>,
    /// How many records cannot be read.
    pub bad: u64,
    /// The error that it meets.
    pub refused: Option<&'static str>,
}

/// Kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Orders, over HTTP.
    Orders,
    /// Events, over HTTP.
    Events,
    /// Transfers, customers and what is told of them, in transactions.
    Transfers,
    /// Rows without a key and events, in transactions.
    Bag,
    /// Sales with their lines, which come and go together.
    Sales,
}

/// A day of the spring of 1995, by its number.
fn date(number: i64) -> String {
    let (month, day) = (2 + number / 28, 1 + number % 28);
    format!("1995-{month:02}-{day:02}")
}

/// A client's book.
pub struct Book {
    pub client: i64,
    pub kind: Kind,
    pub rows: BTreeMap<Key, String>,
    /// What was asked, but not answered.
    pub in_doubt: Option<Op>,
    pub acknowledged: u64,
    pub bad: u64,
    /// It does nothing any more.
    pub retired: bool,
    random: Random,
    next: i64,
    /// What time it is for events.
    clock: Arc<AtomicI64>,
}

/// Accounts, customers, and keys of rows without a key.
const NAMES: usize = 12;
/// How far events go in time from one statement to the next, in milliseconds.
const STEP: i64 = 120;

impl Book {
    pub fn new(client: i64, kind: Kind, seed: u64, clock: Arc<AtomicI64>) -> Book {
        let random = Random::new(seed ^ (client as u64) << 32);
        Book {
            client,
            kind,
            rows: BTreeMap::new(),
            in_doubt: None,
            acknowledged: 0,
            bad: 0,
            retired: false,
            random,
            next: 0,
            clock,
        }
    }

    /// Notes that something was done.
    pub fn enter(&mut self, op: Op) {
        self.bad += op.bad;
        for (key, row) in op.effect {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }

    /// The rows of a table, how many of each; `with`: as if that had been done.
    pub fn expected(&self, table: &str, with: Option<&Op>) -> BTreeMap<String, i64> {
        let mut rows: BTreeMap<Key, &String> =
            self.rows.iter().filter(|(key, _)| key.0 == table).map(|(key, row)| (*key, row)).collect();
        for (key, row) in with.iter().flat_map(|op| &op.effect).filter(|(key, _)| key.0 == table) {
            match row {
                Some(row) => rows.insert(*key, row),
                None => rows.remove(key),
            };
        }
        let mut counts = BTreeMap::new();
        rows.into_values().for_each(|row| *counts.entry(row.clone()).or_default() += 1);
        counts
    }

    fn below(&mut self, end: usize) -> i64 {
        self.random.below(end) as i64
    }

    /// How long it waits before it goes on, in microseconds.
    pub fn pause(&mut self) -> u64 {
        self.random.below(8_000) as u64
    }

    /// A new number for a row.
    fn number(&mut self) -> i64 {
        self.next += 1;
        self.client * 10_000_000 + self.next
    }

    /// What it does next.
    pub fn next(&mut self) -> Op {
        let op = self.below(1 << 30);
        match self.kind {
            Kind::Orders => self.orders(),
            Kind::Events => self.events(),
            Kind::Transfers => self.transfers(op),
            Kind::Bag => self.bag(),
            Kind::Sales => self.sales(),
        }
    }

    fn orders(&mut self) -> Op {
        let (w, mut effect, mut body, mut bad) = (self.client, BTreeMap::new(), String::new(), 0);
        for _ in 0..1 + self.below(40) {
            if self.below(60) == 0 {
                body.push_str("{\"id\": \"none\", \"w\": [\n");
                bad += 1;
                continue;
            }
            let id = w * 10_000 + self.below(400);
            let (customer, item, quantity) = (self.below(NAMES), self.below(9), self.below(12));
            let (price, divisor) = (self.below(5_000), self.below(15));
            let (whole, cents) = (price / 100, price % 100);
            let (text, json) = match item {
                0 => ("NULL".to_owned(), "null".to_owned()),
                item => (format!("item {item}"), format!("\"item {item}\"")),
            };
            body.push_str(&format!(
                "{{\"w\": {w}, \"id\": {id}, \"customer\": {customer}, \"item\": {json}, \"quantity\": {quantity}, \
                 \"price\": {whole}.{cents:02}, \"divisor\": {divisor}}}\n"
            ));
            let row = format!("{w}|{id}|{customer}|{text}|{quantity}|{whole}.{cents:02}|{divisor}");
            effect.insert(("orders", id), Some(row));
        }
        Op { how: How::Rows { table: "orders", body }, effect: effect.into_iter().collect(), bad, refused: None }
    }

    /// Rows of events: their values as in the table, when they were, and their effect.
    fn some_events(&mut self, table: &'static str, rows: i64) -> Vec<(String, String, (Key, Option<String>))> {
        let (w, n) = (self.client, self.number());
        let now = self.clock.fetch_add(STEP, Ordering::Relaxed);
        let event = |i: i64, book: &mut Book| {
            // Now and then one is far too late.
            let back = if book.below(25) == 0 { 5_000 } else { 400 };
            let ms = (now + book.below(STEP as usize) - book.below(back)).max(0);
            let (kind, value) = (book.below(4), book.below(50));
            let values = format!("{w}|{n}|{i}|{ms}|k{kind}|{value}");
            let at = format!(
                "2024-01-{:02} {:02}:{:02}:{:02}.{:03}",
                1 + ms / 86_400_000,
                ms / 3_600_000 % 24,
                ms / 60_000 % 60,
                ms / 1000 % 60,
                ms % 1000
            );
            (values.clone(), at, ((table, n * 100 + i), Some(values)))
        };
        (0..rows).map(|i| event(i, self)).collect()
    }

    fn events(&mut self) -> Op {
        let rows = 1 + self.below(25);
        let (mut body, mut effect) = (String::new(), Vec::new());
        for (values, at, row) in self.some_events("events", rows) {
            let v: Vec<&str> = values.split('|').collect();
            body.push_str(&format!(
                "{{\"w\": {}, \"n\": {}, \"i\": {}, \"ms\": {}, \"at\": \"{at}\", \"kind\": \"{}\", \"value\": {}}}\n",
                v[0], v[1], v[2], v[3], v[4], v[5]
            ));
            effect.push(row);
        }
        Op { how: How::Rows { table: "events", body }, effect, bad: 0, refused: None }
    }

    /// The keys of a client's rows in a table, some of them.
    fn some_of(&mut self, table: &'static str, most: usize) -> Vec<(i64, String)> {
        let all: Vec<(i64, String)> =
            self.rows.iter().filter(|(key, _)| key.0 == table).map(|(key, row)| (key.1, row.clone())).collect();
        if all.is_empty() {
            return all;
        }
        let from = self.random.below(all.len());
        all.into_iter().skip(from).take(1 + self.random.below(most)).collect()
    }

    fn transfer(&mut self, id: i64) -> (String, (Key, Option<String>)) {
        let w = self.client;
        let (source, target, amount) = (self.below(NAMES), self.below(NAMES), 1 + self.below(1_000));
        let values = format!("({w}, {id}, {source}, {target}, {amount})");
        (values, (("transfers", id), Some(format!("{w}|{id}|{source}|{target}|{amount}"))))
    }

    fn transfers(&mut self, op: i64) -> Op {
        let (w, mut statements, mut effect, mut refused) = (self.client, Vec::new(), Vec::new(), None);
        let many = self.rows.keys().filter(|key| key.0 == "transfers").count() > 600;
        let what = if many { 4 } else { self.below(8) };
        match what {
            0..=2 => {
                let ids: Vec<i64> = (0..1 + self.below(12)).map(|_| self.number()).collect();
                let (values, effects): (Vec<_>, Vec<_>) = ids.into_iter().map(|id| self.transfer(id)).unzip();
                statements.push(format!("INSERT INTO transfers VALUES {}", values.join(", ")));
                effect.extend(effects);
            }
            3 => {
                let changed = self.some_of("transfers", 20);
                let list: Vec<String> = changed.iter().map(|(id, _)| id.to_string()).collect();
                if !list.is_empty() {
                    let list = list.join(", ");
                    statements.push(format!("UPDATE transfers SET amount = amount + 7 WHERE id IN ({list})"));
                }
                effect.extend(changed.into_iter().map(|(id, row)| {
                    let (rest, amount) = row.rsplit_once('|').expect("columns");
                    let amount: i64 = amount.parse().expect("a number");
                    (("transfers", id), Some(format!("{rest}|{}", amount + 7)))
                }));
            }
            4 => {
                let gone = self.some_of("transfers", if many { 300 } else { 15 });
                if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
                    let range = format!("id BETWEEN {} AND {}", first.0, last.0);
                    statements.push(format!("DELETE FROM transfers WHERE w = {w} AND {range}"));
                }
                effect.extend(gone.into_iter().map(|(id, _)| (("transfers", id), None)));
            }
            5 => {
                // Each client has every other one.
                let id = 2 * self.below(NAMES) + w / 2 % 2;
                let (name, region) = (format!("n{}", self.below(100)), format!("r{}", self.below(3)));
                let row = format!("{w}|{id}|{name}|{region}");
                statements.push(match self.rows.contains_key(&("customers", id)) {
                    true => format!("UPDATE customers SET name = '{name}', region = '{region}' WHERE id = {id}"),
                    false => format!("INSERT INTO customers VALUES ({w}, {id}, '{name}', '{region}')"),
                });
                effect.push((("customers", id), Some(row)));
            }
            6 => {
                let gone = self.some_of("audit", 30);
                let list: Vec<String> = gone.iter().map(|(key, _)| key.to_string()).collect();
                if !list.is_empty() {
                    statements.push(format!("DELETE FROM audit WHERE w = {w} AND op IN ({})", list.join(", ")));
                }
                effect.extend(gone.into_iter().map(|(key, _)| (("audit", key), None)));
            }
            // One whose key is taken: none of it goes in.
            _ => {
                if let Some((id, _)) = self.some_of("transfers", 1).pop() {
                    let fresh = self.number();
                    let (one, other) = (self.transfer(fresh).0, self.transfer(id).0);
                    statements.push(format!("INSERT INTO transfers VALUES {one}, {other}"));
                    refused = Some("23505");
                }
            }
        }
        // Deletions of what is told go alone: a transaction changes a table once.
        if what != 6 || statements.is_empty() {
            let key = self.number();
            statements.push(format!("INSERT INTO audit VALUES ({w}, {key}, 'did {what}', {op})"));
            effect.push((("audit", key), Some(format!("{w}|{key}|did {what}|{op}"))));
        }
        self.in_transaction(statements, effect, refused)
    }

    fn bag(&mut self) -> Op {
        let (w, mut statements, mut effect) = (self.client, Vec::new(), Vec::new());
        if self.below(15) == 0 {
            let how = How::Statements(vec![format!("APPLY LATE FROM clicks$late WHERE w = {w}")]);
            return Op { how, effect, bad: 0, refused: None };
        }
        let many = self.rows.keys().filter(|key| key.0 == "bag").count() > 500;
        let k = self.below(NAMES);
        let of_k: Vec<(Key, String)> =
            self.rows.range(("bag", 0)..("bag", i64::MAX)).map(|(k, r)| (*k, r.clone())).collect();
        let of_k = of_k.into_iter().filter(|(_, row)| row.starts_with(&format!("{w}|{k}|")));
        match if many { 5 } else { self.below(6) } {
            0..=3 => {
                let rows: Vec<(i64, i64)> =
                    (0..1 + self.below(15)).map(|_| (self.below(NAMES), self.below(14))).collect();
                let values: Vec<String> = rows.iter().map(|(k, v)| format!("({w}, {k}, {v})")).collect();
                statements.push(format!("INSERT INTO bag VALUES {}", values.join(", ")));
                for (k, v) in rows {
                    effect.push((("bag", self.number()), Some(format!("{w}|{k}|{v}"))));
                }
            }
            4 => {
                statements.push(format!("UPDATE bag SET v = (v + 1) % 14 WHERE w = {w} AND k = {k}"));
                effect.extend(of_k.map(|(key, row)| {
                    let v: i64 = row.rsplit('|').next().and_then(|v| v.parse().ok()).expect("a number");
                    (key, Some(format!("{w}|{k}|{}", (v + 1) % 14)))
                }));
            }
            _ => {
                statements.push(format!("DELETE FROM bag WHERE w = {w} AND k = {k}"));
                effect.extend(of_k.map(|(key, _)| (key, None)));
            }
        }
        if self.below(2) == 0 {
            let rows = 1 + self.below(5);
            let table = if self.below(2) == 0 { "events" } else { "clicks" };
            let rows = self.some_events(table, rows);
            let values: Vec<String> = rows
                .iter()
                .map(|(values, at, _)| {
                    let v: Vec<&str> = values.split('|').collect();
                    format!("({}, {}, {}, {}, '{at}', '{}', {})", v[0], v[1], v[2], v[3], v[4], v[5])
                })
                .collect();
            statements.push(format!("INSERT INTO {table} VALUES {}", values.join(", ")));
            effect.extend(rows.into_iter().map(|(_, _, row)| row));
        }
        self.in_transaction(statements, effect, None)
    }

    fn sales(&mut self) -> Op {
        let (w, mut statements, mut effect) = (self.client, Vec::new(), Vec::new());
        let there = self.rows.keys().filter(|key| key.0 == "sales").count();
        let deletes = there > 150 || (there > 20 && self.below(3) == 0);
        if deletes {
            for (sale, _) in self.some_of("sales", 12) {
                effect.push((("sales", sale), None));
                let of_sale = self.rows.range(("lines", sale * 10)..("lines", sale * 10 + 10));
                effect.extend(of_sale.map(|(key, _)| (*key, None)));
            }
            let list = |table: &str| {
                let ids = effect.iter().filter(|((of, _), _)| *of == table).map(|((_, id), _)| id.to_string());
                ids.collect::<Vec<_>>().join(", ")
            };
            statements.push(format!("DELETE FROM lines WHERE id IN ({})", list("lines")));
            statements.push(format!("DELETE FROM sales WHERE w = {w} AND id IN ({})", list("sales")));
        } else {
            let (mut sales, mut lines) = (Vec::new(), Vec::new());
            for _ in 0..1 + self.below(6) {
                let (sale, mut total) = (self.number(), 0);
                let day = self.below(60);
                for number in 0..1 + self.below(7) {
                    let (quantity, price) = (1 + self.below(50), 100 + self.below(90_000));
                    total += price;
                    let (id, discount) = (sale * 10 + number, self.below(11));
                    let shipped = date(day + 1 + self.below(40));
                    let price = format!("{}.{:02}", price / 100, price % 100);
                    lines.push(format!("({w}, {id}, {sale}, {quantity}, {price}, 0.{discount:02}, '{shipped}')"));
                    let row = format!("{w}|{id}|{sale}|{quantity}|{price}|0.{discount:02}|{shipped}");
                    effect.push((("lines", id), Some(row)));
                }
                let (customer, day, total) =
                    (self.below(NAMES), date(day), format!("{}.{:02}", total / 100, total % 100));
                sales.push(format!("({w}, {sale}, {customer}, '{day}', {total})"));
                effect.push((("sales", sale), Some(format!("{w}|{sale}|{customer}|{day}|{total}"))));
            }
            statements.push(format!("INSERT INTO sales VALUES {}", sales.join(", ")));
            statements.push(format!("INSERT INTO lines VALUES {}", lines.join(", ")));
        }
        self.in_transaction(statements, effect, None)
    }

    fn in_transaction(
        &mut self,
        mut statements: Vec<String>,
        effect: Vec<(Key, Option<String>)>,
        refused: Option<&'static str>,
    ) -> Op {
        if statements.len() > 1 || self.below(4) == 0 {
            statements.insert(0, "BEGIN".into());
            statements.push("COMMIT".into());
            if self.below(2) == 0 {
                statements = vec![statements.join("; ")];
            }
        }
        let effect = if refused.is_some() { Vec::new() } else { effect };
        Op { how: How::Statements(statements), effect, bad: 0, refused }
    }
}
