//! Budgets, and how they are written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Choice;
use crate::cost::format_macs;
use crate::instance::Instance;

/// What an inference may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Budget {
    /// A share of the dearest instance's multiply-accumulates, above 0 and at
    /// most 1.
    Share(f64),
    /// A number of multiply-accumulates.
    Macs(u64),
    /// A time on this machine.
    Latency(Duration),
    /// Whatever it costs to be right on this share of the test images, from
    /// 0 to 1.
    MinAccuracy(f64),
    /// Whatever this instance costs.
    Instance(Instance),
}

impl From<Instance> for Budget {
    fn from(instance: Instance) -> Self {
        Self::Instance(instance)
    }
}

impl From<&Choice> for Budget {
    fn from(choice: &Choice) -> Self {
        Self::Instance(choice.instance)
    }
}

/// Text that is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Text of no known form.
    #[error(
        "'{0}' is not a budget: give a share such as 50% or 0.5, \
         multiply-accumulates such as 20M or 1.5G, a time such as 8ms, \
         an accuracy such as >=80%, or an instance such as 3@0.5"
    )]
    Form(String),
    /// A share that is nothing or more than everything.
    #[error("'{0}' is not a share: it must be above 0% and at most 100%")]
    Share(String),
    /// Text that is no number of multiply-accumulates.
    #[error("'{0}' is not a number of multiply-accumulates: give one such as 3000000, 20M or 1.5G")]
    Macs(String),
    /// Text that is no time, or none at all.
    #[error("'{0}' is not a time: give one such as 8ms, 500us or 0.1s")]
    Duration(String),
}

/// Reads a time with its unit: `8ms`, `500us`, `0.1s`.
///
/// # Errors
/// If the text is no such time, or nothing.
pub fn parse_duration(text: &str) -> Result<Duration, BudgetError> {
    let bad = || BudgetError::Duration(text.to_owned());
    let trimmed = text.trim();
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(name, unit)| Some((trimmed.strip_suffix(name)?, unit)))
        .ok_or_else(bad)?;
    let seconds = decimal(digits.trim_end()).ok_or_else(bad)? * unit;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(bad)
}

/// A time in three digits: `8.31 ms`.
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 999.5e-6 => (s * 1e6, "us"),
        s if s < 999.5e-3 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// Reads an accuracy: `80%` or `0.8`.
///
/// # Errors
/// If the text is no share above 0 and at most 1.
pub fn parse_accuracy(text: &str) -> Result<f64, BudgetError> {
    let bad = || BudgetError::Share(text.to_owned());
    let trimmed = text.trim();
    let value = match trimmed.strip_suffix('%') {
        Some(percent) => decimal(percent.trim_end()).map(|value| value / 100.0),
        None => decimal(trimmed),
    };
    value
        .filter(|value| *value > 0.0 && *value <= 1.0)
        .ok_or_else(bad)
}

/// Reads a number of multiply-accumulates: `3000000`, `800k`, `20M`, `1.5G`.
///
/// # Errors
/// If the text is no such number, or less than one.
pub fn parse_macs(text: &str) -> Result<u64, BudgetError> {
    let bad = || BudgetError::Macs(text.to_owned());
    let trimmed = text.trim();
    let (digits, unit) = match trimmed.char_indices().next_back() {
        Some((end, last)) if last.is_ascii_alphabetic() => {
            let unit = match last.to_ascii_lowercase() {
                'k' => 1e3,
                'm' => 1e6,
                'g' => 1e9,
                't' => 1e12,
                _ => return Err(bad()),
            };
            (&trimmed[..end], unit)
        }
        _ => return trimmed.parse().ok().filter(|&n| n > 0).ok_or_else(bad),
    };
    let macs = decimal(digits).ok_or_else(bad)? * unit;
    if (1.0..u64::MAX as f64).contains(&macs) {
        Ok(macs.round() as u64)
    } else {
        Err(bad())
    }
}

