//! Statements about the session: parameters, transactions, cursors, subscriptions, `SHOW`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use super::{ShowWhat, StatementKind, SubscribeTo};
use crate::{SqlError, state};

/// `SUBSCRIBE [TO] v [AS OF n] [WITH SNAPSHOT | WITHOUT SNAPSHOT]`.
pub(super) fn subscribe(reader: &mut Reader<'_>) -> Result<SubscribeTo, SqlError> {
    reader.expect("SUBSCRIBE")?;
    reader.eat("TO");
    let name = reader.name("a view's name")?;
    let mut as_of = None;
    let mut snapshot = None;
    loop {
        if as_of.is_none() && reader.eat("AS OF") {
            reader.eat("EPOCH");
            as_of = Some(reader.unsigned("an epoch's number")?);
        } else if snapshot.is_none() && reader.eat("WITH SNAPSHOT") {
            snapshot = Some(true);
        } else if snapshot.is_none() && reader.eat("WITHOUT SNAPSHOT") {
            snapshot = Some(false);
        } else {
            return Ok(SubscribeTo { name, as_of, snapshot: snapshot.unwrap_or(as_of.is_none()) });
        }
    }
}

/// `VERIFY [MATERIALIZED VIEW | VIEW] v`.
pub(super) fn verify(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("VERIFY")?;
    let _ = reader.eat("MATERIALIZED VIEW") || reader.eat("VIEW");
    let name = reader.name("a view's name")?;
    reader.expect_end()?;
    Ok(StatementKind::Verify(name))
}

/// `SHOW ...`.
pub(super) fn show(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("SHOW")?;
    let what = if reader.eat("SOURCES") {
        ShowWhat::Sources
    } else if reader.eat("TABLES") {
        ShowWhat::Tables
    } else if reader.eat("VIEWS") || reader.eat("MATERIALIZED VIEWS") {
        ShowWhat::Views
    } else if reader.eat("SINKS") {
        ShowWhat::Sinks
    } else if reader.eat("EPOCHS") {
        ShowWhat::Epochs
    } else if reader.eat("CHECKPOINTS") {
        ShowWhat::Checkpoints
    } else if reader.eat("ALL") {
        ShowWhat::All
    } else if reader.eat("CREATE") {
        ["TABLE", "SOURCE", "MATERIALIZED VIEW", "VIEW", "SINK"].into_iter().any(|kind| reader.eat(kind));
        ShowWhat::Create(reader.name("a name")?)
    } else if reader.eat("COLUMNS") {
        if !reader.eat("FROM") {
            reader.expect("IN")?;
        }
        ShowWhat::Columns(reader.name("a table's name")?)
    } else if reader.eat("TIME ZONE") {
        ShowWhat::Parameter("timezone".to_owned())
    } else if reader.eat("TRANSACTION ISOLATION LEVEL") {
        ShowWhat::Parameter("transaction_isolation".to_owned())
    } else {
        ShowWhat::Parameter(parameter(reader)?)
    };
    reader.expect_end()?;
    Ok(StatementKind::Show(what))
}

/// `DESCRIBE t`, `DESC t`.
pub(super) fn describe(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.parser.advance_token();
    let name = reader.name("a table's name")?;
    reader.expect_end()?;
    Ok(StatementKind::Show(ShowWhat::Columns(name)))
}

fn parameter(reader: &mut Reader<'_>) -> Result<String, SqlError> {
    let mut name = reader.identifier("a parameter's name")?;
    while reader.eat_token(&Token::Period) {
        name.push('.');
        name.push_str(&reader.identifier("a parameter's name")?);
    }
    Ok(name.to_lowercase())
}

