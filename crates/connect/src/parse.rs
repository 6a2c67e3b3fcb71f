//! Single values from text, as PostgreSQL writes them and a little more (ISO 8601 times and
//! durations). All functions take the whole text and give `None` when it is not such a value.

use arrow::datatypes::IntervalMonthDayNano;

use crate::calendar::{DAY_MICROS, days_from_civil, days_in_month};

/// Years beyond this do not fit into microseconds.
const MAX_YEAR: i64 = 294_000;

/// Powers of ten that fit.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Ten to the power given, up to 38.
pub(crate) fn power_of_ten(exponent: u8) -> i128 {
    POWERS[usize::from(exponent).min(38)]
}

/// A truth value.
pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    let text = text.trim_ascii();
    let is = |words: &[&str]| words.iter().any(|w| w.as_bytes().eq_ignore_ascii_case(text));
    if is(&["t", "true", "1", "yes", "y", "on"]) {
        Some(true)
    } else if is(&["f", "false", "0", "no", "n", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// An integer; `1e3` and `5.0` are integers too, `1.5` is not.
pub(crate) fn integer(text: &[u8]) -> Option<i128> {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |v, d| v * 10 + i64::from(d - b'0'));
        return Some(i128::from(if digits.len() < text.len() { -value } else { value }));
    }
    let (value, exact) = scaled(text, 0)?;
    exact.then_some(value)
}

/// A decimal number times ten to the power of `scale`, rounded half away from zero, and whether that
/// was without rounding. `None` also when it does not fit.
pub(crate) fn scaled(text: &[u8], scale: i8) -> Option<(i128, bool)> {
    let text = text.trim_ascii();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(e) => (&text[..e], exponent(&text[e + 1..])?),
        None => (text, 0),
    };
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let (whole, fraction) = (&mantissa[..point], mantissa.get(point + 1..).unwrap_or(&[]));
    if whole.is_empty() && fraction.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let zeros = whole.iter().chain(fraction).take_while(|d| **d == b'0').count() as i64;
    let count = (whole.len() + fraction.len()) as i64 - zeros;
    if count == 0 {
        return Some((0, true));
    }
    let mut digits = whole.iter().chain(fraction).skip(zeros as usize).map(|d| i128::from(d - b'0'));
    // So many of the digits stay; more than there are: zeros are appended.
    let keep = count + exponent - fraction.len() as i64 + i64::from(scale);
    if keep > 38 {
        return None;
    }
    if keep < 0 {
        return Some((0, false));
    }
    let taken = digits.by_ref().take(keep.min(count) as usize).fold(0i128, |v, d| v * 10 + d);
    let mut value = taken * POWERS[(keep - count).max(0) as usize];
    let mut exact = true;
    if let Some(next) = digits.next() {
        exact = next == 0 && digits.all(|d| d == 0);
        value += i128::from(next >= 5);
    }
    Some((if negative { -value } else { value }, exact))
}

/// The part after `e`; sizes beyond any number's are cut, as they only say "too large" or "zero".
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |v, d| (v * 10 + i64::from(d - b'0')).min(1 << 40));
    Some(if negative { -value } else { value })
}

/// A floating point number.
pub(crate) fn float64(text: &[u8]) -> Option<f64> {
    fast_float2::parse::<f64, _>(text.trim_ascii()).ok()
}

/// A floating point number of single precision, rounded once.
pub(crate) fn float32(text: &[u8]) -> Option<f32> {
    fast_float2::parse::<f32, _>(text.trim_ascii()).ok()
}

/// Reads a number of 1 to `most` digits at the front.
fn digits(text: &[u8], most: usize) -> Option<(i64, &[u8])> {
    let count = text.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
    let value = text[..count].iter().fold(0i64, |v, d| v * 10 + i64::from(d - b'0'));
    (count > 0).then(|| (value, &text[count..]))
}

