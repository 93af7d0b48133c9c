//! A file that several threads read pieces of.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::DataError;

/// An open file, read by place and length.
pub(crate) struct RandomAccess {
    path: PathBuf,
    file: Mutex<File>,
}

impl RandomAccess {
    pub fn new(path: &Path, file: File) -> RandomAccess {
        RandomAccess {
            path: path.to_owned(),
            file: Mutex::new(file),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `len` bytes from `offset`, which the caller has checked against
    /// the file's length.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        // Every read seeks first, so an interrupted one leaves no harm.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a file and tells its length.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let len = file.metadata().map_err(DataError::io(path))?.len();
    Ok((file, len))
}
