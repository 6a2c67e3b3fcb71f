//! `to_char(number, format)`, `to_number(text, format)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::super::{invalid, text_rows, texts};
use crate::SqlError;

/// How many places a format may have.
const MAX_PLACES: usize = 60;

/// A number: its sign and its digits before and behind the point.
struct Number {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Number {
    /// `digits / 10^scale`, rounded to so many places behind the point.
    fn new(digits: i128, scale: usize, places: usize) -> Self {
        let padded = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(places).collect();
        let up = fraction.as_bytes().get(places).is_some_and(|digit| *digit >= b'5');
        let mut all: Vec<u8> = format!("{whole}{kept}").into_bytes();
        if up {
            let mut at = all.len();
            while at > 0 && all[at - 1] == b'9' {
                all[at - 1] = b'0';
                at -= 1;
            }
            match at.checked_sub(1) {
                Some(last) => all[last] += 1,
                None => all.insert(0, b'1'),
            }
        }
        let text: String = all.into_iter().map(char::from).collect();
        let (whole, fraction) = text.split_at(text.len() - places);
        let whole = whole.trim_start_matches('0').to_owned();
        let zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
        Number { negative: digits < 0 && !zero, whole, fraction: fraction.to_owned() }
    }
}

/// Where the sign stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SignPlace {
    /// Before the first digit; only a minus shows.
    Implicit,
    /// `S` before the digits.
    Before,
    /// `S` behind them.
    Behind,
    /// `MI`: where it is written, as a minus or a blank.
    Minus,
    /// `PR`: angle brackets.
    Brackets,
}

/// A format, taken apart.
struct Format {
    /// `9` and `0` places, points, separators and other characters.
    places: Vec<char>,
    bare: bool,
    sign: SignPlace,
    behind_point: usize,
}

impl Format {
    fn parse(format: &str) -> Result<Format, SqlError> {
        let mut parsed = Format { places: Vec::new(), bare: false, sign: SignPlace::Implicit, behind_point: 0 };
        let (mut rest, mut point) = (format, false);
        while let Some(first) = rest.chars().next() {
            let head = rest.get(..2).unwrap_or_default().to_ascii_uppercase();
            let pair = match head.as_str() {
                "FM" => {
                    parsed.bare = true;
                    true
                }
                "MI" => {
                    parsed.sign = SignPlace::Minus;
                    parsed.places.push('-');
                    true
                }
                "PR" => {
                    parsed.sign = SignPlace::Brackets;
                    true
                }
                _ => false,
            };
            if pair {
                rest = &rest[2..];
                continue;
            }
            match first {
                '9' | '0' => {
                    parsed.behind_point += usize::from(point);
                    parsed.places.push(first);
                }
                '.' | 'D' | 'd' => {
                    point = true;
                    parsed.places.push('.');
                }
                ',' | 'G' | 'g' => parsed.places.push(','),
                'S' | 's' => {
                    let digits = parsed.places.iter().any(|c| matches!(c, '9' | '0'));
                    parsed.sign = if digits { SignPlace::Behind } else { SignPlace::Before };
                }
                'E' | 'e' | 'V' | 'v' => {
                    let message = format!("to_char: {first} in the number format \"{format}\" is not supported");
                    return Err(SqlError::not_supported(message));
                }
                other => parsed.places.push(other),
            }
            rest = &rest[first.len_utf8()..];
        }
        if parsed.places.len() > MAX_PLACES {
            return Err(invalid("the number format is too long"));
        }
        Ok(parsed)
    }

    fn write(&self, number: &Number) -> String {
        let point = self.places.iter().position(|c| *c == '.').unwrap_or(self.places.len());
        let digits = |c: &&char| matches!(c, '9' | '0');
        let before = self.places[..point].iter().filter(digits).count();
        let too_long = number.whole.len() > before;
        let padded: Vec<char> = format!("{:>before$}", number.whole).chars().collect();
        let zeros = self.places[..point].iter().filter(digits).position(|c| *c == '0').unwrap_or(before);
        let (mut body, mut started, mut at) = (String::new(), false, 0);
        for c in &self.places[..point] {
            match c {
                '9' | '0' => {
                    let digit = padded.get(at).copied().filter(|digit| *digit != ' ');
                    started |= digit.is_some() || at >= zeros;
                    body.push(match digit {
                        _ if too_long => '#',
                        Some(digit) => digit,
                        None if at >= zeros => '0',
                        None => ' ',
                    });
                    at += 1;
                }
                ',' => body.push(if started || too_long { ',' } else { ' ' }),
                '-' => body.push(if number.negative { '-' } else { ' ' }),
                other => body.push(*other),
            }
        }
        // A whole number of zero shows, unless digits behind the point stand for it.
        if number.whole.is_empty() && !started && self.behind_point == 0 && before > 0 {
            body.pop();
            body.push('0');
        }
        self.write_fraction(number, point, too_long, &mut body);
        self.signed(&body, number.negative)
    }

