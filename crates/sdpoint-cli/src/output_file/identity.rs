//! The identity of a file, independent of its path.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use sdpoint::core::atomic::resolve;

/// Identifies a file: two paths with equal identities are the same file.
/// Symbolic links are followed; on Unix, hard links are equal too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Device and inode.
    #[cfg(unix)]
    Inode(u64, u64),
    /// The absolute path without links, for a file that does not exist yet and on
    /// other systems.
    Path(PathBuf),
}

impl Identity {
    /// The identity of the file at a path, or of the file that writing there
    /// would create; `None` if there is none and cannot be one.
    pub fn of(path: &Path) -> Option<Self> {
        match std::fs::metadata(path) {
            Ok(about) => Self::existing(&about, path),
            Err(_) => resolve(path).ok().flatten().map(Self::Path),
        }
    }

    #[cfg(unix)]
    fn existing(about: &Metadata, _: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self::Inode(about.dev(), about.ino()))
    }

    #[cfg(not(unix))]
    fn existing(_: &Metadata, path: &Path) -> Option<Self> {
        path.canonicalize().ok().map(Self::Path)
    }
}

/// Whether a path is the standard output or error of this process, except for
/// `/dev/null`: writing a file there would mix it with text.
#[cfg(unix)]
pub fn is_printed_to(path: &Path) -> bool {
    use std::fs::File;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::fs::MetadataExt;

    let key = |about: &Metadata| (about.dev(), about.ino(), about.rdev());
    let of = |stream: BorrowedFd| {
        let file = File::from(stream.try_clone_to_owned().ok()?);
        file.metadata().ok().map(|about| key(&about))
    };
    let at = |path: &Path| std::fs::metadata(path).ok().map(|about| key(&about));
    let target = at(path);
    target.is_some()
        && target != at(Path::new("/dev/null"))
        && (target == of(std::io::stdout().as_fd()) || target == of(std::io::stderr().as_fd()))
}

#[cfg(not(unix))]
pub fn is_printed_to(_: &Path) -> bool {
    false
}
