//! Columns from text cells: what CSV, `COPY` and strings in JSON have in common.

use crate::column::{Column, Data, Fault, Step, TextKind};
use crate::json::Input;
use crate::json::scan;
use crate::parse;

impl Column {
    /// Appends the value that a text stands for. `utf8` says that the text is known to be UTF-8.
    pub(crate) fn push_text(&mut self, text: &[u8], utf8: bool) -> Step<()> {
        match &mut self.data {
            Data::Bool(values) => values.append(parse::boolean(text).ok_or_else(|| Fault::new("not a boolean"))?),
            Data::Int { values, min, max } => {
                let value = parse::integer(text).ok_or_else(|| Fault::new("not an integer"))?;
                let value = i64::try_from(value).ok().filter(|v| (*min..=*max).contains(v));
                values.push(value.ok_or_else(|| Fault::new("integer out of range"))?);
            }
            Data::UInt64(values) => {
                let value = parse::integer(text).ok_or_else(|| Fault::new("not an integer"))?;
                values.push(u64::try_from(value).map_err(|_| Fault::new("integer out of range"))?);
            }
            Data::Float32(values) => values.push(parse::float32(text).ok_or_else(|| Fault::new("not a number"))?),
            Data::Float64(values) => values.push(parse::float64(text).ok_or_else(|| Fault::new("not a number"))?),
            Data::Decimal { values, precision, scale } => {
                let (value, _) =
                    parse::scaled(text, *scale).ok_or_else(|| Fault::new("not a number of this precision"))?;
                if value.abs() >= parse::power_of_ten(*precision) {
                    return Err(Fault::new("number out of range"));
                }
                values.push(value);
            }
            Data::Date(values) => values.push(parse::date(text).ok_or_else(|| Fault::new("not a date"))?),
            Data::Time(values) => values.push(parse::time(text).ok_or_else(|| Fault::new("not a time"))?),
            Data::Timestamp { values, .. } => {
                values.push(parse::timestamp(text).ok_or_else(|| Fault::new("not a timestamp"))?);
            }
            Data::Interval(values) => {
                values.push(parse::interval(text).ok_or_else(|| Fault::new("not an interval"))?);
            }
            Data::Text { strings, kind } => {
                if !utf8 && std::str::from_utf8(text).is_err() {
                    return Err(Fault::new("not valid UTF-8"));
                }
                push_string(&mut strings.bytes, *kind, text)?;
                strings.close()?;
            }
            Data::Binary(strings) => {
                parse::bytes(text, &mut strings.bytes).ok_or_else(|| Fault::new("neither \\x… nor base64"))?;
                strings.close()?;
            }
            Data::List { .. } => return self.list_from_text(text.trim_ascii(), utf8),
            Data::Struct(_) => return self.whole_json(text, utf8),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// The text is a JSON value.
    fn whole_json(&mut self, text: &[u8], utf8: bool) -> Step<()> {
        let input = Input { bytes: text, utf8 };
        let end = self.json_value(&input, scan::spaces(text, 0))?;
        if scan::spaces(text, end) < text.len() { Err(Fault::new("more text after the value")) } else { Ok(()) }
    }

    /// `{1,NULL,"a b"}` as PostgreSQL writes arrays, or a JSON array.
    fn list_from_text(&mut self, text: &[u8], utf8: bool) -> Step<()> {
        if text.first() == Some(&b'[') {
            return self.whole_json(text, utf8);
        }
        let end = self.braces(text, 0, utf8)?;
        if end < text.len() { Err(Fault::new("more text after the array")) } else { Ok(()) }
    }

    /// One level of braces; nested ones recurse no deeper than the column's type.
    fn braces(&mut self, text: &[u8], at: usize, utf8: bool) -> Step<usize> {
        let Data::List { item, .. } = &mut self.data else {
            return Err(Fault::new("an array inside what is no array"));
        };
        if text.get(at) != Some(&b'{') {
            return Err(Fault::new("not an array"));
        }
        let mut at = scan::spaces(text, at + 1);
        if text.get(at) == Some(&b'}') {
            self.close_list()?;
            return Ok(at + 1);
        }
        let mut cell = Vec::new();
        loop {
            at = scan::spaces(text, at);
            if text.get(at) == Some(&b'{') {
                at = item.braces(text, at, utf8)?;
            } else {
                cell.clear();
                let (end, quoted) = element(text, at, &mut cell)?;
                at = end;
                if !quoted && cell.eq_ignore_ascii_case(b"null") {
                    item.push_null();
                } else {
                    item.push_text(&cell, utf8)?;
                }
            }
            at = scan::spaces(text, at);
            match text.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => break,
                _ => return Err(Fault::new("the array does not end")),
            }
        }
        self.close_list()?;
        Ok(at + 1)
    }
}

/// Reads an array's element; says where it ends and whether it was quoted.
fn element(text: &[u8], mut at: usize, cell: &mut Vec<u8>) -> Step<(usize, bool)> {
    let quoted = text.get(at) == Some(&b'"');
    at += usize::from(quoted);
    loop {
        match text.get(at) {
            Some(b'\\') => {
                cell.push(*text.get(at + 1).ok_or_else(|| Fault::new("the array does not end"))?);
                at += 2;
            }
            Some(b'"') if quoted => return Ok((at + 1, true)),
            Some(b',' | b'}') if !quoted => {
                cell.truncate(cell.trim_ascii_end().len());
                return if cell.is_empty() { Err(Fault::new("an empty array element")) } else { Ok((at, false)) };
            }
            Some(byte) => {
                cell.push(*byte);
                at += 1;
            }
            None => return Err(Fault::new("the array does not end")),
        }
    }
}

/// Appends text as its column wants it.
pub(crate) fn push_string(out: &mut Vec<u8>, kind: TextKind, text: &[u8]) -> Step<()> {
    match kind {
        TextKind::Plain => out.extend_from_slice(text),
        TextKind::Json => {
            let start = scan::spaces(text, 0);
            let end = scan::check(text, start).map_err(|_| Fault::new("not valid JSON"))?;
            if scan::spaces(text, end) < text.len() {
                return Err(Fault::new("not valid JSON"));
            }
            out.extend_from_slice(&text[start..end]);
        }
        TextKind::Uuid => {
            out.extend_from_slice(&parse::uuid(text).ok_or_else(|| Fault::new("not a UUID"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;
    use crate::column::ValueOptions;
    use crate::pg_text::pg_text;

    fn column(data_type: DataType) -> (Field, Column) {
        let field = Field::new("c", data_type, true);
        let column = Column::new(&field, ValueOptions { timestamp_unit: TimeUnit::Millisecond }).expect("known type");
        (field, column)
    }

    /// Parses the texts and prints them again.
    fn round(data_type: DataType, texts: &[&str]) -> Vec<String> {
        let (field, mut column) = column(data_type);
        for text in texts {
            column.push_text(text.as_bytes(), false).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        }
        let array: ArrayRef = column.finish(texts.len()).expect("valid");
        (0..texts.len())
            .map(|row| {
                let mut out = String::new();
                pg_text(&array, row, &field, &mut out);
                out
            })
            .collect()
    }

    #[test]
    fn text_comes_back() {
        let same = |data_type: DataType, texts: &[&str]| assert_eq!(round(data_type, texts), texts);
        let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
        same(DataType::Int16, &["-32768", "32767", "0"]);
        same(DataType::UInt64, &["18446744073709551615"]);
        same(DataType::Float64, &["1.5", "NaN", "-Infinity", "1e+300"]);
        same(DataType::Decimal128(10, 2), &["-0.05", "12345678.90"]);
        same(DataType::Boolean, &["t", "f"]);
        same(DataType::Timestamp(TimeUnit::Microsecond, None), &["2024-02-29 12:34:56.789"]);
        same(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), &["0044-03-15 12:00:00+00 BC"]);
        same(DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano), &["1 year -1 days +02:00:00"]);
        same(list(DataType::Int64), &["{1,NULL,3}", "{}"]);
        same(list(DataType::Utf8), &["{\"a b\",NULL,\"null\",\"x\\\"\\\\y\",z}"]);
        same(list(list(DataType::Int64)), &["{{1,2},{},{3}}"]);
        assert_eq!(round(list(DataType::Int64), &["[1, null, 2]"]), ["{1,NULL,2}"]);
        assert_eq!(round(DataType::Decimal128(5, 1), &["0.25", "-0.25", "1e2"]), ["0.3", "-0.3", "100.0"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int8, true)));
        for (data_type, text) in [
            (DataType::Int8, "128"),
            (DataType::UInt32, "-1"),
            (DataType::Decimal128(3, 1), "100"),
            (DataType::Boolean, "maybe"),
            (list.clone(), "{1,2"),
            (list.clone(), "{1,300}"),
            (list.clone(), "{1,,2}"),
            (list, "{{1}}"),
        ] {
            let (_, mut column) = column(data_type);
            assert!(column.push_text(text.as_bytes(), false).is_err(), "{text}");
            column.truncate(0);
            assert_eq!(column.finish(0).expect("empty").len(), 0);
        }
        let (_, mut text) = column(DataType::Utf8);
        assert!(text.push_text(b"\xff", false).is_err());
        text.push_text(b"ok", false).expect("valid");
        assert_eq!(text.finish(2).expect("valid").as_string::<i32>().value(0), "ok");
    }
}
