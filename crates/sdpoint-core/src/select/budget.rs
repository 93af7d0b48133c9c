//! Budgets and their text form.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Choice;
use crate::cost::{format_macs, format_macs_to};
use crate::instance::Instance;

/// A limit on the cost of an inference, or an instance by name.
///
/// ```
/// use std::time::Duration;
///
/// use sdpoint_core::Budget;
///
/// assert_eq!("50%".parse(), Ok(Budget::Share(0.5)));
/// assert_eq!("20M".parse(), Ok(Budget::Macs(20_000_000)));
/// assert_eq!("8ms".parse(), Ok(Budget::Latency(Duration::from_millis(8))));
/// assert_eq!(">=80%".parse(), Ok(Budget::MinAccuracy(0.8)));
/// assert!(matches!("3@0.5".parse(), Ok(Budget::Instance(_))));
/// assert!("50".parse::<Budget>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Budget {
    /// A share of the most expensive instance's multiply-accumulates, above 0
    /// and at most 1.
    Share(f64),
    /// A number of multiply-accumulates per image.
    Macs(u64),
    /// A latency on this machine.
    Latency(Duration),
    /// The least cost with at least this recorded top-1 accuracy
    /// ([`Record::top1`](crate::Record::top1)), from 0 to 1.
    MinAccuracy(f64),
    /// This instance.
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

/// Text that is not a valid budget; holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The text has no known form.
    #[error(
        "'{0}' is not a budget: give a share such as 50% or 0.5, \
         multiply-accumulates such as 20M or 1.5G, a time such as 8ms, \
         an accuracy such as >=80%, or an instance such as 3@0.5"
    )]
    Form(String),
    /// A share that is not above 0 and at most 1.
    #[error("'{}' is not a share: it must be above 0% and at most 100%{}", .0, suggestion(.0))]
    Share(String),
    /// A number without a unit, too small for a number of multiply-accumulates
    /// and too large for a share.
    #[error(
        "'{0}' has no unit: did you mean {0}% of the full network's cost? \
         A number of multiply-accumulates is written such as 20M or 1.5G"
    )]
    NoUnit(String),
    /// The text is not a number of multiply-accumulates.
    #[error("'{0}' is not a number of multiply-accumulates: give one such as 3000000, 20M or 1.5G")]
    Macs(String),
    /// The text is not a positive time.
    #[error("'{}' is not a time: give one such as 8ms, 500us or 0.1s{}", .0, time_suggestion(.0))]
    Duration(String),
}

/// A suggestion for a share without a percent sign.
fn suggestion(text: &str) -> String {
    match decimal(text.trim().trim_start_matches(">=")) {
        Some(value) if value > 1.0 && value <= 100.0 => {
            format!("; did you mean {}%?", text.trim())
        }
        _ => String::new(),
    }
}

/// A suggestion for a time without a unit.
fn time_suggestion(text: &str) -> String {
    match decimal(text.trim()) {
        Some(value) if value > 0.0 => format!("; did you mean {}ms?", text.trim()),
        _ => String::new(),
    }
}

/// Parses a time with its unit: `8ms`, `500us`, `0.1s`.
///
/// # Errors
/// If the text is not such a time, or the time is zero.
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

/// Formats a time with three significant digits: `8.31 ms`.
pub fn format_duration(time: Duration) -> String {
    format_duration_to(time, 3)
}

/// Formats a time with `digits` significant digits, at least three.
fn format_duration_to(time: Duration, digits: usize) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 999.5e-6 => (s * 1e6, "us"),
        s if s < 999.5e-3 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let before = match value {
        v if v < 9.995 => 1,
        v if v < 99.95 => 2,
        _ => 3,
    };
    let behind = digits.saturating_sub(before);
    format!("{value:.behind$} {unit}")
}

/// Parses an accuracy: `80%` or `0.8`.
///
/// # Errors
/// If the text is not a share above 0 and at most 1.
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

/// Parses a number of multiply-accumulates: `3000000`, `800k`, `20M`, `1.5G`,
/// and any of these followed by `MACs`.
///
/// # Errors
/// If the text is not such a number, or it is less than one.
pub fn parse_macs(text: &str) -> Result<u64, BudgetError> {
    let bad = || BudgetError::Macs(text.to_owned());
    let trimmed = without_unit(text).unwrap_or(text).trim();
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

/// The text before a final `MACs`.
fn without_unit(text: &str) -> Option<&str> {
    let trimmed = text.trim_end();
    let at = trimmed.len().checked_sub("MACs".len())?;
    let unit = trimmed.get(at..)?;
    unit.eq_ignore_ascii_case("MACs").then(|| &trimmed[..at])
}

/// Parses a number in plain decimal notation; `inf`, `nan` and `1e9` are
/// rejected.
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

    /// Parses `50%`, `0.5`, `20M`, `3000000`, `8ms`, `>=80%`, `3@0.5` or
    /// `full`. A bare number of at most 1 is a share. One between 1 and 100 is
    /// rejected, as it is more likely a percentage than a number of
    /// multiply-accumulates, which can be written as `50 MACs`.
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
        if without_unit(text).is_some() {
            return parse_macs(text).map(Self::Macs);
        }
        if text.ends_with('s') {
            return parse_duration(text).map(Self::Latency);
        }
        match decimal(text) {
            Some(value) if value <= 1.0 => return share(value),
            Some(value) if value <= 100.0 => return Err(BudgetError::NoUnit(text.to_owned())),
            _ => {}
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
            Self::Share(share) => f.write_str(&percent(*share, 2)),
            Self::Macs(macs) => write!(f, "{} MACs", format_macs(*macs)),
            Self::Latency(time) => f.write_str(&format_duration(*time)),
            Self::MinAccuracy(least) => write!(f, ">={}", percent(*least, 2)),
            Self::Instance(instance) => instance.fmt(f),
        }
    }
}

impl Budget {
    /// The budget with enough digits to distinguish it from `enough`, a
    /// sufficient budget: with three digits, 21.96M and 22.0M would both read
    /// 22.0M.
    pub(super) fn distinct_from(&self, enough: &Budget) -> String {
        let enough = enough.to_string();
        let text = |more: usize| match self {
            Self::Share(share) => percent(*share, 2 + more),
            Self::MinAccuracy(least) => format!(">={}", percent(*least, 2 + more)),
            Self::Macs(macs) => format!("{} MACs", format_macs_to(*macs, 3 + more)),
            Self::Latency(time) => format_duration_to(*time, 3 + more),
            Self::Instance(instance) => instance.to_string(),
        };
        let longer = (1..=12).map(text).find(|text| {
            // Rounding towards `enough` could make it sufficient.
            *text != enough && !text.parse().is_ok_and(|shown| self.is_less_than(&shown))
        });
        Some(text(0))
            .filter(|short| *short != enough)
            .or(longer)
            .unwrap_or(enough)
    }

    /// Whether another budget of the same kind allows more instances.
    fn is_less_than(&self, other: &Budget) -> bool {
        match (self, other) {
            (Self::Share(a), Self::Share(b)) => a < b,
            (Self::Macs(a), Self::Macs(b)) => a < b,
            (Self::Latency(a), Self::Latency(b)) => a < b,
            (Self::MinAccuracy(a), Self::MinAccuracy(b)) => a > b,
            _ => false,
        }
    }
}

/// A share in per cent with at most so many digits behind the point.
pub(super) fn percent(share: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", 100.0 * share);
    let short = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{short}%")
}

#[cfg(test)]
mod tests;