/// Reads the date at the front.
fn date_prefix(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = digits(text, 6)?;
    let (month, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let (day, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let year = if rest.ends_with(b" BC") { 1 - year } else { year };
    let (month, day) = (month as u32, day as u32);
    let valid = year <= MAX_YEAR && (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    valid.then(|| (days_from_civil(year, month, day), rest))
}

/// Reads the time of day at the front, in microseconds; digits beyond are cut off.
fn time_prefix(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, rest) = digits(text, 2)?;
    let (minute, mut rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (mut second, mut micros) = (0, 0);
    if let Some(more) = rest.strip_prefix(b":") {
        (second, rest) = digits(more, 2)?;
        if let Some(fraction) = rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b",")) {
            let count = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            (0..6).for_each(|i| {
                micros = micros * 10 + fraction[..count].get(i).map_or(0, |d| i64::from(d - b'0'));
            });
            rest = &fraction[count..];
        }
    }
    let valid = hour < 24 && minute < 60 && second < 60;
    valid.then(|| (((hour * 60 + minute) * 60 + second) * 1_000_000 + micros, rest))
}

/// An offset from UTC in microseconds (`Z`, `+02`, `-0330`, `+05:30`, ` UTC`).
fn offset(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case(b"z") || text.eq_ignore_ascii_case(b"utc") || text.eq_ignore_ascii_case(b"gmt") {
        return Some(0);
    }
    let (sign, rest) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let (minutes, rest) = if rest.is_empty() { (0, rest) } else { digits(rest, 2)? };
    let (seconds, rest) = match rest.strip_prefix(b":") {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    (rest.is_empty() && hours < 24 && minutes < 60).then(|| sign * ((hours * 60 + minutes) * 60 + seconds) * 1_000_000)
}

/// A date as days since 1970; a timestamp gives its date.
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii();
    let (days, rest) = date_prefix(text)?;
    if rest.is_empty() || rest == b" BC" {
        return i32::try_from(days).ok();
    }
    timestamp(text).and_then(|micros| i32::try_from(micros.div_euclid(DAY_MICROS)).ok())
}

/// A time of day in microseconds.
pub(crate) fn time(text: &[u8]) -> Option<i64> {
    let (micros, rest) = time_prefix(text.trim_ascii())?;
    rest.is_empty().then_some(micros)
}

/// A timestamp in microseconds since 1970; one with an offset is turned to UTC.
pub(crate) fn timestamp(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (days, rest) = date_prefix(text)?;
    let rest = rest.strip_suffix(b" BC").unwrap_or(rest);
    let midnight = days.checked_mul(DAY_MICROS)?;
    let time = match rest {
        [] => return Some(midnight),
        [b' ' | b'T' | b't', time @ ..] => time,
        _ => return None,
    };
    let (micros, rest) = time_prefix(time.trim_ascii_start())?;
    let local = midnight.checked_add(micros)?;
    if rest.is_empty() { Some(local) } else { local.checked_sub(offset(rest)?) }
}

/// The last date seen, as text and as microseconds: streams rarely change the day from row to row.
pub(crate) struct DateCache {
    text: [u8; 10],
    micros: i64,
}

impl Default for DateCache {
    fn default() -> Self {
        DateCache { text: *b"1970-01-01", micros: 0 }
    }
}

/// Reads `YYYY-MM-DD[ T]HH:MM:SS[.f...]` at the front, without an offset; gives the microseconds
/// and the length. `None` says only that this is not the plain form.
#[inline]
pub(crate) fn timestamp_prefix(text: &[u8], cache: &mut DateCache) -> Option<(i64, usize)> {
    let head: &[u8; 19] = text.first_chunk()?;
    if head[..10] != cache.text {
        let (days, rest) = date_prefix(&head[..10])?;
        if !rest.is_empty() {
            return None;
        }
        cache.text.copy_from_slice(&head[..10]);
        cache.micros = days.checked_mul(DAY_MICROS)?;
    }
    if !matches!(head[10], b' ' | b'T') {
        return None;
    }
    let clock = clock(head[11..19].try_into().ok()?)?;
    let mut micros = cache.micros.checked_add(clock)?;
    let mut at = 19;
    if text.get(at) == Some(&b'.') {
        at += 1;
        let mut weight = 100_000;
        while let Some(digit) = text.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            micros += i64::from(digit) * weight;
            weight /= 10;
            at += 1;
        }
    }
    Some((micros, at))
}

/// `HH:MM:SS` in microseconds, all eight bytes at once.
#[inline]
fn clock(text: [u8; 8]) -> Option<i64> {
    // Each byte becomes its digit, or 0 where a colon has to be.
    let x = u64::from_le_bytes(text) ^ u64::from_le_bytes(*b"00:00:00");
    // A digit above 9 or a colon position above 0 carries into the byte's top bit.
    let over = x.wrapping_add(u64::from_le_bytes([0x76, 0x76, 0x7f, 0x76, 0x76, 0x7f, 0x76, 0x76]));
    if (over | x) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let d = x.to_le_bytes().map(i64::from);
    let (hour, minute, second) = (d[0] * 10 + d[1], d[3] * 10 + d[4], d[6] * 10 + d[7]);
    let valid = hour < 24 && minute < 60 && second < 60;
    valid.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000)
}