/// `SET ...`.
pub(super) fn set(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("SET")?;
    if reader.at("TRANSACTION") || reader.eat("SESSION CHARACTERISTICS AS") {
        reader.expect("TRANSACTION")?;
        return transaction_modes(reader);
    }
    let _ = reader.eat("SESSION") || reader.eat("LOCAL");
    let name = if reader.eat("TIME ZONE") {
        "timezone".to_owned()
    } else if reader.eat("NAMES") {
        "client_encoding".to_owned()
    } else {
        let name = parameter(reader)?;
        if !reader.eat_token(&Token::Eq) && !reader.eat("TO") {
            return Err(reader.expected("TO or \"=\""));
        }
        name
    };
    let value = set_value(reader)?;
    reader.expect_end()?;
    Ok(StatementKind::Set { name, value })
}

/// `SET TRANSACTION ...`: there is one isolation level, which is stronger than all that can be asked for.
fn transaction_modes(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let words = rest_as_words(reader)?;
    Ok(StatementKind::Set { name: "transaction_modes".to_owned(), value: Some(words) })
}

fn rest_as_words(reader: &mut Reader<'_>) -> Result<String, SqlError> {
    let mut words = Vec::new();
    while !reader.at_end() {
        if !reader.eat_token(&Token::Comma) {
            words.push(reader.value("a transaction mode")?.to_lowercase());
        }
    }
    Ok(words.join(" "))
}

/// One value, or several separated by commas.
fn set_value(reader: &mut Reader<'_>) -> Result<Option<String>, SqlError> {
    if reader.eat("DEFAULT") {
        return Ok(None);
    }
    if reader.eat("INTERVAL") {
        // `SET TIME ZONE INTERVAL '+01:00' HOUR TO MINUTE`
        let value = reader.string("an interval in quotes")?;
        reader.eat("HOUR TO MINUTE");
        return Ok(Some(value));
    }
    let values = reader.separated(|reader| reader.value("a value"))?;
    Ok(Some(values.join(", ")))
}

/// `RESET name`, `RESET ALL`.
pub(super) fn reset(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("RESET")?;
    let name = if reader.eat("ALL") {
        None
    } else if reader.eat("TIME ZONE") {
        Some("timezone".to_owned())
    } else {
        Some(parameter(reader)?)
    };
    reader.expect_end()?;
    Ok(StatementKind::Reset(name))
}

/// `BEGIN`, `START TRANSACTION`, `COMMIT`, `END`, `ROLLBACK`, `ABORT`.
pub(super) fn transaction(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let word = reader.peek_keyword().unwrap_or_default();
    reader.parser.advance_token();
    let kind = match word.as_str() {
        "START" => {
            reader.expect("TRANSACTION")?;
            StatementKind::Begin
        }
        "BEGIN" => StatementKind::Begin,
        "COMMIT" | "END" => StatementKind::Commit,
        _ => StatementKind::Rollback,
    };
    let _ = reader.eat("WORK") || reader.eat("TRANSACTION");
    if reader.at("TO") || reader.at("PREPARED") {
        return Err(reader.not_supported(&format!("{word} {}", reader.peek_keyword().unwrap_or_default())));
    }
    if matches!(kind, StatementKind::Begin) {
        rest_as_words(reader)?;
    } else if reader.at("AND CHAIN") {
        return Err(reader.not_supported("AND CHAIN"));
    } else {
        reader.eat("AND NO CHAIN");
    }
    reader.expect_end()?;
    Ok(kind)
}

/// `DECLARE name CURSOR FOR statement`.
pub(super) fn declare(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("DECLARE")?;
    let name = reader.identifier("a cursor's name")?;
    if reader.at("BINARY") || reader.at("SCROLL") {
        return Err(reader.not_supported(&format!("a {} cursor", reader.peek_keyword().unwrap_or_default())));
    }
    while reader.eat("INSENSITIVE") || reader.eat("ASENSITIVE") || reader.eat("NO SCROLL") {}
    reader.expect("CURSOR")?;
    let _ = reader.eat("WITH HOLD") || reader.eat("WITHOUT HOLD");
    reader.expect("FOR")?;
    let what = if reader.at("SUBSCRIBE") {
        StatementKind::Subscribe(subscribe(reader)?)
    } else {
        StatementKind::Query(reader.query()?)
    };
    reader.expect_end()?;
    Ok(StatementKind::Declare { name, what: Box::new(what) })
}

