//! Where the server is. Errors never repeat what was given: it may hold a password.

use std::time::Duration;

use tokio_postgres::Config;

use crate::options::Options;
use crate::sink::SinkError;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// After how long without a sign of life a connection is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// The server's address, from `url` or from `host`, `port`, `user`, `password`, `dbname`.
pub(super) fn config(options: &mut Options<'_>) -> Result<Config, SinkError> {
    let mut config = match options.get("url") {
        Some(url) => by_url(url)?,
        None => Config::new(),
    };
    let by_url = !config.get_hosts().is_empty();
    let mut given = false;
    if let Some(host) = options.get("host") {
        config.host(host);
        given = true;
    }
    if options.get("port").is_some() {
        let port = options.number("port", 5432, 1..=usize::from(u16::MAX))?;
        config.port(port as u16);
        given = true;
    }
    if let Some(user) = options.get("user") {
        config.user(user);
        given = true;
    }
    if let Some(password) = options.get("password") {
        config.password(password);
    }
    if let Some(dbname) = options.get("dbname") {
        config.dbname(dbname);
        given = true;
    }
    match (by_url, given) {
        (true, true) => {
            let message = "the server is given by option \"url\", or by \"host\", \"port\", \"user\" and \"dbname\"";
            return Err(SinkError::fatal(message));
        }
        (false, _) if config.get_hosts().is_empty() || config.get_user().is_none() => {
            return Err(SinkError::fatal("option \"url\" is missing, or \"host\" and \"user\""));
        }
        _ => {}
    }
    config.application_name("tidemill").connect_timeout(CONNECT).keepalives_idle(SILENCE).tcp_user_timeout(SILENCE);
    Ok(config)
}

fn by_url(url: &str) -> Result<Config, SinkError> {
    let wrong = || SinkError::fatal("option \"url\" is postgres://user:password@host:port/dbname");
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    let config: Config = url.parse().map_err(|_| wrong())?;
    if config.get_hosts().is_empty() { Err(wrong()) } else { Ok(config) }
}
