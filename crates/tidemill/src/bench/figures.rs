//! How measurements are written.

use crate::output;

/// What was measured, to the standard output.
#[expect(clippy::print_stdout, reason = "the measurements are the command's output")]
pub fn print(text: &str) {
    print!("{text}");
}

/// A table of which the first `texts` columns hold text, the others numbers (checksums aside).
pub fn table(names: &[&str], rows: Vec<Vec<Option<String>>>, texts: usize) -> String {
    let right = (0..names.len()).map(|i| i >= texts && !["SHA-256", "checksum"].contains(&names[i])).collect();
    output::table(names.iter().map(ToString::to_string).collect(), rows, right)
}

/// A whole number with commas.
pub fn thousands(number: f64) -> String {
    if !number.is_finite() {
        return "-".into();
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(thousands(1_234_567.2), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(f64::INFINITY), "-");
    }
}