/// `FETCH [NEXT | FORWARD] [n | ALL] [FROM | IN] name [WITH (timeout = '1s')]`.
pub(super) fn fetch(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("FETCH")?;
    for word in ["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"] {
        if reader.at(&format!("{word} FROM")) || reader.at(&format!("{word} IN")) {
            return Err(reader.not_supported(&format!("FETCH {word}")));
        }
    }
    let count = fetch_count(reader)?;
    let _ = reader.eat("FROM") || reader.eat("IN");
    let name = reader.identifier("a cursor's name")?;
    let timeout_ms = if reader.at("WITH") { timeout(reader)? } else { None };
    reader.expect_end()?;
    Ok(StatementKind::Fetch { name, count, timeout_ms })
}

fn fetch_count(reader: &mut Reader<'_>) -> Result<Option<usize>, SqlError> {
    if reader.eat("NEXT") {
        return Ok(Some(1));
    }
    reader.eat("FORWARD");
    if reader.eat("ALL") {
        return Ok(None);
    }
    if matches!(reader.parser.peek_token_ref().token, Token::Number(..)) {
        let count = reader.unsigned("a number of rows")?;
        return Ok(Some(usize::try_from(count).unwrap_or(usize::MAX)));
    }
    if reader.at_token(&Token::Minus) {
        return Err(reader.not_supported("fetching backwards"));
    }
    Ok(Some(1))
}

fn timeout(reader: &mut Reader<'_>) -> Result<Option<u64>, SqlError> {
    let position = reader.position();
    let mut found = None;
    for (key, value) in super::options::with_options(reader)? {
        if key != "timeout" {
            let message = format!("FETCH has no option \"{key}\", only timeout");
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(position));
        }
        let millis = milliseconds(&value).ok_or_else(|| {
            let message = format!("\"{value}\" is no duration; write '500ms', '1s' or '2min'");
            SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(position)
        })?;
        found = Some(millis);
    }
    Ok(found)
}

/// `500ms`, `1s`, `1.5 seconds`, `2min`; a bare number is seconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let digits = text.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "" | "s" | "sec" | "second" | "seconds" => 1_000.0,
        "m" | "min" | "minute" | "minutes" => 60_000.0,
        "h" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return None,
    };
    let millis = number * unit;
    // Beyond a year it is a mistake; also keeps the conversion exact.
    (millis <= 3.2e10).then_some(millis.round() as u64)
}

/// `CLOSE name`, `CLOSE ALL`.
pub(super) fn close(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("CLOSE")?;
    let name = if reader.eat("ALL") { None } else { Some(reader.identifier("a cursor's name")?) };
    reader.expect_end()?;
    Ok(StatementKind::Close(name))
}

/// `DEALLOCATE [PREPARE] name | ALL`, `DISCARD ALL | PLANS | SEQUENCES | TEMP`.
pub(super) fn discard(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let deallocate = reader.eat("DEALLOCATE");
    if deallocate {
        reader.eat("PREPARE");
        reader.identifier("a statement's name or ALL")?;
    } else {
        reader.expect("DISCARD")?;
        if !["ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"].into_iter().any(|what| reader.eat(what)) {
            return Err(reader.expected("ALL, PLANS, SEQUENCES or TEMP"));
        }
    }
    reader.expect_end()?;
    Ok(StatementKind::Discard)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn durations() {
        let read = ["1s", "500 ms", "2min", "3", "1.5 seconds", "1h", "2 days"].map(milliseconds);
        assert_eq!(read, [1_000, 500, 120_000, 3_000, 1_500, 3_600_000, 172_800_000].map(Some));
        assert_eq!(["", "s", "1 month", "-1s", "1e300", "1..2s"].map(milliseconds), [None; 6]);
    }
}
