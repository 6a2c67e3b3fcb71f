//! Run-time parameters: clients set and ask for them; only `statement_timeout` has an effect.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_sql::{SqlError, state};

/// Name and value of those that have one from the start.
const DEFAULTS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "serializable"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "on"),
    ("lc_collate", "C"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.0"),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
    ("transaction_isolation", "serializable"),
    ("transaction_read_only", "off"),
];

/// Parameters are kept per session, and told to clients in messages that they limit.
const MAX_VALUE: usize = 8192;

/// A session's parameters.
#[derive(Default)]
pub(super) struct Parameters {
    set: BTreeMap<String, String>,
}

impl Parameters {
    /// Sets a parameter; `None` brings the default back.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), SqlError> {
        let name = name.to_ascii_lowercase();
        if let Some(value) = value.filter(|_| name == "statement_timeout")
            && milliseconds(value).is_none()
        {
            let message = format!("invalid value for parameter \"statement_timeout\": \"{value}\"");
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                .hint("Write milliseconds, or a number with a unit: 500ms, 30s, 2min, 1h."));
        }
        if value.is_some_and(|value| value.len() > MAX_VALUE) {
            let message = format!("the value of parameter \"{name}\" is longer than {MAX_VALUE} bytes");
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
        }
        match value {
            Some(value) => self.set.insert(name, value.to_owned()),
            None => self.set.remove(&name),
        };
        Ok(())
    }

    /// How long a statement may read.
    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        let limit = milliseconds(self.set.get("statement_timeout")?)?;
        (limit > 0).then(|| Duration::from_millis(limit))
    }

    pub(super) fn reset(&mut self, name: Option<&str>) {
        match name {
            Some(name) => {
                self.set.remove(&name.to_ascii_lowercase());
            }
            None => self.set.clear(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        // `SHOW TIME ZONE` and `SHOW TRANSACTION ISOLATION LEVEL` are spelt apart.
        let name = name.to_ascii_lowercase();
        let name = match name.as_str() {
            "time zone" => "timezone",
            "transaction isolation level" => "transaction_isolation",
            other => other,
        };
        let default = || DEFAULTS.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        self.set.get(name).cloned().or_else(default)
    }

    /// All, by name.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(self.set.clone());
        all
    }
}

/// A duration as PostgreSQL writes it; without a unit, milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // As much as PostgreSQL takes.
    number.checked_mul(unit).filter(|millis| *millis <= 2_147_483_647)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let mut parameters = Parameters::default();
        assert_eq!(parameters.statement_timeout(), None);
        for (text, millis) in [("250", 250), ("5s", 5000), ("2 min", 120_000)] {
            parameters.set("Statement_Timeout", Some(text)).expect("a duration");
            assert_eq!(parameters.statement_timeout(), Some(Duration::from_millis(millis)));
        }
        assert_eq!(parameters.set("application_name", Some(&"x".repeat(9000))).map_err(|e| e.code), Err("22023"));
        for text in ["soon", "-1", "1 week", "99999999999999999999"] {
            assert_eq!(parameters.set("statement_timeout", Some(text)).map_err(|e| e.code), Err("22023"));
        }
        parameters.set("statement_timeout", Some("0")).expect("no limit");
        assert_eq!(parameters.statement_timeout(), None);
    }
}
