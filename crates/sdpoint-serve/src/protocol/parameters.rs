//! Parameters of requests, of their tensors and of answers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use axum::http::Uri;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::error::{ApiError, quoted};

/// Parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// Adds a parameter.
///
/// # Errors
/// If there is one of this name already: neither value may be dropped silently, because either
/// may be a limit.
pub fn add(parameters: &mut Parameters, name: String, value: Parameter) -> Result<(), ApiError> {
    match parameters.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value);
            Ok(())
        }
        Entry::Occupied(entry) => Err(twice(entry.key())),
    }
}

/// The error of a parameter that a request has twice.
pub fn twice(name: &str) -> ApiError {
    ApiError::invalid(format!("parameter {} is given twice", quoted(name)))
}

/// The names and values in the query of an address.
pub fn query(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned()))
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond the range of i64.
    Uint(u64),
    /// Any number.
    Double(f64),
    /// Text.
    Text(String),
}

// Not derived: for an untagged enum, that reads the whole value into memory first, many times its
// text if it is a list.
impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;

        impl Visitor<'_> for Scalar {
            type Value = Parameter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, a number or a string")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter::Int(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Parameter, E> {
                Ok(Parameter::from(value))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter::Double(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter::from(value))
            }
        }

        deserializer.deserialize_any(Scalar)
    }
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Parameter {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Uint(number), Self::Int)
    }
}

/// A number without a fraction, of at least zero and exact as a float.
fn whole(number: f64) -> Option<u64> {
    const EXACT: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
    let fits = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
    fits.then_some(number as u64)
}

impl Parameter {
    /// The value as text, as on a command line.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }

    /// The value as a boolean. Forms send it as text.
    pub fn truth(&self, name: &str) -> Result<bool, ApiError> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Text(text) if text == "true" => Ok(true),
            Self::Text(text) if text == "false" => Ok(false),
            _ => Err(self.wrong(name, "true or false")),
        }
    }

    /// The value as a whole number of at least `least`.
    pub fn count(&self, name: &str, least: u64) -> Result<u64, ApiError> {
        let number = match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Uint(value) => Some(*value),
            // Many languages write whole numbers as 2.0 or 2e7, too.
            Self::Double(value) => whole(*value),
            Self::Text(text) => {
                let number = || text.parse().ok().and_then(whole);
                text.parse().ok().or_else(number)
            }
            Self::Bool(_) => None,
        };
        number
            .filter(|&number| number >= least)
            .ok_or_else(|| self.wrong(name, &format!("a whole number of at least {least}")))
    }

    /// The value as a finite number.
    pub fn number(&self, name: &str) -> Result<f64, ApiError> {
        let number = match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            Self::Bool(_) => None,
        };
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong(name, "a number"))
    }

    fn wrong(&self, name: &str, expected: &str) -> ApiError {
        let shown = quoted(&self.text());
        ApiError::invalid(format!(
            "parameter '{name}' is {shown}; it must be {expected}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_in_any_notation() {
        let doubles = [2.0, 2e7].map(Parameter::Double);
        let texts = ["2", "2.0", "2e7"].map(Parameter::from);
        let counts = [doubles.as_slice(), &texts].concat();
        let counts = counts.iter().map(|value| value.count("top", 1).unwrap());
        assert_eq!(
            counts.collect::<Vec<u64>>(),
            [2, 20_000_000, 2, 2, 20_000_000]
        );
        for bad in [0.0, -1.0, 1.5, 1e300, f64::NAN, f64::INFINITY].map(Parameter::Double) {
            let error = bad.count("top", 1).unwrap_err().message;
            assert!(error.contains("at least 1"), "{error}");
        }
        for bad in ["0", "-1", "1.5", "1e300", "nan", "inf", "", "two"] {
            assert!(Parameter::from(bad).count("top", 1).is_err(), "{bad}");
        }
        assert_eq!(Parameter::Int(0).count("timeout", 0), Ok(0));
    }
}