/// A span of time: `1 year 2 mons -3 days +04:05:06.7`, `90 minutes`, `P1DT2H`.
pub(crate) fn interval(text: &[u8]) -> Option<IntervalMonthDayNano> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let mut sum = Span::default();
    if let Some(iso) = text.strip_prefix(['P', 'p']) {
        sum.iso(iso)?;
    } else {
        sum.words(text)?;
    }
    Some(IntervalMonthDayNano::new(
        i32::try_from(sum.months).ok()?,
        i32::try_from(sum.days).ok()?,
        sum.micros.checked_mul(1000)?,
    ))
}

#[derive(Default)]
struct Span {
    months: i64,
    days: i64,
    micros: i64,
}

impl Span {
    fn words(&mut self, text: &str) -> Option<()> {
        let mut words = text.split_ascii_whitespace().peekable();
        words.peek()?;
        let mut ago = false;
        while let Some(word) = words.next() {
            if word == "@" {
                continue;
            }
            if word.eq_ignore_ascii_case("ago") {
                ago = true;
            } else if word.contains(':') {
                let (negative, clock) = match word.as_bytes() {
                    [b'-', rest @ ..] => (true, rest),
                    [b'+', rest @ ..] => (false, rest),
                    all => (false, all),
                };
                let micros = long_clock(clock)?;
                self.micros = self.micros.checked_add(if negative { -micros } else { micros })?;
            } else {
                let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
                let unit = if split < word.len() { &word[split..] } else { words.next()? };
                self.add(&word[..split], unit)?;
            }
        }
        if ago {
            (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
        }
        Some(())
    }

    fn iso(&mut self, text: &str) -> Option<()> {
        let (mut rest, mut in_time) = (text, false);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            if let Some(time) = rest.strip_prefix(['T', 't']) {
                (rest, in_time) = (time, true);
                continue;
            }
            let split = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let unit = match rest.as_bytes()[split].to_ascii_uppercase() {
                b'Y' => "years",
                b'M' if in_time => "minutes",
                b'M' => "months",
                b'W' => "weeks",
                b'D' => "days",
                b'H' => "hours",
                b'S' => "seconds",
                _ => return None,
            };
            self.add(&rest[..split], unit)?;
            rest = &rest[split + 1..];
        }
        Some(())
    }

    fn add(&mut self, count: &str, unit: &str) -> Option<()> {
        let (millionths, _) = scaled(count.as_bytes(), 6)?;
        let millionths = i64::try_from(millionths).ok()?;
        let whole = || (millionths % 1_000_000 == 0).then_some(millionths / 1_000_000);
        let unit = unit.to_ascii_lowercase();
        let seconds = match unit.strip_suffix('s').filter(|u| u.len() > 1).unwrap_or(&unit) {
            "year" | "y" | "yr" => {
                self.months = self.months.checked_add(whole()?.checked_mul(12)?)?;
                return Some(());
            }
            "month" | "mon" => {
                self.months = self.months.checked_add(whole()?)?;
                return Some(());
            }
            "week" | "w" => {
                self.days = self.days.checked_add(whole()?.checked_mul(7)?)?;
                return Some(());
            }
            "day" | "d" => {
                self.days = self.days.checked_add(whole()?)?;
                return Some(());
            }
            "hour" | "h" | "hr" => 3600,
            "minute" | "min" | "m" => 60,
            "second" | "sec" | "s" => 1,
            "millisecond" | "ms" | "msec" => {
                self.micros = self.micros.checked_add(millionths / 1000)?;
                return Some(());
            }
            "microsecond" | "us" | "usec" => {
                self.micros = self.micros.checked_add(whole()?)?;
                return Some(());
            }
            _ => return None,
        };
        self.micros = self.micros.checked_add(millionths.checked_mul(seconds)?)?;
        Some(())
    }
}

/// `123:05:06.7`: as a time of day, with any number of hours.
fn long_clock(text: &[u8]) -> Option<i64> {
    let (hours, rest) = digits(text, 9)?;
    let mut rest_of_day = *b"00:00:00.000000";
    let rest = rest.get(..rest.len().min(13))?;
    rest_of_day[2..2 + rest.len()].copy_from_slice(rest);
    let (micros, left) = time_prefix(&rest_of_day[..2 + rest.len()])?;
    left.is_empty().then(|| hours * 3_600_000_000 + micros)
}

/// A byte string: `\x0aff`, or base64, appended to `out`.
pub(crate) fn bytes(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match text.strip_prefix(b"\\x") {
        Some(hex) => hexadecimal(hex, out),
        None => base64(text, out),
    }
}

fn hexadecimal(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    for pair in text.chunks_exact(2) {
        out.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    Some(())
}

/// Base64 of either alphabet, with or without padding.
fn base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0).then_some(())
}

