//! Archives that are given twice, whose images would count twice.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Checks that no archive is the same file as an earlier one, under whatever names.
/// Missing files are reported when they are read.
pub(super) fn check_distinct(archives: &[PathBuf]) -> Result<(), DataError> {
    let mut known: HashMap<_, &Path> = HashMap::new();
    for path in archives {
        let Ok(about) = path.metadata() else { continue };
        let Some(first) = known.insert(identity(path, &about), path) else {
            continue;
        };
        return Err(DataError::Malformed {
            path: path.clone(),
            problem: match first == path {
                true => "the archive is given twice, so its images would count twice".to_owned(),
                false => format!(
                    "it is the same file as '{}', so its images would count twice",
                    first.display()
                ),
            },
        });
    }
    Ok(())
}

/// Equal for two paths to one file; on Unix, also for hard links.
#[cfg(unix)]
fn identity(_: &Path, about: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (about.dev(), about.ino())
}

#[cfg(not(unix))]
fn identity(path: &Path, _: &Metadata) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
