//! CIFAR's files, on disk or in an archive.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sdpoint_core::file::{FileError, read};

use super::{CifarKind, Form};
use crate::archive::read_files;
use crate::error::DataError;
use crate::file::{open_file, read_at};
use crate::split::Split;

/// The most bytes that an archive may unpack to: the official ones have 184
/// million.
const MAX_ARCHIVE: u64 = 512 << 20;

/// Files by name.
pub(super) enum Store {
    Folder(PathBuf),
    /// Those that are needed, unpacked to memory.
    Archive {
        path: PathBuf,
        files: HashMap<String, Arc<[u8]>>,
    },
}

impl Store {
    pub fn unpacked(
        kind: CifarKind,
        form: Form,
        path: &Path,
        split: Split,
    ) -> Result<Store, DataError> {
        let mut wanted = kind.files(form, split).to_vec();
        wanted.push(kind.names_file(form));
        let files = read_files(path, kind.folder(form), &wanted, MAX_ARCHIVE)?;
        Ok(Store::Archive {
            path: path.to_owned(),
            files,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Store::Folder(folder) => folder.join(name).exists(),
            Store::Archive { files, .. } => files.contains_key(name),
        }
    }

    pub fn file(&self, name: &str) -> Result<Stored, DataError> {
        match self {
            Store::Folder(folder) => Ok(Stored {
                path: folder.join(name),
                bytes: None,
            }),
            Store::Archive { path, files } => match files.get(name) {
                Some(bytes) => Ok(Stored {
                    path: path.join(name),
                    bytes: Some(Arc::clone(bytes)),
                }),
                None => Err(DataError::Malformed {
                    path: path.to_owned(),
                    problem: format!("it has no `{name}`; fetch it again"),
                }),
            },
        }
    }
}

/// A file, or the bytes of one in an archive.
pub(super) struct Stored {
    pub path: PathBuf,
    pub bytes: Option<Arc<[u8]>>,
}

impl Stored {
    /// All bytes, if there are no more than `limit`.
    pub fn read(&self, limit: u64) -> Result<Arc<[u8]>, DataError> {
        match &self.bytes {
            Some(bytes) => Ok(Arc::clone(bytes)),
            None => match read(&self.path, limit) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(DataError::file(&self.path)(error)),
            },
        }
    }

    pub fn len(&self) -> Result<u64, DataError> {
        match &self.bytes {
            Some(bytes) => Ok(bytes.len() as u64),
            None => Ok(open_file(&self.path)?.1),
        }
    }

    pub fn piece(&self, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
        match &self.bytes {
            Some(bytes) => Ok(bytes[offset as usize..][..len].to_vec()),
            None => read_at(&self.path, offset, len),
        }
    }

    pub fn malformed(&self, problem: String) -> DataError {
        DataError::Malformed {
            path: self.path.clone(),
            problem,
        }
    }

    /// Makes sure that there is a name for each class.
    pub fn check_names(
        &self,
        kind: CifarKind,
        names: Vec<String>,
    ) -> Result<Vec<String>, DataError> {
        let (actual, expected) = (names.len(), kind.classes());
        if actual == expected {
            return Ok(names);
        }
        Err(self.malformed(format!(
            "{actual} class names where {expected} are expected; remove it and fetch it again"
        )))
    }

    /// Makes sure that a record's label is a class.
    pub fn check_label(
        &self,
        kind: CifarKind,
        record: usize,
        label: i64,
    ) -> Result<u32, DataError> {
        match u32::try_from(label) {
            Ok(label) if (label as usize) < kind.classes() => Ok(label),
            _ => Err(DataError::Label {
                path: self.path.clone(),
                record,
                label,
                classes: kind.classes(),
            }),
        }
    }
}
