//! Budgets, and how they are written.

use std::fmt;
use std::str::FromStr;

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
    /// Whatever this instance costs.
    Instance(Instance),
}

/// Text that is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Text of no known form.
    #[error(
        "'{0}' is not a budget: give a share such as 50% or 0.5, \
         multiply-accumulates such as 20M or 1.5G, or an instance such as 3@0.5"
    )]
    Form(String),
    /// A share that is nothing or more than everything.
    #[error("'{0}' is not a share: it must be above 0% and at most 100%")]
    Share(String),
    /// Text that is no number of multiply-accumulates.
    #[error("'{0}' is not a number of multiply-accumulates: give one such as 3000000, 20M or 1.5G")]
    Macs(String),
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

    /// Reads `50%`, `0.5`, `20M`, `3000000`, `3@0.5` or `full`. A bare number
    /// of at most 1 is a share.
    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let text = text.trim();
        let share = |value: f64| {
            if value > 0.0 && value <= 1.0 {
                Ok(Self::Share(value))
            } else {
                Err(BudgetError::Share(text.to_owned()))
            }
        };
        if let Some(percent) = text.strip_suffix('%') {
            let value = decimal(percent.trim_end());
            let value = value.ok_or_else(|| BudgetError::Share(text.to_owned()))?;
            return share(value / 100.0);
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
    }
}
