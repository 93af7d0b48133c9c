//! Recognition of unsupported kinds of archives, for error messages.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::file::open_file;

/// An unsupported format of archives or compressed files.
struct Format {
    name: &'static str,
    start: &'static [u8],
    /// The endings of such files' names.
    ends: &'static [&'static str],
    way_out: WayOut,
}

/// How the images in it can be read.
enum WayOut {
    /// By decompressing it with this command, which prints what is in it.
    Decompress(&'static str),
    /// By unpacking it with this command, which leaves class folders.
    Unpack(&'static str),
}

const FORMATS: [Format; 8] = [
    Format {
        name: "a Zstandard file",
        start: b"\x28\xb5\x2f\xfd",
        ends: &[".zst", ".tzst"],
        way_out: WayOut::Decompress("zstd -dc"),
    },
    Format {
        name: "an XZ file",
        start: b"\xfd7zXZ\0",
        ends: &[".xz", ".txz"],
        way_out: WayOut::Decompress("xz -dc"),
    },
    Format {
        name: "a bzip2 file",
        start: b"BZh",
        ends: &[".bz2", ".tbz", ".tbz2"],
        way_out: WayOut::Decompress("bzip2 -dc"),
    },
    Format {
        name: "an LZ4 file",
        start: b"\x04\x22\x4d\x18",
        ends: &[".lz4"],
        way_out: WayOut::Decompress("lz4 -dc"),
    },
    Format {
        name: "a ZIP archive",
        start: b"PK\x03\x04",
        ends: &[".zip"],
        way_out: WayOut::Unpack("unzip"),
    },
    Format {
        name: "a 7-Zip archive",
        start: b"7z\xbc\xaf\x27\x1c",
        ends: &[".7z"],
        way_out: WayOut::Unpack("7z x"),
    },
    Format {
        name: "a RAR archive",
        start: b"Rar!\x1a\x07",
        ends: &[".rar"],
        way_out: WayOut::Unpack("unrar x"),
    },
    Format {
        name: "an LZMA file",
        start: b"\x5d\0\0\x80",
        ends: &[".lzma", ".tlz"],
        way_out: WayOut::Decompress("xz -dc"),
    },
];

/// Whether a file's name is that of a supported archive.
pub(crate) fn is_tar_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Whether a file's name is that of an unsupported archive.
pub(crate) fn is_other_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FORMATS
        .iter()
        .any(|format| format.ends.iter().any(|end| name.ends_with(end)))
}

/// Rejects an archive of an unsupported kind, or any file where a folder is
/// required, with advice how to read it.
pub(crate) fn refuse_archive(path: &Path, folder_wanted: bool) -> Result<(), DataError> {
    if !path.exists() || path.is_dir() {
        return Ok(());
    }
    let (mut file, _) = open_file(path)?;
    let mut start = Vec::new();
    file.by_ref()
        .take(512)
        .read_to_end(&mut start)
        .map_err(DataError::io(path))?;
    let shown = path.display();
    let refuse = |problem: String| {
        Err(DataError::Malformed {
            path: path.to_owned(),
            problem,
        })
    };
    let format = FORMATS
        .iter()
        .find(|format| start.starts_with(format.start));
    match format.map(|format| (format, &format.way_out)) {
        Some((format, WayOut::Decompress(command))) => refuse(format!(
            "it is {}, which is not supported; `{command} {} > {}` makes a .tar of it for tar:PATH",
            format.name,
            in_shell(path),
            in_shell(&decompressed(path, format.ends)),
        )),
        Some((format, WayOut::Unpack(command))) => refuse(format!(
            "it is {}, which is not supported; unpack it with `{command} {}` and use folder:DIR",
            format.name,
            in_shell(path),
        )),
        None if !folder_wanted => Ok(()),
        None if start.starts_with(b"\x1f\x8b") || start.get(257..262) == Some(b"ustar") => {
            refuse(format!("it is no folder but an archive; use tar:{shown}"))
        }
        None => refuse("it is a file; give the folder that holds `train` and `test`".to_owned()),
    }
}

/// A name for the decompressed file that is not the file's own.
fn decompressed(path: &Path, ends: &[&str]) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lower = name.to_ascii_lowercase();
    let end = ends.iter().find(|end| lower.ends_with(**end));
    let stem = match end {
        Some(end) => name[..name.len() - end.len()].to_owned(),
        None => format!("{}-plain", name.trim_end_matches(".tar")),
    };
    let stem = stem.trim_end_matches(".tar");
    path.with_file_name(format!("{stem}.tar"))
}

/// A path as a shell takes it.
fn in_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%~".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decompressed_file_is_another_one() {
        let of = |name: &str| {
            let path = Path::new("a b").join(name);
            in_shell(&decompressed(&path, &[".xz", ".txz"]))
        };
        assert_eq!(of("x.tar.xz"), "'a b/x.tar'");
        assert_eq!(of("x.TXZ"), "'a b/x.tar'");
        assert_eq!(of("x.tar"), "'a b/x-plain.tar'");
        assert_eq!(of("x"), "'a b/x-plain.tar'");
        assert_eq!(in_shell(Path::new("a/x.tar")), "a/x.tar");
        assert_eq!(in_shell(Path::new("it's")), r"'it'\''s'");
    }
}
