//! Reading of files, which all are regular ones; see [`sdpoint_core::file`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sdpoint_core::file::{FileError, open, read};

use crate::error::DataError;

/// The largest file that [`read_file`] reads, in bytes.
pub const MAX_FILE: u64 = 256 << 20;

/// Reads a file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// If the file is missing, larger, or not a regular file. Pipes and devices are
/// not opened, as opening a pipe would block and a device may have no end.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, MAX_FILE)
}

/// Reads `len` bytes from `offset`, which the caller has checked against the
/// file's length. Opens the file on each call, so that any number of threads may
/// read it, and many archives do not need as many open files.
pub(crate) fn read_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
    let (mut file, _) = open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file and returns its length.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    open(path).map_err(DataError::file(path))
}
