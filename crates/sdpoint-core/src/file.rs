//! Opening of regular files only.
//!
//! Opening a named pipe waits for its other end, possibly forever, and a device
//! may have no end. So every file that is read, and every file of ours that is
//! kept open for writing, is opened here. Replacing a whole file is in
//! [`atomic`](crate::atomic).

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Why a file was not opened or read. The caller adds the file's name.
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
    /// A file of so many bytes, which the free memory does not hold.
    #[error("has {0} bytes, more than the free memory")]
    Memory(u64),
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io(error) => error,
            error => io::Error::new(ErrorKind::InvalidInput, format!("it {error}")),
        }
    }
}

/// Opens a regular file for reading, and returns its length in bytes.
///
/// # Errors
/// If the file is missing or cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> Result<(File, u64), FileError> {
    let len = check(path)?;
    Ok((File::open(path)?, len))
}

/// Reads a regular file of at most `limit` bytes.
///
/// ```
/// use sdpoint_core::file::{FileError, read};
/// let folder = std::env::temp_dir();
/// assert!(matches!(read(&folder, 100), Err(FileError::NotAFile("a folder"))));
/// ```
///
/// # Errors
/// As [`open`], or if the file is larger, or larger than the free memory.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let (file, len) = open(path)?;
    if len > limit {
        return Err(FileError::TooLarge(limit));
    }
    check_memory(len)?;
    let mut bytes = Vec::new();
    let room = usize::try_from(len).map(|len| bytes.try_reserve_exact(len));
    if !matches!(room, Ok(Ok(()))) {
        return Err(FileError::Memory(len));
    }
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    // A file may grow while it is read.
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge(limit));
    }
    Ok(bytes)
}

/// Checks that so many bytes fit into the free memory, where the system tells its
/// size (Linux). Without the check, the system may end the process.
///
/// # Errors
/// [`FileError::Memory`].
pub fn check_memory(bytes: u64) -> Result<(), FileError> {
    /// Smaller files are read without asking.
    const SMALL: u64 = 64 << 20;
    if bytes <= SMALL || free_memory().is_none_or(|free| bytes <= free) {
        return Ok(());
    }
    Err(FileError::Memory(bytes))
}

/// The memory that the system can give without swapping, in bytes.
fn free_memory() -> Option<u64> {
    const UNIT: u64 = 1024;
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let number = line.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok()?.checked_mul(UNIT)
}

/// Opens a file with these options, which may create it.
///
/// # Errors
/// As [`open`], but a missing file is an error only if the options do not create
/// it.
pub fn open_with(path: &Path, options: &OpenOptions) -> Result<File, FileError> {
    match check(path) {
        Ok(_) => {}
        Err(FileError::Io(error)) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(options.open(path)?)
}

/// Checks that this is a regular file, or a link to one; returns its length.
fn check(path: &Path) -> Result<u64, FileError> {
    let about = fs::metadata(path).map_err(|error| explained(path, error))?;
    match about.is_file() {
        true => Ok(about.len()),
        false => Err(FileError::NotAFile(kind(about.file_type()))),
    }
}

/// The error of a path, with the target of a symbolic link that leads nowhere.
fn explained(path: &Path, error: io::Error) -> io::Error {
    match fs::read_link(path) {
        Ok(target) if error.kind() == ErrorKind::NotFound => io::Error::new(
            ErrorKind::NotFound,
            format!(
                "it is a symbolic link to '{}', which does not exist",
                target.display()
            ),
        ),
        _ => error,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        assert_eq!(read(&path, u64::MAX).unwrap(), b"four");
        assert!(matches!(read(&path, 3), Err(FileError::TooLarge(3))));
        assert!(matches!(
            read(&folder.path().join("none"), 3),
            Err(FileError::Io(_))
        ));
    }

    /// A file without content may have any length.
    #[cfg(unix)]
    #[test]
    fn a_file_beyond_the_memory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        const LENGTH: u64 = 1 << 43;
        File::create(&path).unwrap().set_len(LENGTH).unwrap();
        let error = read(&path, u64::MAX).unwrap_err();
        assert!(matches!(error, FileError::Memory(LENGTH)), "{error}");
        assert!(check_memory(1 << 20).is_ok());
    }

    #[test]
    fn a_missing_file_is_created_on_request_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut options = File::options();
        let options = options.append(true);
        assert!(open_with(&path, options).is_err());
        open_with(&path, options.create(true)).unwrap();
        assert!(path.is_file());
        assert!(open_with(folder.path(), options).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        std::os::unix::fs::symlink("gone", &path).unwrap();
        let error = io::Error::from(read(&path, 9).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("link to 'gone'"), "{error}");
        let mut options = File::options();
        open_with(&path, options.append(true).create(true)).unwrap();
        assert!(folder.path().join("gone").is_file());
    }

    #[cfg(unix)]
    #[test]
    fn pipes_sockets_and_devices_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo")
            .arg(path("pipe"))
            .status();
        assert!(made.unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("pipe", path("link")).unwrap();
        let mut writing = File::options();
        writing.write(true).create(true);
        for (place, what) in [
            (path("pipe"), "a named pipe"),
            (path("link"), "a named pipe"),
            (path("socket"), "a socket"),
            ("/dev/null".into(), "a device"),
        ] {
            let is_refused =
                |error: FileError| matches!(error, FileError::NotAFile(found) if found == what);
            assert!(is_refused(open(&place).unwrap_err()), "{what}");
            assert!(is_refused(read(&place, 9).unwrap_err()), "{what}");
            assert!(is_refused(open_with(&place, &writing).unwrap_err()));
        }
        let error = io::Error::from(open(&path("pipe")).unwrap_err());
        assert_eq!(error.to_string(), "it is a named pipe, not a file");
    }
}
