//! Atomic writing of files: completely or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Writes a file atomically: after a crash, a full disk or an error at any
/// moment, `path` has either its previous content or all of the new one.
///
/// The data is written to a temporary file in the same folder, which is synced
/// and then renamed; on an error it is removed. Only a process that is killed
/// leaves it behind, as `.NAME.*.tmp`. An existing file keeps its permissions,
/// and a symbolic link remains one: its target is replaced, or created if it
/// does not exist.
///
/// Pipes and character devices such as `/dev/null` are written to directly.
/// A named pipe without a reader is an error, see [`open_pipe`].
///
/// # Errors
/// Those of `write` and of the file system, with the path added to the message
/// and the same kind. Folders, block devices and sockets are rejected.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let written = Target::of(path).and_then(|target| match target {
        Target::Stream(path) => stream(&path, write),
        Target::File { path, old } => replace(&path, old, write),
    });
    written.map_err(|error| cannot_write(path, &error))
}

/// Checks that [`write_atomically`] could write to `path` now, to be called
/// before hours of work: creates the temporary file and removes it. An existing
/// file is not touched.
///
/// A read-only file is rejected, although it could be replaced, as somebody
/// meant to protect it.
///
/// # Errors
/// As [`write_atomically`].
pub fn check_writable(path: &Path) -> io::Result<()> {
    let checked = Target::of(path).and_then(|target| match target {
        Target::Stream(_) => Ok(()),
        Target::File { old: Some(old), .. } if old.permissions().readonly() => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the file is write-protected",
        )),
        Target::File { path, .. } => temporary_beside(&path).map(drop),
    });
    checked.map_err(|error| cannot_write(path, &error))
}

