//! The `WITH` options that say which of a table's rows go by themselves.

use bytesize::ByteSize;
use tidemill_delta::Micros;

use super::options::Given;
use super::session::milliseconds;
use crate::{SqlError, state};

/// A century; longer is a mistake.
const LONGEST_DAYS: f64 = 36_525.0;
const DAY: f64 = 86_400e6;

/// `retention`, `retention_rows`, `retention_size` and `retention_column`.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionOptions {
    /// The column that tells how old a row is.
    pub column: String,
    /// Where the column's name stands in the text.
    pub position: usize,
    /// How old a row may become, in microseconds.
    pub age: Option<Micros>,
    /// How many rows may stay.
    pub rows: Option<u64>,
    /// How many bytes the values of the rows that stay may take.
    pub bytes: Option<u64>,
}

/// Takes what is about retention out of a definition's options.
pub(super) fn take_retention(
    options: &mut Vec<Given>,
    source: bool,
    watermark: bool,
) -> Result<Option<RetentionOptions>, SqlError> {
    let mut take = |key: &str| {
        let at = options.iter().position(|option| option.key == key)?;
        Some(options.remove(at))
    };
    let (age, rows, size) = (take("retention"), take("retention_rows"), take("retention_size"));
    let column = take("retention_column");
    let limits = || [&age, &rows, &size].into_iter().flatten();
    let Some(first) = limits().chain(&column).next() else { return Ok(None) };
    if source {
        return Err(refused(first, "the rows of a source are not kept, so none can go"));
    }
    if watermark {
        return Err(refused(
            first,
            "a table with a WATERMARK only grows: its views have forgotten what would have to be taken back",
        )
        .hint("Leave out WATERMARK FOR, or retention."));
    }
    let Some(column) = &column else {
        return Err(refused(first, "retention needs a column that tells how old a row is")
            .hint("Add retention_column = '...', a timestamp or date that is NOT NULL."));
    };
    if limits().next().is_none() {
        let message = "retention_column is of use only beside retention, retention_rows or retention_size";
        return Err(refused(column, message));
    }
    let age = age.as_ref().map(duration).transpose()?;
    let rows = rows.as_ref().map(count).transpose()?;
    let bytes = size.as_ref().map(size_of).transpose()?;
    Ok(Some(RetentionOptions { position: column.position, column: column.value.clone(), age, rows, bytes }))
}

fn duration(option: &Given) -> Result<Micros, SqlError> {
    let text = option.value.trim().to_lowercase();
    let (number, unit) = text.split_at(text.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(text.len()));
    let days = match unit.trim() {
        "d" | "day" | "days" => 1.0,
        "w" | "week" | "weeks" => 7.0,
        "y" | "year" | "years" => 365.25,
        _ => 0.0,
    };
    let micros = if days > 0.0 {
        let days = number.parse::<f64>().ok().map(|number| number * days).filter(|days| *days <= LONGEST_DAYS);
        days.map(|days| (days * DAY).round() as Micros)
    } else {
        milliseconds(&text).and_then(|millis| Micros::try_from(millis).ok()).map(|millis| millis * 1_000)
    };
    micros.filter(|micros| *micros > 0).ok_or_else(|| {
        let message = format!("\"{}\" is no duration for retention", option.value);
        refused(option, &message).hint("Write '7 days', '12 hours' or '90 seconds'.")
    })
}

fn count(option: &Given) -> Result<u64, SqlError> {
    option.value.trim().parse().ok().filter(|rows| *rows > 0).ok_or_else(|| {
        refused(option, &format!("\"{}\" is no number of rows", option.value)).hint("Write a number from 1 on.")
    })
}

fn size_of(option: &Given) -> Result<u64, SqlError> {
    let size = option.value.trim().parse::<ByteSize>().map_or(0, |size| size.as_u64());
    if size > 0 {
        return Ok(size);
    }
    Err(refused(option, &format!("\"{}\" is no size", option.value))
        .hint("Write '500 MB', '10 GiB' or a number of bytes."))
}

fn refused(option: &Given, message: &str) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(option.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StatementKind, parse};

    #[test]
    fn options_about_retention() {
        let created = |rest: &str| match parse(&format!("CREATE TABLE t (ts timestamp NOT NULL) WITH ({rest})")) {
            Ok(mut all) => match all.remove(0).kind {
                StatementKind::CreateRelation(create) => create.retention.map(|r| (r.column, r.age, r.rows, r.bytes)),
                other => panic!("{other:?}"),
            },
            Err(error) => panic!("{rest}: {error}"),
        };
        let ts = || "ts".to_owned();
        for (text, age) in [
            ("7 days", 7 * 86_400_000_000),
            ("2 weeks", 14 * 86_400_000_000),
            ("2 years", 730 * 86_400_000_000 + 43_200_000_000),
            ("1.5h", 5_400_000_000),
            ("90 seconds", 90_000_000),
        ] {
            let all = format!("retention_column = 'ts', retention = '{text}'");
            assert_eq!(created(&all), Some((ts(), Some(age), None, None)), "{text}");
        }
        assert_eq!(created("retention_rows = 1000, retention_column = ts"), Some((ts(), None, Some(1000), None)));
        for (text, bytes) in [("10 GiB", 10 << 30), ("500MB", 500_000_000), ("4096", 4096)] {
            let all = format!("retention_size = '{text}', retention_column = ts");
            assert_eq!(created(&all), Some((ts(), None, None, Some(bytes))), "{text}");
        }
        for (sql, message, at) in [
            ("TABLE t (ts timestamp) WITH (retention = '1 day')", "needs a column", "'1 day')"),
            ("TABLE t (ts timestamp) WITH (retention_column = ts)", "only beside retention", "ts)"),
            ("TABLE t (ts date) WITH (retention_column = ts, retention = 'long')", "no duration", "'long')"),
            ("TABLE t (ts date) WITH (retention_column = ts, retention = '0 days')", "no duration", "'0 days')"),
            (
                "TABLE t (ts date) WITH (retention_column = ts, retention = '1000 years')",
                "no duration",
                "'1000 years')",
            ),
            ("TABLE t (ts date) WITH (retention_column = ts, retention_rows = 0)", "no number of rows", "0)"),
            ("TABLE t (ts date) WITH (retention_column = ts, retention_size = 'large')", "no size", "'large')"),
            ("TABLE t (ts date) WITH (retention_column = ts, retention_size = '0 GB')", "no size", "'0 GB')"),
            ("TABLE t (ts timestamp, WATERMARK FOR ts AS ts) WITH (retention = '1 day')", "only grows", "'1 day')"),
            ("SOURCE t (ts timestamp) WITH (retention = '1 day')", "are not kept", "'1 day')"),
        ] {
            let sql = format!("CREATE {sql}");
            let error = parse(&sql).expect_err(&sql);
            assert!(error.message.contains(message), "{sql}: {error}");
            let place = error.position.map(|at| &sql[at - 1..]);
            assert_eq!((error.code, place), (state::INVALID_PARAMETER_VALUE, Some(at)), "{sql}");
        }
    }
}
