//! Paths on the command line.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use sdpoint::data::expand_home;

/// Parses a path. A leading `~` is the home folder: shells leave it as it is in
/// quotes and after `--option=`.
pub fn parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| expand_home(&path))
}
