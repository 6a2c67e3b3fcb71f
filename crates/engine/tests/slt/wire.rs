//! A database behind the Postgres wire.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::play::{Database, cell, play, report};
use super::script::{self, Record};

/// A client.
pub struct Wire {
    client: Client,
}

impl Wire {
    /// Connects to a port of this machine.
    pub async fn connect(port: u16) -> Result<Wire, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=test"), NoTls).await?;
        tokio::spawn(connection);
        Ok(Wire { client })
    }
}

impl Database for Wire {
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let messages = self.client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
            Some(error) => format!("{}: {}", error.code().code(), error.message()),
            None => error.to_string(),
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| cell(row.get(column))).collect::<Vec<_>>().join(" "))
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Plays all files, one after the other, in one database, which is emptied after each.
pub async fn play_all(port: u16) {
    let scripts = script::all();
    let mut failures = Vec::new();
    for script in &scripts {
        let mut wire = Wire::connect(port).await.expect("a session");
        let mut wrong = play(&mut wire, &script.records, false).await;
        for sql in cleanup(&script.records) {
            if let Err(error) = wire.run(&sql).await {
                wrong.push(format!("{sql}\n  {error}"));
            }
        }
        failures.push((script.name.clone(), wrong));
    }
    report(scripts.len(), failures);
}

/// Statements that take away what a file has made, for the next file.
fn cleanup(records: &[Record]) -> Vec<String> {
    let made = records.iter().filter_map(|record| {
        let text = record.sql.replace('(', " ");
        let words: Vec<&str> = text.split_whitespace().collect();
        let kind = match words.iter().map(|w| w.to_ascii_uppercase()).collect::<Vec<_>>().as_slice() {
            [create, materialized, ..] if create == "CREATE" && materialized == "MATERIALIZED" => "MATERIALIZED VIEW",
            [create, view, ..] if create == "CREATE" && view == "VIEW" => "VIEW",
            [create, table, ..] if create == "CREATE" && table == "TABLE" => "TABLE",
            _ => return None,
        };
        let skip = kind.split(' ').count() + 1;
        let name = words[skip..].iter().find(|w| !["IF", "NOT", "EXISTS"].contains(w))?;
        Some(format!("DROP {kind} IF EXISTS {name} CASCADE"))
    });
    let mut drops: Vec<String> = made.collect();
    drops.reverse();
    drops
}