/// The absolute path of the file that writing to `path` creates or replaces,
/// with links resolved. `None` for a pipe or a device.
///
/// # Errors
/// If `path` cannot be written to: see [`write_atomically`].
pub fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    match Target::of(path) {
        Ok(Target::File { path, .. }) => Ok(Some(path)),
        Ok(Target::Stream(_)) => Ok(None),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

/// Opens the named pipe at `path` for writing, without waiting for a reader.
/// `None` if there is something else, or nothing.
///
/// To be called before hours of work and kept until [`write_atomically`] has
/// written to the pipe: its reader sees the end of the file when the last writer
/// closes it.
///
/// # Errors
/// If nothing reads from the pipe, or it cannot be opened.
pub fn open_pipe(path: &Path) -> io::Result<Option<File>> {
    match fs::metadata(path) {
        Ok(about) if is_pipe(&about) => pipe(path)
            .map(Some)
            .map_err(|error| cannot_write(path, &error)),
        _ => Ok(None),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot write '{}': {error}", path.display()),
    )
}

/// The kind of thing that is written to.
enum Target {
    /// A regular file, or one that is to be created. Links are resolved.
    File {
        path: PathBuf,
        old: Option<fs::Metadata>,
    },
    /// A pipe or a character device.
    Stream(PathBuf),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        let refuse = |kind, problem: &str| Err(io::Error::new(kind, problem));
        match fs::metadata(path) {
            Ok(old) if old.is_dir() => refuse(
                io::ErrorKind::IsADirectory,
                "it is a folder; give the name of a file",
            ),
            Ok(old) if old.is_file() => Ok(Target::File {
                path: path.canonicalize()?,
                old: Some(old),
            }),
            Ok(other) if is_stream(&other) => Ok(Target::Stream(path.to_owned())),
            Ok(_) => refuse(
                io::ErrorKind::InvalidInput,
                "it exists and is not a regular file",
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => new_file(path),
            Err(error) => Err(error),
        }
    }
}

/// Whether this is a pipe or a character device.
#[cfg(unix)]
fn is_stream(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    is_pipe(about) || about.file_type().is_char_device()
}

#[cfg(unix)]
fn is_pipe(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    about.file_type().is_fifo()
}

#[cfg(not(unix))]
fn is_pipe(_: &fs::Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn is_stream(_: &fs::Metadata) -> bool {
    false
}

/// A file that does not exist yet, in an existing folder.
fn new_file(path: &Path) -> io::Result<Target> {
    // The missing target of a link is created, and the link kept. A cycle of links
    // is another error than "not found", so the recursion ends.
    if let Ok(next) = fs::read_link(path) {
        return Target::of(&path.parent().unwrap_or(Path::new("")).join(next));
    }
    let text = path.as_os_str().as_encoded_bytes();
    let name = path.file_name().filter(|_| {
        let last = text.last().map(|&byte| char::from(byte));
        !last.is_some_and(std::path::is_separator)
    });
    let name = name.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not name a file; add a name",
        )
    })?;
    let folder = folder_of(path);
    let absent = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "there is no folder '{}'; create it first, or choose another place",
                folder.display()
            ),
        ),
        _ => error,
    };
    let folder = folder.canonicalize().map_err(absent)?;
    if !folder.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("'{}' is not a folder", folder.display()),
        ));
    }
    Ok(Target::File {
        path: folder.join(name),
        old: None,
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Writes directly to a pipe or a device.
fn stream(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let file = match is_pipe(&fs::metadata(path)?) {
        true => pipe(path)?,
        false => OpenOptions::new().write(true).open(path)?,
    };
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

/// Opens a named pipe that has a reader.
///
/// An ordinary opening waits for a reader, possibly forever. One that does not
/// wait fails without a reader, but so would writing to a full pipe. With the
/// first kept open until the second is, the reader stays.
#[cfg(unix)]
fn pipe(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true);
    let probe = options.clone().custom_flags(O_NONBLOCK).open(path);
    let _probe = probe.map_err(|error| match error.raw_os_error() {
        Some(ENXIO) => io::Error::new(
            io::ErrorKind::BrokenPipe,
            "it is a named pipe that nothing reads from; start its reader first",
        ),
        _ => error,
    })?;
    options.open(path)
}

#[cfg(not(unix))]
fn pipe(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// The flag to open without waiting.
#[cfg(any(target_os = "linux", target_os = "android"))]
const O_NONBLOCK: i32 = 0o4000;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const O_NONBLOCK: i32 = 0x4;

/// "No such device or address": a pipe has no reader.
#[cfg(unix)]
const ENXIO: i32 = 6;

/// The temporary file for a target, in the same folder.
fn temporary_beside(target: &Path) -> io::Result<NamedTempFile> {
    let prefix = temporary_prefix(target);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // By default, tempfile creates files that other users cannot read.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(target)).map_err(|error| {
        // The error names the temporary file, which means nothing to users.
        let problem = match error.kind() {
            io::ErrorKind::PermissionDenied => "no permission to create files in its folder".into(),
            io::ErrorKind::ReadOnlyFilesystem => "its folder is read-only".into(),
            kind => kind.to_string(),
        };
        io::Error::new(error.kind(), problem)
    })
}

/// The start of a temporary file's name: `.NAME.`, of which long names, where
/// the rest of the temporary name would not fit, are shortened.
fn temporary_prefix(target: &Path) -> OsString {
    /// File systems allow 255 bytes; the rest takes ten.
    const LONGEST: usize = 200;
    let name = target.file_name().unwrap_or_default();
    let mut prefix = OsString::from(".");
    match name.to_str() {
        Some(name) => prefix.push(&name[..name.floor_char_boundary(LONGEST)]),
        None if name.len() <= LONGEST => prefix.push(name),
        None => {}
    }
    prefix.push(".");
    prefix
}

fn replace(
    target: &Path,
    old: Option<fs::Metadata>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let (file, temporary) = temporary_beside(target)?.into_parts();
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(old) = old {
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()?;
    NamedTempFile::from_parts(file, temporary)
        .persist(target)
        .map_err(|error| error.error)?;
    // The rename is durable only once the folder is synced.
    #[cfg(unix)]
    File::open(folder_of(target))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_error_keeps_the_old_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(&[0; 100_000])?;
            Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"))
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("a.txt"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_name_may_be_as_long_as_the_file_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a".repeat(255), "é".repeat(127)] {
            let path = folder.path().join(&name);
            check_writable(&path).unwrap();
            write_atomically(&path, |out| out.write_all(b"new")).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
        let path = folder.path().join("a".repeat(256));
        let error = write_atomically(&path, |_| Ok(())).unwrap_err().to_string();
        let expected = format!("cannot write '{}': ", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn errors_do_not_name_temporary_files() {
        // Nobody can create files in /proc.
        let error = check_writable(Path::new("/proc/x"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot write '/proc/x': "), "{error}");
        assert!(!error.contains(".tmp"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lost = folder.path().join("no/such/file");
        let new_folder = format!("{}/", folder.path().join("new").display());
        for (path, kind, words) in [
            (folder.path(), io::ErrorKind::IsADirectory, "is a folder"),
            (&lost, io::ErrorKind::NotFound, "no/such'; create it first"),
            (
                Path::new(&new_folder),
                io::ErrorKind::InvalidInput,
                "add a name",
            ),
        ] {
            let write = |path: &Path| write_atomically(path, |_| Ok(()));
            for check in [write, check_writable] {
                let error = check(path).unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(words), "{error}");
            }
        }
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_check_leaves_everything_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        check_writable(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        fs::write(&path, "old").unwrap();
        check_writable(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.txt"]);
        let mut protected = fs::metadata(&path).unwrap().permissions();
        protected.set_readonly(true);
        fs::set_permissions(&path, protected).unwrap();
        let error = check_writable(&path).unwrap_err();
        assert!(error.to_string().contains("write-protected"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_filled_and_one_in_circles_refused() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("second", at("first")).unwrap();
        symlink("sub/target", at("second")).unwrap();
        let target = at("sub").canonicalize().unwrap().join("target");
        assert_eq!(resolve(&at("first")).unwrap(), Some(target));
        write_atomically(&at("first"), |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(at("sub/target")).unwrap(), b"new");
        assert!(fs::symlink_metadata(at("first")).unwrap().is_symlink());
        symlink("circle", at("circle")).unwrap();
        assert!(check_writable(&at("circle")).is_err());
        assert!(fs::symlink_metadata(at("circle")).unwrap().is_symlink());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_to_as_they_are() {
        let write = |path: &str| {
            check_writable(Path::new(path))?;
            write_atomically(Path::new(path), |out| out.write_all(b"something"))
        };
        write("/dev/null").unwrap();
        let full = write("/dev/full").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(resolve(Path::new("/dev/null")).unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_survive() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let link = folder.path().join("link");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        write_atomically(&link, |out| out.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
