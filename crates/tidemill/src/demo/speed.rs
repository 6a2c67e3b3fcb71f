//! How fast simulated time goes.

use std::fmt;
use std::str::FromStr;

/// Simulated microseconds per real second, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as the engine takes the rows.
    Max,
    /// This many simulated microseconds per second.
    PerSecond(i64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a speed: say 90m/s, 1h/s, 2d/s or max");
        let text = text.trim();
        if text == "max" {
            return Ok(Speed::Max);
        }
        let amount = text.strip_suffix("/s").unwrap_or(text);
        let digits = amount.len() - amount.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, unit) = amount.split_at(digits);
        let unit = match unit {
            "s" => 1,
            // A number alone is minutes.
            "m" | "min" | "" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let micros = (number * f64::from(unit) * 1e6).round();
        if (1.0..=1e15).contains(&micros) { Ok(Speed::PerSecond(micros as i64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Max => write!(f, "max"),
            Speed::PerSecond(micros) => write!(f, "{}m/s", *micros as f64 / 60e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("1h/s".parse(), Ok(Speed::PerSecond(3_600_000_000)));
        assert_eq!("0.5d/s".parse(), Ok(Speed::PerSecond(43_200_000_000)));
        assert_eq!("90m".parse(), Ok(Speed::PerSecond(5_400_000_000)));
        assert_eq!("2".parse(), Ok(Speed::PerSecond(120_000_000)));
        for wrong in ["", "fast", "0h/s", "-1h/s", "1y/s", "1.2.3h", "1e9h/s"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
