//! JSON objects into columns.
//!
//! The decoder walks over a line once. It bets that members come in the order and spelling of the
//! line before (one comparison of sixteen bytes for most names), skips what nobody wants by looking
//! for the quote that ends it, and writes what is wanted straight into the columns' vectors. When the
//! bet is lost, a general path finds the member by name, in any order, with any spacing and escapes;
//! a name that comes twice counts the last time.

pub(crate) mod scan;
pub(crate) mod string;

use std::borrow::Cow;
use std::ops::Range;

use arrow::datatypes::TimeUnit;
use memchr::memchr;

use crate::column::{Column, Data, Fault, Step, TextKind};
use crate::parse;
use crate::record::{Expected, Record};
use crate::text::push_string;

/// How many members an object may teach; beyond, learning starts over.
const MAX_EXPECTED: usize = 256;
/// Longer names are not learnt.
const MAX_LITERAL: usize = 256;

/// Text to decode.
pub(crate) struct Input<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether all of it is known to be UTF-8, so that no string has to be checked again.
    pub(crate) utf8: bool,
}

/// What comes next in an object.
enum Member {
    /// The object's end; what follows it begins here.
    End(usize),
    /// A value for this column begins here.
    Value(Option<usize>, usize),
}

impl Record {
    /// Reads the object at `at` as row `row`; gives where it ends.
    pub(crate) fn json_object(&mut self, row: usize, input: &Input<'_>, at: usize) -> Step<usize> {
        let bytes = input.bytes;
        if bytes.get(at) != Some(&b'{') {
            return Err(Fault::new("not a JSON object"));
        }
        let mut at = at + 1;
        let mut step = 0;
        let mut first = true;
        loop {
            let column = match self.expected.get(step) {
                Some(expected) if expected.is_at(bytes, at) => {
                    at += expected.len();
                    // Here may be more space than there was where the member was learnt.
                    if bytes.get(at).is_some_and(|byte| *byte <= b' ') {
                        at = scan::spaces(bytes, at);
                    }
                    step += 1;
                    expected.column
                }
                _ => match self.find_member(bytes, at, &mut step, first)? {
                    Member::Value(column, value) => {
                        at = value;
                        column
                    }
                    Member::End(end) => {
                        at = end;
                        break;
                    }
                },
            };
            first = false;
            at = match column {
                None => scan::skip(bytes, at)?,
                Some(column) => match self.columns[column].json_member(row, input, at) {
                    Ok(end) => end,
                    Err(fault) => return Err(fault.within(self.name(column))),
                },
            };
            match bytes.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => {
                    at += 1;
                    break;
                }
                _ => match after_value(bytes, at)? {
                    Member::End(end) => {
                        at = end;
                        break;
                    }
                    Member::Value(_, next) => at = next,
                },
            }
        }
        self.complete(row)?;
        Ok(at)
    }

    /// The general way to find what comes next; remembers it for the next object.
    #[cold]
    fn find_member(&mut self, bytes: &[u8], start: usize, step: &mut usize, first: bool) -> Step<Member> {
        let at = scan::spaces(bytes, start);
        match bytes.get(at) {
            Some(b'"') => {}
            Some(b'}') if first => return Ok(Member::End(at + 1)),
            _ => return Err(Fault::new("a member without a name")),
        }
        let end = scan::string_end(bytes, at + 1)?;
        let colon = scan::spaces(bytes, end + 1);
        if bytes.get(colon) != Some(&b':') {
            return Err(Fault::new("a member without a colon"));
        }
        let value = scan::spaces(bytes, colon + 1);
        let literal = &bytes[start..value];
        // Members may be missing, so those further on are more likely.
        let known = |mut range: Range<usize>| range.find(|i| self.expected[*i].is(literal));
        let from = (*step).min(self.expected.len());
        if let Some(found) = known(from..self.expected.len()).or_else(|| known(0..from)) {
            *step = found + 1;
            return Ok(Member::Value(self.expected[found].column, value));
        }
        let name = unescaped(&bytes[at + 1..end])?;
        let column = self.find(&name);
        if literal.len() <= MAX_LITERAL {
            if self.expected.len() >= MAX_EXPECTED {
                self.expected.clear();
            }
            let place = (*step).min(self.expected.len());
            self.expected.insert(place, Expected::new(literal, column));
            *step = place + 1;
        }
        Ok(Member::Value(column, value))
    }
}

