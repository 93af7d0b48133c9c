//! Reading of regular files only, up to a limit of size.

use std::fs::{self, File, FileType};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::DataError;

/// The largest file that [`read_file`] reads, in bytes.
pub const MAX_FILE: u64 = 256 << 20;

/// Why a file was not read. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system's error.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe, a socket or a device.
    #[error("is {0}, not a file")]
    NotAFile(&'static str),
    /// A file beyond the limit.
    #[error("has more than {0} bytes, the most that is read")]
    TooLarge(u64),
}

/// Reads a file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// If the file is missing, larger, or not a regular file. Pipes and devices are
/// not opened, as opening a pipe would block and a device may have no end.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    read_file_up_to(path, MAX_FILE)
}

/// As [`read_file`], with another limit.
pub(crate) fn read_file_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let (file, len) = open_regular(path)?;
    if len > limit {
        return Err(FileError::TooLarge(limit));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    // A file may grow while it is read.
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge(limit));
    }
    Ok(bytes)
}

/// Reads `len` bytes from `offset`, which the caller has checked against the
/// file's length. Opens the file on each call, so that any number of threads may
/// read it, and many archives do not need as many open files.
pub(crate) fn read_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
    let (mut file, _) = open_regular(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file and returns its length.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    open_regular(path).map_err(DataError::file(path))
}

fn open_regular(path: &Path) -> Result<(File, u64), FileError> {
    // Opening a pipe blocks until it has a writer, so check the kind first.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(kind(metadata.file_type())));
    }
    Ok((File::open(path)?, metadata.len()))
}

fn kind(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "a device"
}
