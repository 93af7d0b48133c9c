//! Training methods by name: those of the library, and `thrifty`.

use std::str::FromStr;

use sdpoint::train::{Draw, Method};

/// A method, and its default distribution of instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedMethod {
    pub method: Method,
    pub draw: Draw,
}

impl FromStr for NamedMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "thrifty" {
            return Ok(Self {
                method: Method::SdPoint,
                draw: Draw::THRIFTY,
            });
        }
        let method = text.parse().map_err(|_| {
            format!("'{text}' is not a method: use sdpoint, thrifty, plain or sandwich")
        })?;
        Ok(Self {
            method,
            draw: Draw::default(),
        })
    }
}
