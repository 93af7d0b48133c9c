//! Errors of JSON in the words of JSON and with the name of the field, instead of serde's.

use std::fmt::Display;

use serde::de::{Deserialize, Deserializer, Error};

use super::super::super::error::{ApiError, quoted};

/// The error of a request that is not valid JSON or has a field of a wrong type.
pub fn invalid(error: &serde_json::Error) -> ApiError {
    let problem = words("the JSON", error);
    ApiError::invalid(format!("the request is not valid: {problem}"))
}

/// The error of a value with its name.
pub fn named<E: Error>(name: &str, error: &E) -> E {
    E::custom(words(name, error))
}

/// Says what a value must be, if it is of a wrong type, and what is wrong with an object's keys;
/// other errors are understood as they are. A position at the end is kept, because `serde_json`
/// reads it from there.
fn words(name: &str, error: &impl Display) -> String {
    let text = error.to_string();
    let unknown = text.strip_prefix("unknown field `");
    if let Some((key, known)) = unknown.and_then(|rest| rest.rsplit_once("`, expected ")) {
        let known = known.replace('`', "'");
        return format!("unknown key {} in {name}, expected {known}", quoted(key));
    }
    if let Some(key) = text.strip_prefix("missing field ") {
        return format!("{name} has no {}", key.replace('`', "'"));
    }
    if let Some(key) = text.strip_prefix("duplicate field ") {
        return format!("{name} has more than one {}", key.replace('`', "'"));
    }
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let wrong = kinds.iter().find_map(|kind| text.strip_prefix(kind));
    let Some((found, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) else {
        return text;
    };
    let (expected, position) = match expected.split_once(" at line ") {
        Some((expected, position)) => (expected, format!(" at line {position}")),
        None => (expected, String::new()),
    };
    let expected = match expected {
        "u64" => "a list of whole numbers of at least 0",
        "a boolean" => "true or false",
        "a map" => "an object",
        expected => expected,
    };
    let found = match found.split_once(' ') {
        _ if found == "map" => "an object",
        _ if found == "sequence" => "a list",
        // What a client has sent may be long.
        Some(("string", _)) => "a string",
        _ if text.starts_with("invalid length") => &format!("one of {found}"),
        // A value in quotes after the name of its type.
        _ => found.split('`').nth(1).unwrap_or(found),
    };
    format!("{name} must be {expected}, not {found}{position}")
}

/// Defines functions that parse fields and name them in errors.
macro_rules! fields {
    ($($function:ident: $name:literal,)*) => {
        $(
            pub fn $function<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<T, D::Error> {
                T::deserialize(deserializer).map_err(|error| named($name, &error))
            }
        )*
    };
}

fields! {
    id: "'id'",
    inputs: "'inputs'",
    outputs: "'outputs'",
    parameters: "'parameters'",
    name: "'name'",
    shape: "'shape'",
    datatype: "'datatype'",
    data: "'data'",
    ready: "'ready'",
}
