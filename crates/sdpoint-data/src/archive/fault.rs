//! What is wrong with an archive that cannot be read, in words of users.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::decode::kind::ImageKind;
use crate::error::{DataError, ImageError};
use crate::file::open_file;

/// The bytes at a file's start by which its kind is recognised.
const START: u64 = 1 << 16;

pub(super) fn malformed(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::Malformed {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The error of a header that cannot be read, after the member `last`.
pub(super) fn bad_header(path: &Path, error: io::Error, last: Option<&str>) -> DataError {
    if error.raw_os_error().is_some() {
        return DataError::io(path)(error);
    }
    let problem = match last {
        Some(last) => format!(
            "it is damaged: what follows the member `{last}` is no header of a member; get it again"
        ),
        None => match kind(path).as_deref() {
            None => "it is not a tar archive".to_owned(),
            Some(TAR) => "it is damaged: its first header is invalid; get it again".to_owned(),
            Some(kind) => format!("it is {kind}, not a tar archive"),
        },
    };
    malformed(path, problem)
}

/// The kind of tar archives.
const TAR: &str = "a tar archive";

/// What the file is, by its first bytes, with its article.
fn kind(path: &Path) -> Option<String> {
    let (file, _) = open_file(path).ok()?;
    let mut start = Vec::new();
    file.take(START).read_to_end(&mut start).ok()?;
    match ImageKind::of(&start) {
        Ok(kind) => Some(format!("a {kind} image")),
        Err(ImageError::Foreign { what, .. }) => Some(
            match start.starts_with(b"\x1f\x8b") {
                true => "a gzip file of something else",
                false => what,
            }
            .into(),
        ),
        Err(_) => is_text(&start).then(|| "a text file".into()),
    }
}

/// Whether it is UTF-8 without control characters. The last character may be cut.
fn is_text(start: &[u8]) -> bool {
    let valid = match std::str::from_utf8(start) {
        Ok(_) => start.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => 0,
    };
    let is_plain = |byte: &u8| *byte >= b' ' || byte.is_ascii_whitespace();
    valid > 0 && start[..valid].iter().all(is_plain)
}

/// The error of gzip data that cannot be decompressed.
pub(super) fn bad_gzip(path: &Path, error: io::Error) -> DataError {
    let problem = match error.kind() {
        _ if error.raw_os_error().is_some() => return DataError::io(path)(error),
        ErrorKind::UnexpectedEof => {
            "it is truncated: its compressed data ends too early; get it again".to_owned()
        }
        // From `Gunzip`.
        ErrorKind::Other => error.to_string(),
        _ => "it is damaged: its compressed data is invalid; get it again".to_owned(),
    };
    malformed(path, problem)
}
