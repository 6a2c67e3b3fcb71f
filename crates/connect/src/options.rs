//! What `WITH (...)` says, checked: an option that nobody asks for is a mistake worth telling.

use std::time::Duration;

use arrow::datatypes::Schema;

use crate::source::SourceError;

/// A day in nanoseconds.
const DAY_NANOS: i64 = 86_400_000_000_000;

/// The options of one source or sink.
pub(crate) struct Options<'a> {
    all: &'a [(String, String)],
    asked: Vec<&'static str>,
}

impl<'a> Options<'a> {
    pub(crate) fn new(all: &'a [(String, String)]) -> Self {
        Options { all, asked: vec!["connector"] }
    }

    /// The value of an option; where it is given twice, the last.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<&'a str> {
        self.asked.push(name);
        self.all.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// An option without which there is no going on.
    pub(crate) fn required(&mut self, name: &'static str) -> Result<&'a str, SourceError> {
        self.get(name).ok_or_else(|| SourceError(format!("option \"{name}\" is missing")))
    }

    /// An option that is true or false.
    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, SourceError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => crate::parse::boolean(value.as_bytes())
                .ok_or_else(|| SourceError(format!("option \"{name}\" is true or false, not \"{value}\""))),
        }
    }

    /// An option that is one ASCII character; `\t` and `tab` stand for the tab.
    pub(crate) fn character(&mut self, name: &'static str, default: u8) -> Result<u8, SourceError> {
        match self.get(name) {
            None => Ok(default),
            Some("\\t" | "tab") => Ok(b'\t'),
            Some(value) => match value.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
                _ => Err(SourceError(format!("option \"{name}\" is one character, not \"{value}\""))),
            },
        }
    }

    /// An option that is a length of time, as PostgreSQL writes intervals; months have none.
    pub(crate) fn duration(&mut self, name: &'static str, default: Duration) -> Result<Duration, SourceError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let nanos = crate::parse::interval(text.as_bytes())
            .filter(|i| i.months == 0)
            .and_then(|i| u64::try_from(i64::from(i.days).checked_mul(DAY_NANOS)?.checked_add(i.nanoseconds)?).ok());
        nanos
            .map(Duration::from_nanos)
            .ok_or_else(|| SourceError(format!("option \"{name}\" is a time as in '5 seconds', not \"{text}\"")))
    }

    /// An option that is a whole number within bounds.
    pub(crate) fn number(
        &mut self,
        name: &'static str,
        default: usize,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, SourceError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.trim().parse().ok().filter(|n| bounds.contains(n)).ok_or_else(|| {
            let (least, most) = bounds.into_inner();
            SourceError(format!("option \"{name}\" is a whole number from {least} to {most}, not \"{text}\""))
        })
    }

    /// An option that lists columns, as their numbers.
    pub(crate) fn columns(&mut self, name: &'static str, schema: &Schema) -> Result<Vec<usize>, SourceError> {
        let Some(text) = self.get(name) else { return Ok(Vec::new()) };
        let mut columns = Vec::new();
        for column in text.split(',').map(str::trim) {
            let place = schema.index_of(column).map_err(|_| {
                SourceError(format!(
                    "option \"{name}\" names columns separated by commas; there is no column \"{column}\""
                ))
            })?;
            if columns.contains(&place) {
                return Err(SourceError(format!("option \"{name}\" names column \"{column}\" twice")));
            }
            columns.push(place);
        }
        Ok(columns)
    }

    /// Refuses options that nobody has asked for.
    pub(crate) fn finish(self) -> Result<(), SourceError> {
        let unknown = |key: &str| !self.asked.iter().any(|a| key.eq_ignore_ascii_case(a));
        match self.all.iter().find(|(key, _)| unknown(key)) {
            None => Ok(()),
            Some((key, _)) => {
                let known = self.asked.join(", ");
                Err(SourceError(format!("there is no option \"{key}\" here; there are: {known}")))
            }
        }
    }
}
