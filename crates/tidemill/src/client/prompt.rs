//! The prompt: lines become statements, and are remembered.

use std::path::PathBuf;
use std::process::ExitCode;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use super::command::{Command, HELP};
use super::connection::Connection;
use crate::{Failure, script};

/// Reads statements and commands until the user leaves.
pub fn prompt(runtime: &Runtime, mut connection: Connection) -> Result<ExitCode, Failure> {
    let mut editor = DefaultEditor::new()?;
    let history = history();
    if let Some(path) = &history {
        // The first session has none yet.
        let _ = editor.load_history(path);
    }
    eprintln!("Tidemill {}: end statements with `;`, \\? for help", env!("CARGO_PKG_VERSION"));
    let mut pending = String::new();
    loop {
        let line = match editor.readline(if pending.is_empty() { "tidemill=> " } else { "tidemill-> " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if pending.is_empty()
            && let Some(command) = Command::parse(&line)
        {
            editor.add_history_entry(line.trim())?;
            if !obey(runtime, &mut connection, command)? {
                break;
            }
            continue;
        }
        if !pending.is_empty() {
            pending.push('\n');
        }
        pending.push_str(&line);
        if !script::unfinished(&pending) {
            let text = std::mem::take(&mut pending);
            send(runtime, &mut connection, &text)?;
            if !text.trim().is_empty() {
                editor.add_history_entry(text.trim())?;
            }
        }
    }
    if let Some(path) = &history {
        editor.save_history(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn history() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".tidemill_history"))
}

fn send(runtime: &Runtime, connection: &mut Connection, text: &str) -> Result<(), Failure> {
    for piece in script::pieces(text) {
        if !runtime.block_on(connection.run(piece.text, Some((text, piece.offset))))? {
            break;
        }
    }
    Ok(())
}

/// Returns whether to go on.
fn obey(runtime: &Runtime, connection: &mut Connection, command: Command) -> Result<bool, Failure> {
    match command {
        Command::Quit => return Ok(false),
        Command::Help => eprintln!("{HELP}"),
        Command::Unknown(word) => eprintln!("there is no command \\{word}; \\? lists them"),
        Command::Timing => {
            connection.timing = !connection.timing;
            eprintln!("timing is {}", if connection.timing { "on" } else { "off" });
        }
        Command::Send(statements) => {
            for sql in statements {
                runtime.block_on(connection.run(&sql, None))?;
            }
        }
    }
    Ok(true)
}
