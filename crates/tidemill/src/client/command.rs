//! The commands that begin with a backslash.

/// What a command asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Send these statements.
    Send(Vec<String>),
    /// Turn the time that statements take on or off.
    Timing,
    /// Print the commands.
    Help,
    /// Leave.
    Quit,
    /// There is no such command.
    Unknown(String),
}

/// What the commands do.
pub const HELP: &str = "\
  \\d           tables, sources, views and sinks
  \\d NAME      the columns of one
  \\dt \\ds \\dm  tables, sources, views
  \\di          sinks
  \\timing      tell how long statements take, or stop telling
  \\q           leave (or ctrl-d)

  SUBSCRIBE TO v;   follows a view's changes until ctrl-c";

impl Command {
    /// The command on a line, if it is one.
    pub fn parse(line: &str) -> Option<Command> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let show = |what: &[&str]| Command::Send(what.iter().map(|what| format!("SHOW {what}")).collect());
        Some(match (word.strip_prefix('\\')?, rest.trim()) {
            ("q", _) => Command::Quit,
            ("?" | "h", _) => Command::Help,
            ("timing", _) => Command::Timing,
            ("d", "") => show(&["TABLES", "SOURCES", "VIEWS", "SINKS"]),
            ("d", name) => Command::Send(vec![format!("SHOW COLUMNS FROM {name}")]),
            ("dt", _) => show(&["TABLES"]),
            ("ds", _) => show(&["SOURCES"]),
            ("dm" | "dv", _) => show(&["VIEWS"]),
            ("di", _) => show(&["SINKS"]),
            (other, _) => Command::Unknown(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let send = |sql: &str| Some(Command::Send(vec![sql.to_string()]));
        assert_eq!(Command::parse("\\dt"), send("SHOW TABLES"));
        assert_eq!(Command::parse(" \\d  orders ;"), send("SHOW COLUMNS FROM orders"));
        assert_eq!(Command::parse("\\q"), Some(Command::Quit));
        assert_eq!(Command::parse("SELECT 1"), None);
        assert_eq!(Command::parse("\\what"), Some(Command::Unknown("what".into())));
    }
}
