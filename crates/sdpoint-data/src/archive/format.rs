//! Recognition of unsupported kinds of archives, for error messages.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::file::open_file;

/// An unsupported format of archives or compressed files.
struct Format {
    name: &'static str,
    /// The first bytes; empty for a format without a signature, whose files are
    /// known by name.
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

const FORMATS: [Format; 12] = [
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
        ends: &[".bz2", ".tbz", ".tbz2", ".tb2", ".tz2"],
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
        start: b"\x5d\0\0",
        ends: &[".lzma", ".tlz"],
        way_out: WayOut::Decompress("xz -dc"),
    },
    Format {
        name: "an lzip file",
        start: b"LZIP",
        ends: &[".lz"],
        way_out: WayOut::Decompress("lzip -dc"),
    },
    Format {
        name: "a file of the program compress",
        start: b"\x1f\x9d",
        ends: &[".z", ".taz"],
        way_out: WayOut::Decompress("gzip -dc"),
    },
    Format {
        name: "an lzop file",
        start: b"\x89LZO\0\r\n\x1a\n",
        ends: &[".lzo", ".tzo"],
        way_out: WayOut::Decompress("lzop -dc"),
    },
    Format {
        name: "a Brotli file",
        start: b"",
        ends: &[".br", ".tbr"],
        way_out: WayOut::Decompress("brotli -dc"),
    },
];

impl Format {
    /// The format of a file, by its first bytes or, without a signature, its name.
    fn of(start: &[u8], path: &Path) -> Option<&'static Format> {
        if is_tar(start) {
            return None;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        FORMATS.iter().find(|format| match format.start {
            b"" => format.is_name(&name),
            signature => start.starts_with(signature),
        })
    }

    fn is_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.ends.iter().any(|end| name.ends_with(end))
    }
}

/// Whether these are the first bytes of a tar archive.
fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Whether a file's name is that of a supported archive.
pub(crate) fn is_tar_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Whether a file's name is that of an unsupported archive.
pub(crate) fn is_other_name(name: &str) -> bool {
    FORMATS.iter().any(|format| format.is_name(name))
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
    match Format::of(&start, path).map(|format| (format, &format.way_out)) {
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
        None if start.starts_with(b"\x1f\x8b") || is_tar(&start) => {
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
    fn formats_are_known_by_first_bytes_or_name() {
        let of = |start: &[u8], name: &str| Format::of(start, Path::new(name)).map(|f| f.name);
        for (start, name, format) in [
            (&b"LZIP\x01\x0c"[..], "x.tar", "an lzip file"),
            (b"\x1f\x9d\x90", "x.tar.Z", "a file of the program compress"),
            (b"\x5d\0\0\x10\0", "x.tar.lzma", "an LZMA file"),
            (b"\x5d\0\0\0\x01", "x.bin", "an LZMA file"),
            (b"\x89LZO\0\r\n\x1a\n", "x", "an lzop file"),
            (b"7z\xbc\xaf\x27\x1c", "x.tar", "a 7-Zip archive"),
            (b"Rar!\x1a\x07\x01\0", "x.tar", "a RAR archive"),
            (b"\x0b\x02\x80", "x.TAR.BR", "a Brotli file"),
        ] {
            assert_eq!(of(start, name), Some(format), "{name}");
        }
        for name in [
            "x.tar.Z",
            "x.tar.lz",
            "x.TLZ",
            "x.tar.br",
            "x.tar.lzo",
            "x.rar",
        ] {
            assert!(is_other_name(name), "{name}");
        }
        // The first member of a tar archive may have any name.
        let mut tar = vec![0; 512];
        tar[..2].copy_from_slice(b"LZ");
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(of(&tar, "x.tar.br"), None);
        assert_eq!(of(b"\x1f\x8b", "x.tar.gz"), None);
    }

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