/// What follows a value that neither a comma nor a brace follows directly.
#[cold]
fn after_value(bytes: &[u8], at: usize) -> Step<Member> {
    let at = scan::spaces(bytes, at);
    match bytes.get(at) {
        Some(b',') => Ok(Member::Value(None, at + 1)),
        Some(b'}') => Ok(Member::End(at + 1)),
        _ => Err(Fault::new("neither a comma nor a brace after a value")),
    }
}

/// The text that a string's content stands for.
fn unescaped(content: &[u8]) -> Step<Cow<'_, [u8]>> {
    if memchr(b'\\', content).is_none() {
        return Ok(Cow::Borrowed(content));
    }
    let mut out = Vec::with_capacity(content.len());
    string::unescape(content, &mut out)?;
    Ok(Cow::Owned(out))
}

impl Column {
    /// Reads the value at `at` as that of row `row`; gives where it ends.
    #[inline]
    fn json_member(&mut self, row: usize, input: &Input<'_>, at: usize) -> Step<usize> {
        self.align(row);
        if input.bytes.get(at) == Some(&b'n') {
            return self.json_null(input, at);
        }
        self.json_value(input, at)
    }

    /// Nothing to do: NULLs are filled in when the next value or the end comes.
    fn json_null(&mut self, input: &Input<'_>, at: usize) -> Step<usize> {
        if !input.bytes[at..].starts_with(b"null") {
            return Err(Fault::new("not a JSON value"));
        }
        Ok(at + 4)
    }

    /// Appends the value at `at`, which is not null; gives where it ends.
    pub(crate) fn json_value(&mut self, input: &Input<'_>, at: usize) -> Step<usize> {
        let bytes = input.bytes;
        match &mut self.data {
            Data::Int { values, min, max } => {
                if let Some((value, end)) = short_integer(bytes, at) {
                    if value < *min || value > *max {
                        return Err(Fault::new("integer out of range"));
                    }
                    values.push(value);
                    self.nulls.append_non_null();
                    return Ok(end);
                }
                self.json_scalar(input, at)
            }
            Data::Text { strings, kind: TextKind::Plain } if bytes.get(at) == Some(&b'"') => {
                let end = scan::string_end(bytes, at + 1)?;
                let content = &bytes[at + 1..end];
                let start = strings.bytes.len();
                if memchr(b'\\', content).is_none() {
                    strings.bytes.extend_from_slice(content);
                } else {
                    string::unescape(content, &mut strings.bytes)?;
                }
                if !input.utf8 && std::str::from_utf8(&strings.bytes[start..]).is_err() {
                    return Err(Fault::new("not valid UTF-8"));
                }
                strings.close()?;
                self.nulls.append_non_null();
                Ok(end + 1)
            }
            Data::Timestamp { values, integers, cache, .. } => {
                if bytes.get(at) == Some(&b'"')
                    && let Some((micros, length)) = parse::timestamp_prefix(&bytes[at + 1..], cache)
                    && bytes.get(at + 1 + length) == Some(&b'"')
                {
                    values.push(micros);
                    self.nulls.append_non_null();
                    return Ok(at + length + 2);
                }
                if let Some((value, end)) = short_integer(bytes, at) {
                    values.push(micros(value, *integers).ok_or_else(|| Fault::new("timestamp out of range"))?);
                    self.nulls.append_non_null();
                    return Ok(end);
                }
                self.json_scalar(input, at)
            }
            Data::Float64(values) => {
                if let Ok((value, length)) = fast_float2::parse_partial::<f64, _>(&bytes[at.min(bytes.len())..])
                    && matches!(bytes.get(at), Some(b'-' | b'0'..=b'9'))
                    && ends_value(bytes, at + length)
                {
                    values.push(value);
                    self.nulls.append_non_null();
                    return Ok(at + length);
                }
                self.json_scalar(input, at)
            }
            Data::Text { strings, kind: TextKind::Json } => {
                let end = scan::check(bytes, at)?;
                push_json(&mut strings.bytes, &bytes[at..end], input.utf8)?;
                strings.close()?;
                self.nulls.append_non_null();
                Ok(end)
            }
            Data::Struct(record) if bytes.get(at) == Some(&b'{') => {
                let end = record.json_object(self.nulls.len(), input, at)?;
                self.nulls.append_non_null();
                Ok(end)
            }
            Data::List { item, .. } if bytes.get(at) == Some(&b'[') => {
                let end = item.json_items(input, at)?;
                self.close_list()?;
                Ok(end)
            }
            Data::Struct(_) => Err(Fault::new("not a JSON object")),
            _ => self.json_scalar(input, at),
        }
    }