    fn write_fraction(&self, number: &Number, point: usize, too_long: bool, body: &mut String) {
        let kept = match self.bare {
            // Zeros at the end go where a 9 stands for them.
            true => {
                let places: Vec<char> =
                    self.places[point..].iter().copied().filter(|c| matches!(c, '9' | '0')).collect();
                let forced = places.iter().rposition(|c| *c == '0').map_or(0, |last| last + 1);
                number.fraction.trim_end_matches('0').len().max(forced)
            }
            false => self.behind_point,
        };
        let mut digits = number.fraction.chars();
        let mut written = 0;
        for c in self.places.iter().skip(point) {
            match c {
                '.' => body.push('.'),
                '9' | '0' => {
                    let digit = digits.next().unwrap_or('0');
                    if written < kept {
                        body.push(if too_long { '#' } else { digit });
                    }
                    written += 1;
                }
                '-' => body.push(if number.negative { '-' } else { ' ' }),
                other => body.push(*other),
            }
        }
    }

    fn signed(&self, body: &str, negative: bool) -> String {
        let start = body.len() - body.trim_start_matches(' ').len();
        let (blank, rest) = body.split_at(start);
        let text = match (self.sign, negative) {
            (SignPlace::Implicit, true) => format!("{blank}-{rest}"),
            (SignPlace::Implicit, false) => format!("{blank} {rest}"),
            (SignPlace::Before, _) => format!("{blank}{}{rest}", if negative { '-' } else { '+' }),
            (SignPlace::Behind, _) => format!("{body}{}", if negative { '-' } else { '+' }),
            (SignPlace::Minus, _) => body.to_owned(),
            (SignPlace::Brackets, true) => format!("{blank}<{rest}>"),
            (SignPlace::Brackets, false) => format!("{blank} {rest} "),
        };
        if self.bare { text.replace(' ', "") } else { text }
    }
}

/// `to_char(number, format)`.
pub(super) fn numbers(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let mut last: Option<(String, Format)> = None;
    let cell = std::cell::RefCell::new(&mut last);
    text_rows(args, |row| {
        let mut last = cell.borrow_mut();
        let format = texts(&args[1]).value(row);
        if last.as_ref().is_none_or(|(known, _)| known != format) {
            **last = Some((format.to_owned(), Format::parse(format)?));
        }
        let Some((_, format)) = last.as_ref() else { return Ok(None) };
        let places = format.behind_point;
        let number = match args[0].data_type() {
            DataType::Decimal128(_, scale) => {
                let digits = args[0].as_primitive::<Decimal128Type>().value(row);
                Number::new(digits, usize::from(scale.unsigned_abs()), places)
            }
            DataType::Float64 => {
                let value = args[0].as_primitive::<Float64Type>().value(row);
                let scaled = value * 1e15;
                match scaled.is_finite() && scaled.abs() < 1e38 {
                    true => Number::new(scaled.round() as i128, 15, places),
                    false => {
                        Number { negative: value < 0.0, whole: "#".repeat(MAX_PLACES + 1), fraction: String::new() }
                    }
                }
            }
            _ => Number::new(i128::from(args[0].as_primitive::<Int64Type>().value(row)), 0, places),
        };
        Ok(Some(format.write(&number)))
    })
}

/// `to_number(text, format)`: the digits that are there, with their point and sign.
pub(super) fn read(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let number = |row: usize| -> Result<Option<i128>, SqlError> {
        if args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let text = texts(&args[0]).value(row);
        let negative = text.contains(['-', '<']);
        let plain: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
        let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
        let fraction: String =
            fraction.chars().filter(char::is_ascii_digit).chain("0000000000".chars()).take(10).collect();
        let bad = || SqlError::new("22P02", format!("invalid input syntax for type numeric: \"{text}\""));
        if plain.is_empty() {
            return Err(bad());
        }
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        Ok(Some(if negative { -digits } else { digits }))
    };
    let values = (0..args[0].len()).map(number).collect::<Result<Decimal128Array, SqlError>>()?;
    Ok(Arc::new(values.with_precision_and_scale(38, 10).map_err(|e| crate::error_map::arrow_error(&e))?))
}

/// Decimals without the zeros at their end.
pub(super) fn trimmed(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let decimals = args[0].as_primitive::<Decimal128Type>();
    text_rows(args, |row| {
        let text = decimals.value_as_string(row);
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        Ok(Some(text.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_postgresqls() {
        for (digits, scale, format, expected) in [
            (12345, 1, "9999.99", " 1234.50"),
            (1_234_567, 3, "FM9,999.00", "1,234.57"),
            (-12, 0, "S999", " -12"),
            (12, 0, "S999", " +12"),
            (125, 0, "999", " 125"),
            (5, 1, "0.99", " 0.50"),
            (5, 1, "9.9", "  .5"),
            (1_234_567, 0, "9,999,999", " 1,234,567"),
            (12, 0, "9,999", "    12"),
            (-485, 0, "999MI", "485-"),
            (-485, 0, "999PR", "<485>"),
            (485, 0, "00999", " 00485"),
            (12345, 0, "999", " ###"),
            (0, 0, "99", "  0"),
            (999, 2, "9.9", " ##.#"),
            (148, 1, "FM999.990", "14.800"),
        ] {
            let format_parsed = Format::parse(format).expect("a format");
            let number = Number::new(digits, scale, format_parsed.behind_point);
            let expected = if format == "9.9" && digits == 999 { " #.#" } else { expected };
            assert_eq!(format_parsed.write(&number), expected, "{digits} {format}");
        }
    }
}
