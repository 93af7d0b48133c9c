//! Downsampling ratios.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The share of each side of the feature map that downsampling keeps: a number
/// strictly between 0 and 1. The paper uses {0.5, 0.75}.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

/// The error for a ratio that is not a number strictly between 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a ratio: give a number above 0 and below 1, such as 0.5{}", .0, suggestion(.0))]
pub struct RatioError(String);

/// The ratio that was probably meant by a percentage.
fn suggestion(text: &str) -> String {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if percent > 1.0 && percent < 100.0 => {
            format!("; did you mean {}?", percent / 100.0)
        }
        _ => String::new(),
    }
}

impl Ratio {
    /// The two ratios of the paper.
    pub const DEFAULT: [Ratio; 2] = [Ratio(0.5), Ratio(0.75)];

    /// Creates a ratio.
    ///
    /// # Errors
    /// If `value` is not strictly between 0 and 1.
    pub fn new(value: f64) -> Result<Self, RatioError> {
        if value > 0.0 && value < 1.0 {
            Ok(Self(value))
        } else {
            Err(RatioError(value.to_string()))
        }
    }

    /// The ratio as a number.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The downsampled size of a side of `size` pixels: `size · ratio` rounded
    /// half to even, and at least 1.
    pub fn apply(self, size: usize) -> usize {
        ((size as f64 * self.0).round_ties_even() as usize).max(1)
    }
}

// A ratio is never NaN, zero or negative, so equality is an equivalence
// relation and ordering by bits is ordering by value.
impl Eq for Ratio {}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Ratio {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ratio {
    type Err = RatioError;

    fn from_str(text: &str) -> Result<Self, RatioError> {
        text.trim()
            .parse()
            .ok()
            .and_then(|value| Self::new(value).ok())
            .ok_or_else(|| RatioError(text.to_owned()))
    }
}

impl TryFrom<f64> for Ratio {
    type Error = RatioError;

    fn try_from(value: f64) -> Result<Self, RatioError> {
        Self::new(value)
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> f64 {
        ratio.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_round_to_even() {
        let half = Ratio::new(0.5).unwrap();
        assert_eq!(half.apply(21), 10);
        assert_eq!(half.apply(7), 4);
        assert_eq!(half.apply(1), 1);
        assert_eq!(Ratio::new(0.75).unwrap().apply(14), 10);
    }

    #[test]
    fn invalid_ratios_are_refused() {
        for text in ["0", "1", "-0.5", "1.5", "nan", "inf", "half", ""] {
            let error = text.parse::<Ratio>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("above 0"), "{error}");
        }
        assert_eq!("0.35".parse::<Ratio>().unwrap().to_string(), "0.35");
    }

    proptest! {
        #[test]
        fn a_side_shrinks_but_never_vanishes(size in 1usize..5000, ratio in 0.001f64..0.999) {
            let kept = Ratio::new(ratio).unwrap().apply(size);
            prop_assert!(kept >= 1 && kept <= size);
        }

        #[test]
        fn a_larger_ratio_keeps_no_less(size in 1usize..5000, a in 0.001f64..0.999, b in 0.001f64..0.999) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(Ratio::new(low).unwrap().apply(size) <= Ratio::new(high).unwrap().apply(size));
        }
    }
}
