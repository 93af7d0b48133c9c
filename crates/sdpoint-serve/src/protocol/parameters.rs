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

    /// The value as a whole number of at least zero.
    pub fn count(&self, name: &str) -> Result<u64, ApiError> {
        let number = match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Uint(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            Self::Double(_) | Self::Bool(_) => None,
        };
        number.ok_or_else(|| self.wrong(name, "a whole number of at least 0"))
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
