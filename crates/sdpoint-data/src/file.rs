//! Pieces of files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::DataError;

/// The `len` bytes from `offset`, which the caller has checked against the
/// file's length. The file is opened for each piece: any number of threads
/// may read it, and a thousand archives take no thousand open files.
pub(crate) fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file and tells its length.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let len = file.metadata().map_err(DataError::io(path))?.len();
    Ok((file, len))
}
