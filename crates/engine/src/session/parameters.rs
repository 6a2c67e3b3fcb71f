//! Run-time parameters: clients set and ask for them; none changes an answer.

use std::collections::BTreeMap;

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

/// A session's parameters.
#[derive(Default)]
pub(super) struct Parameters {
    set: BTreeMap<String, String>,
}

impl Parameters {
    /// Sets a parameter; `None` brings the default back.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) {
        let name = name.to_ascii_lowercase();
        match value {
            Some(value) => self.set.insert(name, value.to_owned()),
            None => self.set.remove(&name),
        };
    }

    pub(super) fn reset(&mut self, name: Option<&str>) {
        match name {
            Some(name) => self.set(name, None),
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
