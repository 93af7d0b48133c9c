//! Reading files without being held up by them: what is no ordinary file is
//! never opened, and no more is read than is allowed.

use std::fs::{self, File, FileType};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::DataError;

/// The largest file that [`read_file`] reads, in bytes.
pub const MAX_FILE: u64 = 256 << 20;

/// Why a file was not read. The file's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe, a socket or a device.
    #[error("is {0}, not a file")]
    NotAFile(&'static str),
    /// A file beyond the limit.
    #[error("has more than {0} bytes, the most that is read")]
    TooLarge(u64),
}

/// The bytes of a file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// The file is missing, larger, or not an ordinary file. A pipe would block
/// whoever opens it, and a device has no end, so neither is opened.
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

/// The `len` bytes from `offset`, which the caller has checked against the
/// file's length. The file is opened for each piece: any number of threads
/// may read it, and a thousand archives take no thousand open files.
pub(crate) fn read_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
    let (mut file, _) = open_regular(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens an ordinary file and gives its length.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    open_regular(path).map_err(DataError::file(path))
}

fn open_regular(path: &Path) -> Result<(File, u64), FileError> {
    // Opening a pipe blocks until somebody writes: look before.
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
