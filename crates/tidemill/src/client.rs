//! `tidemill sql`: a client for the PostgreSQL wire, interactive or not.

mod command;
pub mod connection;
mod prompt;

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use connection::Connection;

use crate::output::Format;
use crate::{Failure, runtime, script};

/// Talk to a server.
#[derive(clap::Args)]
#[command(after_help = "\
At the prompt a statement ends with `;` and may span lines; \\? lists the commands; ctrl-c cancels
what runs, ctrl-d leaves.

Examples:
  tidemill sql
  tidemill sql -c 'SHOW VIEWS'
  tidemill sql --format csv -c 'SELECT * FROM v' > v.csv
  tidemill sql < schema.sql")]
pub struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Statements to run instead of a prompt.
    #[arg(short, long, value_name = "SQL", allow_hyphen_values = true)]
    command: Vec<String>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which server.
#[derive(clap::Args)]
pub struct Server {
    /// The server's name or address.
    #[arg(long, default_value = "127.0.0.1", env = "PGHOST")]
    pub host: String,
    /// The server's port.
    #[arg(long, short, default_value_t = 7432, env = "PGPORT")]
    pub port: u16,
}

/// Talks to a server.
pub fn client(arguments: Arguments) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let (host, port) = (arguments.server.host.as_str(), arguments.server.port);
    let mut connection = runtime.block_on(Connection::open(host, port, arguments.format))?;
    let mut scripts = arguments.command;
    if scripts.is_empty() && std::io::stdin().is_terminal() {
        return prompt::prompt(&runtime, connection);
    }
    if scripts.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        scripts.push(text);
    }
    for text in scripts {
        for piece in script::pieces(&text) {
            if !runtime.block_on(connection.run(piece.text, Some((&text, piece.offset))))? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
