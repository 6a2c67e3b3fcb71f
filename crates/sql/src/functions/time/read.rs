//! Timestamps as people write them: `2024-01-01 10:00`, with or without seconds, a zone or an offset.

use chrono::{NaiveDate, NaiveTime};

use super::zone::Zone;

/// Reads a timestamp in microseconds. An offset or a zone counts only where it is asked for; without one a
/// time is in UTC.
pub(crate) fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "epoch" => return Some(0),
        "" => return None,
        _ => {}
    }
    let date_end = text.find([' ', 'T', 't']).unwrap_or(text.len());
    let date = date(&text[..date_end])?;
    let rest = text[date_end..].trim_start_matches(['T', 't']).trim();
    let clock_end = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(rest.len());
    let (clock_text, zone) = rest.split_at(clock_end);
    let local = date.and_time(if clock_text.is_empty() { NaiveTime::MIN } else { clock(clock_text)? });
    let zone = zone.trim();
    let micros = local.and_utc().timestamp_micros();
    if zone.is_empty() {
        return Some(micros);
    }
    let utc = match offset(zone) {
        Some(seconds) => micros.checked_sub(i64::from(seconds) * 1_000_000)?,
        None => Zone::parse(zone).ok()?.utc(local).ok()?,
    };
    Some(if zoned { utc } else { micros })
}

/// `2024-01-31`, `20240131`, `2024/1/31`.
fn date(text: &str) -> Option<NaiveDate> {
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        return NaiveDate::from_ymd_opt(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?);
    }
    let mut parts = text.split(['-', '/']);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() < 3 {
        return None;
    }
    NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
}

/// `10:00`, `10:00:05`, `10:00:05.123456`.
fn clock(text: &str) -> Option<NaiveTime> {
    let mut parts = text.split(':');
    let (hour, minute) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (second, micros) = match parts.next() {
        None => (0, 0),
        Some(seconds) => {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            let digits = fraction.get(..fraction.len().min(6))?;
            let micros: u32 = format!("{digits:0<6}").parse().ok()?;
            let up = u32::from(fraction.as_bytes().get(6).is_some_and(|digit| *digit >= b'5') && micros < 999_999);
            (whole.parse().ok()?, micros + up)
        }
    };
    NaiveTime::from_hms_micro_opt(hour, minute, second, micros).filter(|_| parts.next().is_none())
}

/// `+02`, `-0530`, `+05:30`, `Z` in seconds east.
pub(super) fn offset(text: &str) -> Option<i32> {
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("gmt") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let plain: String = digits.chars().filter(|c| *c != ':').collect();
    if plain.is_empty() || plain.len() > 6 || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let plain = if plain.len() % 2 == 1 { format!("0{plain}") } else { plain };
    let part = |at: usize| plain.get(at..at + 2).map_or(Some(0), |digits| digits.parse::<i32>().ok());
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    (hours <= 15 && minutes < 60 && seconds < 60).then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read() {
        let ten = 1_704_103_200_000_000;
        for (text, zoned, expected) in [
            ("2024-01-01 10:00", false, Some(ten)),
            ("2024-01-01T10:00:00.5Z", true, Some(ten + 500_000)),
            ("2024-01-01 12:00+02", true, Some(ten)),
            ("2024-01-01 12:00+02", false, Some(ten + 7_200_000_000)),
            ("2024-01-01 11:00 Europe/Berlin", true, Some(ten)),
            ("20240101 10:00:00", false, Some(ten)),
            ("2024-02-30", false, None),
            ("2024-01-01 25:00", false, None),
            ("2024-01-01 10:00 nowhere", true, None),
            ("today-ish", false, None),
        ] {
            assert_eq!(timestamp(text, zoned), expected, "{text}");
        }
    }
}
