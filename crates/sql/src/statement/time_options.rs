//! The `WITH` options that say how a table or source treats event time.

use tidemill_delta::Micros;

use super::options::Given;
use super::session::milliseconds;
use super::{Limit, TimeOptions};
use crate::{SqlError, state};

/// Takes what is about event time out of a definition's options, and refuses what a table does not have.
pub(super) fn take_time_options(
    options: &mut Vec<Given>,
    source: bool,
    watermark: bool,
) -> Result<TimeOptions, SqlError> {
    let mut time = TimeOptions::default();
    for option in std::mem::take(options) {
        match option.key.as_str() {
            "future_fence" => time.future_fence = limit(&option, watermark)?,
            "idle_timeout" if source => time.idle_timeout = positive(&option, limit(&option, watermark)?)?,
            "idle_timeout" => return Err(refused(&option, "a table has no partitions that could be idle")),
            _ if source => options.push(option),
            "connector" | "format" | "encode" => {
                return Err(refused(&option, "a table does not read from outside").hint("Use CREATE SOURCE."));
            }
            other => {
                let message = format!(
                    "a table has no option \"{other}\"; there are: future_fence, retention, retention_rows, retention_size, retention_column"
                );
                return Err(refused(&option, &message));
            }
        }
    }
    Ok(time)
}

fn limit(option: &Given, watermark: bool) -> Result<Limit, SqlError> {
    if !watermark {
        return Err(refused(option, &format!("{} is of use only beside a WATERMARK", option.key)));
    }
    if option.value.eq_ignore_ascii_case("off") {
        return Ok(Limit::Off);
    }
    let millis = milliseconds(&option.value).and_then(|millis| Micros::try_from(millis).ok()).ok_or_else(|| {
        let message = format!("\"{}\" is no duration for {}", option.value, option.key);
        refused(option, &message).hint("Write '1 hour', '90 seconds', '500ms' or 'off'.")
    })?;
    Ok(Limit::After(millis * 1_000))
}

fn positive(option: &Given, limit: Limit) -> Result<Limit, SqlError> {
    match limit {
        Limit::After(0) => Err(refused(option, &format!("{} must be longer than nothing", option.key))),
        other => Ok(other),
    }
}

fn refused(option: &Given, message: &str) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(option.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateRelation, StatementKind, parse};

    fn created(sql: &str) -> CreateRelation {
        match parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).remove(0).kind {
            StatementKind::CreateRelation(create) => *create,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn options_about_event_time() {
        let columns = "(a int, ts timestamp, WATERMARK FOR ts AS ts)";
        let create = created(&format!("CREATE TABLE t {columns} WITH (future_fence = '90 seconds')"));
        assert_eq!(create.time, TimeOptions { future_fence: Limit::After(90_000_000), idle_timeout: Limit::Usual });
        let sql = format!(
            "CREATE SOURCE s {columns} WITH (connector = 'file', idle_timeout = 'OFF', future_fence = '1 day')"
        );
        let create = created(&sql);
        assert_eq!(create.time, TimeOptions { future_fence: Limit::After(86_400_000_000), idle_timeout: Limit::Off });
        assert_eq!(create.options[..], [("connector".to_owned(), "file".to_owned())]);
        let refused = |rest: &str| {
            let sql = format!("CREATE {rest}");
            let error = parse(&sql).expect_err(&sql);
            let at = error.position.unwrap_or_else(|| panic!("{sql}: {error} has no place"));
            (error.code, error.message, sql[at - 1..].to_owned())
        };
        for (rest, message, at) in [
            (format!("TABLE t {columns} WITH (future_fence = 'soon')"), "no duration for future_fence", "'soon')"),
            (format!("TABLE t {columns} WITH (future_fence = '-1s')"), "no duration", "'-1s')"),
            (format!("TABLE t {columns} WITH (idle_timeout = '1s')"), "a table has no partitions", "'1s')"),
            (format!("SOURCE t {columns} WITH (idle_timeout = '0s')"), "longer than nothing", "'0s')"),
            ("TABLE t (a int) WITH (future_fence = '1s')".to_owned(), "beside a WATERMARK", "'1s')"),
            ("TABLE t (a int) WITH (connector = 'file')".to_owned(), "does not read from outside", "'file')"),
            ("TABLE t (a int) WITH (colour = 'red')".to_owned(), "no option \"colour\"", "'red')"),
        ] {
            let (code, text, place) = refused(&rest);
            assert_eq!((code, place.as_str()), (state::INVALID_PARAMETER_VALUE, at), "{rest}: {text}");
            assert!(text.contains(message), "{rest}: {text}");
        }
    }
}