/// A number in plain decimal notation, so that `inf`, `nan` and `1e9` are not
/// taken for one.
fn decimal(text: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if text.bytes().all(plain) {
        text.parse().ok()
    } else {
        None
    }
}

impl FromStr for Budget {
    type Err = BudgetError;

    /// Reads `50%`, `0.5`, `20M`, `3000000`, `8ms`, `>=80%`, `3@0.5` or
    /// `full`. A bare number of at most 1 is a share.
    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let text = text.trim();
        let share = |value: f64| {
            if value > 0.0 && value <= 1.0 {
                Ok(Self::Share(value))
            } else {
                Err(BudgetError::Share(text.to_owned()))
            }
        };
        if let Some(least) = text.strip_prefix(">=") {
            return parse_accuracy(least)
                .map(Self::MinAccuracy)
                .map_err(|_| BudgetError::Share(text.to_owned()));
        }
        if text.ends_with('%') {
            return parse_accuracy(text).map(Self::Share);
        }
        if text.ends_with('s') {
            return parse_duration(text).map(Self::Latency);
        }
        if let Some(value) = decimal(text)
            && value <= 1.0
        {
            return share(value);
        }
        if let Ok(instance) = text.parse() {
            return Ok(Self::Instance(instance));
        }
        parse_macs(text)
            .map(Self::Macs)
            .map_err(|_| BudgetError::Form(text.to_owned()))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{}%", (share * 1e4).round() / 100.0),
            Self::Macs(macs) => write!(f, "{} MACs", format_macs(*macs)),
            Self::Latency(time) => f.write_str(&format_duration(*time)),
            Self::MinAccuracy(least) => write!(f, ">={}%", (least * 1e4).round() / 100.0),
            Self::Instance(instance) => instance.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_users_write_them() {
        for (text, budget) in [
            ("50%", Budget::Share(0.5)),
            (" 12.5 % ", Budget::Share(0.125)),
            ("0.5", Budget::Share(0.5)),
            ("1", Budget::Share(1.0)),
            ("100%", Budget::Share(1.0)),
            ("20M", Budget::Macs(20_000_000)),
            ("1.5G", Budget::Macs(1_500_000_000)),
            ("1.5g", Budget::Macs(1_500_000_000)),
            ("800k", Budget::Macs(800_000)),
            ("3000000", Budget::Macs(3_000_000)),
            ("8ms", Budget::Latency(Duration::from_millis(8))),
            ("0.5 s", Budget::Latency(Duration::from_millis(500))),
            ("250us", Budget::Latency(Duration::from_micros(250))),
            (">=80%", Budget::MinAccuracy(0.8)),
            (">=0.8", Budget::MinAccuracy(0.8)),
            ("full", Budget::Instance(Instance::Full)),
            ("3@0.5", Budget::Instance("3@0.5".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Budget>().unwrap(), budget, "{text}");
        }
    }

    #[test]
    fn what_is_no_budget_is_refused() {
        for text in [
            "0",
            "0%",
            "101%",
            "-5%",
            "nan",
            "inf",
            "",
            "%",
            "M",
            ".",
            "1.5",
            "1e9",
            "20X",
            "-3M",
            "nanG",
            "3@1.5",
            "99999999999T",
            "0ms",
            "ms",
            "8 m s",
            "99999999999999999999999s",
            ">=101%",
            ">=",
            "٣M",
        ] {
            let error = text.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains(text), "{text}: {error}");
        }
        assert!(parse_macs("0.5").is_err());
        assert_eq!(parse_macs("1").unwrap(), 1);
    }

    #[test]
    fn budgets_are_shown_short() {
        assert_eq!(Budget::Share(0.07).to_string(), "7%");
        assert_eq!(Budget::Macs(20_000_000).to_string(), "20.0M MACs");
        assert_eq!(Budget::MinAccuracy(0.8).to_string(), ">=80%");
        for (micros, text) in [(7, "7.00 us"), (8_314, "8.31 ms"), (999_600, "1.00 s")] {
            let time = Duration::from_micros(micros);
            assert_eq!(Budget::Latency(time).to_string(), text);
        }
    }
}