/// A UUID in its canonical form: lower case, 8-4-4-4-12.
pub(crate) fn uuid(text: &[u8]) -> Option<[u8; 36]> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"{").and_then(|t| t.strip_suffix(b"}")).unwrap_or(text);
    let mut out = [b'-'; 36];
    let mut digits = text.iter().filter(|b| **b != b'-').map(u8::to_ascii_lowercase);
    for (i, place) in out.iter_mut().enumerate() {
        if !matches!(i, 8 | 13 | 18 | 23) {
            *place = digits.next().filter(u8::is_ascii_hexdigit)?;
        }
    }
    digits.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(integer(b"-42"), Some(-42));
        assert_eq!(integer(b"1e3"), Some(1000));
        assert_eq!(integer(b"1.50"), None);
        assert_eq!(integer(b"18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!(integer(b""), None);
        assert_eq!(integer(b"-"), None);
        assert_eq!(scaled(b"123.455", 2), Some((12_346, false)));
        assert_eq!(scaled(b"-.5", 0), Some((-1, false)));
        assert_eq!(scaled(b"0.004", 2), Some((0, false)));
        assert_eq!(scaled(b"1.5e-3", 4), Some((15, true)));
        assert_eq!(scaled(b"1e38", 0), None);
        assert_eq!(scaled(b"1e37", 0), Some((power_of_ten(37), true)));
        assert_eq!(scaled(b"1e999999999999999999999", 0), None);
        assert_eq!(scaled(b"0e999999999999999999999", 0), Some((0, true)));
        assert_eq!(scaled(b"1e-999999999999999999999", 0), Some((0, false)));
        assert_eq!(scaled(b".", 0), None);
        assert_eq!(scaled(b"1.2.3", 0), None);
    }

    #[test]
    fn times() {
        let start = 1_704_067_200_000_000;
        assert_eq!(timestamp(b"2024-01-01 00:00:00"), Some(start));
        assert_eq!(timestamp(b"2024-01-01T00:00:00.25Z"), Some(start + 250_000));
        assert_eq!(timestamp(b"2024-01-01 05:30:00+05:30"), Some(start));
        assert_eq!(timestamp(b"2024-01-01"), Some(start));
        assert_eq!(timestamp(b"2024-02-30 00:00:00"), None);
        assert_eq!(timestamp(b"2024-01-01 24:00:00"), None);
        assert_eq!(timestamp(b"0044-03-15 12:00:00 BC").map(|t| t < 0), Some(true));
        assert_eq!(date(b"2024-01-02"), Some(19_724));
        assert_eq!(date(b"2024-01-02 23:59:59"), Some(19_724));
        assert_eq!(time(b"05:15"), Some(18_900_000_000));
        let mut cache = DateCache::default();
        for _ in 0..2 {
            assert_eq!(timestamp_prefix(b"2024-01-01 00:00:01.5\"", &mut cache), Some((start + 1_500_000, 21)));
        }
        assert_eq!(timestamp_prefix(b"2024-01-01 00:00:0:", &mut cache), None);
        assert_eq!(timestamp_prefix(b"2024-01-01 00:61:00", &mut cache), None);
    }

    #[test]
    fn intervals_come_back_from_their_text() {
        for (months, days, nanos) in
            [(14, 3, 14_706_700_000_000), (-1, 1, -1_000_000_000), (0, 0, 0), (0, -1, 360_000_000_000_000)]
        {
            let value = IntervalMonthDayNano::new(months, days, nanos);
            let mut text = String::new();
            crate::pg_text::write_interval(value, &mut text);
            assert_eq!(interval(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!(interval(b"P1Y2M3DT4H5M6.5S"), Some(IntervalMonthDayNano::new(14, 3, 14_706_500_000_000)));
        assert_eq!(interval(b"90 minutes"), Some(IntervalMonthDayNano::new(0, 0, 5_400_000_000_000)));
        assert_eq!(interval(b"5 frogs"), None);
        assert_eq!(interval(b""), None);
    }

    #[test]
    fn byte_strings() {
        let decoded = |text: &[u8]| {
            let mut out = Vec::new();
            bytes(text, &mut out).map(|()| out)
        };
        assert_eq!(decoded(b"\\x00fF"), Some(vec![0, 255]));
        assert_eq!(decoded(b"aGk="), Some(b"hi".to_vec()));
        assert_eq!(decoded(b"\\x0"), None);
        assert_eq!(decoded(b"a!"), None);
        assert_eq!(
            uuid(b"A0EEBC999C0B4EF8BB6D6BB9BD380A11").as_ref().map(|u| &u[..]),
            Some(&b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"[..])
        );
        assert_eq!(uuid(b"nope"), None);
    }
}