    /// Appends the items of the array at `at` to this column, which holds a list's items.
    fn json_items(&mut self, input: &Input<'_>, at: usize) -> Step<usize> {
        let bytes = input.bytes;
        let mut at = scan::spaces(bytes, at + 1);
        if bytes.get(at) == Some(&b']') {
            return Ok(at + 1);
        }
        loop {
            if bytes.get(at) == Some(&b'n') {
                at = self.json_null(input, at)?;
                self.push_null();
            } else {
                at = self.json_value(input, at)?;
            }
            at = scan::spaces(bytes, at);
            match bytes.get(at) {
                Some(b',') => at = scan::spaces(bytes, at + 1),
                Some(b']') => return Ok(at + 1),
                _ => return Err(Fault::new("neither a comma nor a bracket after a value")),
            }
        }
    }

    /// Any scalar by way of its text: a number in a string is a number, a number for a text column
    /// is its digits.
    #[inline(never)]
    fn json_scalar(&mut self, input: &Input<'_>, at: usize) -> Step<usize> {
        let bytes = input.bytes;
        match bytes.get(at) {
            Some(b'"') => {
                let end = scan::string_end(bytes, at + 1)?;
                self.push_text(&unescaped(&bytes[at + 1..end])?, input.utf8)?;
                Ok(end + 1)
            }
            Some(b'{' | b'[') if !matches!(self.data, Data::Text { kind: TextKind::Plain, .. }) => {
                Err(Fault::new("an object or array where a scalar has to be"))
            }
            _ => {
                let end = scan::check(bytes, at)?;
                self.push_text(&bytes[at..end], input.utf8)?;
                Ok(end)
            }
        }
    }
}

/// Keeps JSON text as it is.
fn push_json(out: &mut Vec<u8>, text: &[u8], utf8: bool) -> Step<()> {
    if !utf8 && std::str::from_utf8(text).is_err() {
        return Err(Fault::new("not valid UTF-8"));
    }
    push_string(out, TextKind::Plain, text)
}

/// Whether a value may end here.
#[inline]
fn ends_value(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
}

/// Reads an integer of up to 18 digits that nothing else of a number follows.
#[inline]
fn short_integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let rest = bytes.get(at..)?;
    let negative = rest.first() == Some(&b'-');
    let digits = &rest[usize::from(negative)..];
    let mut value = 0i64;
    let mut count = 0;
    while let Some(digit) = digits.get(count).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        if count == 18 {
            return None;
        }
        value = value * 10 + i64::from(digit);
        count += 1;
    }
    let end = at + usize::from(negative) + count;
    let leading_zero = count > 1 && digits[0] == b'0';
    let plain = count > 0 && !leading_zero && ends_value(bytes, end);
    plain.then_some((if negative { -value } else { value }, end))
}

/// So many units since 1970 in microseconds.
fn micros(value: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1000)),
    }
}
