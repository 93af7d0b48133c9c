//! Methods by name: the library's, and what is recommended besides.

use std::str::FromStr;

use sdpoint::train::{Draw, Method};

/// A method, and how it draws instances unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    pub method: Method,
    pub draw: Draw,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "thrifty" {
            return Ok(Self {
                method: Method::SdPoint,
                draw: Draw::THRIFTY,
            });
        }
        let method = text.parse().map_err(|_| {
            format!("'{text}' is not a method: write sdpoint, thrifty, plain or sandwich")
        })?;
        Ok(Self {
            method,
            draw: Draw::default(),
        })
    }
}
