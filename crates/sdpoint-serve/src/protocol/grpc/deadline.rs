//! Parses the header `grpc-timeout`.

use std::time::Duration;

/// Longer timeouts are shortened to this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Parses a timeout: up to eight digits and a unit.
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let counts = (1..=8).contains(&digits.len()) && digits.bytes().all(|d| d.is_ascii_digit());
    let count: u64 = if counts {
        digits.parse().ok()?
    } else {
        return None;
    };
    let time = match unit {
        "H" => Duration::from_secs(3600 * count),
        "M" => Duration::from_secs(60 * count),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, time) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("50m", Duration::from_millis(50)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
            ("99999999H", LONGEST),
        ] {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        for text in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "123456789S",
            "5 S",
            "5é",
            "1.5S",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
