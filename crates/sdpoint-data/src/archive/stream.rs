//! Sequential reading of an archive's headers and members.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::fault::{bad_gzip, bad_header, malformed};
use super::gunzip::Gunzip;
use crate::error::DataError;
use crate::file::{MAX_FILE, open_file};

/// The unit that archives are made of, in bytes.
const BLOCK: u64 = 512;

const GZIP_START: [u8; 2] = [0x1f, 0x8b];

/// Bytes read at a time after the last member.
const CHUNK: usize = 1 << 16;

/// A member's header.
pub(super) struct Head {
    pub path: String,
    pub kind: tar::EntryType,
    pub size: u64,
    /// The target of a link.
    pub target: String,
    /// Where the member's last block ends.
    pub end: u64,
}

impl Head {
    /// # Errors
    /// If the member is stored as a sparse file, of which the archive has only the
    /// parts that are not zeros.
    pub fn of<R: Read>(path: &Path, entry: &mut tar::Entry<'_, R>) -> Result<Head, DataError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(name) = sparse_name(entry) {
            return Err(malformed(
                &path.join(name),
                "it is stored as a sparse file, which is not supported; pack the archive again \
                 without --sparse (-S)",
            ));
        }
        let end = entry.raw_file_position().saturating_add(entry.size());
        Ok(Head {
            path: text(&entry.path_bytes()),
            kind: entry.header().entry_type(),
            size: entry.size(),
            target: text(&entry.link_name_bytes().unwrap_or_default()),
            end: end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX),
        })
    }

    pub fn is_file(&self) -> bool {
        matches!(
            self.kind,
            tar::EntryType::Regular | tar::EntryType::Continuous
        )
    }
}

/// The name of a member that is stored as a sparse file, in the format of GNU or
/// as extended attributes (GNU's versions 0.0 to 1.0).
fn sparse_name<R: Read>(entry: &mut tar::Entry<'_, R>) -> Option<String> {
    const PREFIX: &str = "GNU.sparse.";
    let mut is_sparse = entry.header().entry_type() == tar::EntryType::GNUSparse;
    let mut name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let extensions = entry.pax_extensions().ok().flatten();
    for extension in extensions.into_iter().flatten().flatten() {
        let Some(attribute) = extension
            .key()
            .ok()
            .and_then(|key| key.strip_prefix(PREFIX))
        else {
            continue;
        };
        is_sparse = true;
        if attribute == "name" {
            name = String::from_utf8_lossy(extension.value_bytes()).into_owned();
        }
    }
    is_sparse.then_some(name)
}

/// The bytes of some members of a compressed archive, by their numbers, which
/// the first pass did not keep.
pub(super) fn read_passed(
    path: &Path,
    memory: &mut u64,
    wanted: &HashSet<usize>,
) -> Result<HashMap<usize, Box<[u8]>>, DataError> {
    let mut found = HashMap::new();
    let mut number = 0;
    read_compressed(path, memory, &mut |head, bytes| {
        if wanted.contains(&number) {
            found.insert(number, read_whole(bytes, path, head)?);
        }
        number += 1;
        Ok(())
    })?;
    Ok(found)
}

/// Passes the members of a compressed archive to a function, each with a reader
/// of its bytes.
pub(super) fn read_compressed(
    path: &Path,
    memory: &mut u64,
    take: &mut dyn FnMut(&Head, &mut dyn Read) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let limit = *memory;
    let mut unpacked = Counted {
        inner: Gunzip::new(BufReader::new(open_file(path)?.0)),
        read: 0,
        left: memory,
        exceeded: false,
        fault: None,
    };
    let listed = list(path, &mut unpacked, take).and_then(|end| {
        check_end(path, unpacked.read, end)?;
        // Also reads the checksum, which comes last.
        check_rest(path, &mut unpacked)
    });
    if unpacked.exceeded {
        return Err(DataError::TooLarge {
            path: path.to_owned(),
            what: "what the compressed archive unpacks to",
            limit,
            advice: "decompress it: a plain .tar is read in place",
        });
    }
    match unpacked.fault {
        Some(error) => Err(bad_gzip(path, error)),
        None => listed,
    }
}

/// Passes the members of a stream to a function, and returns the end of the
/// last one.
fn list(
    path: &Path,
    stream: &mut dyn Read,
    take: &mut dyn FnMut(&Head, &mut dyn Read) -> Result<(), DataError>,
) -> Result<u64, DataError> {
    let mut end = 0;
    let mut last: Option<String> = None;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(DataError::io(path))? {
        let mut entry = entry.map_err(|error| bad_header(path, error, last.as_deref()))?;
        let head = Head::of(path, &mut entry)?;
        end = head.end;
        take(&head, &mut entry)?;
        last = Some(head.path);
    }
    Ok(end)
}

pub(super) fn is_gzip(path: &Path) -> Result<bool, DataError> {
    let (mut file, len) = open_file(path)?;
    let mut start = [0; 2];
    if len >= 2 {
        file.read_exact(&mut start).map_err(DataError::io(path))?;
    }
    Ok(start == GZIP_START)
}

pub(super) fn read_whole(
    stream: &mut dyn Read,
    path: &Path,
    head: &Head,
) -> Result<Box<[u8]>, DataError> {
    check_size(path, head)?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(|error| match error.raw_os_error() {
            Some(_) => DataError::io(path)(error),
            None => cut(path, head),
        })?;
    if bytes.len() as u64 != head.size {
        return Err(cut(path, head));
    }
    Ok(bytes.into())
}

/// An archive ends with blocks of zeros. If there is none, the end is missing.
pub(super) fn check_end(path: &Path, len: u64, end: u64) -> Result<(), DataError> {
    if len >= end.saturating_add(BLOCK) {
        return Ok(());
    }
    let problem = match len {
        0 => "it is empty, not a tar archive",
        _ => {
            "it ends without the end marker of a tar archive: it is truncated, and members may be \
             missing; get it again"
        }
    };
    Err(malformed(path, problem))
}

/// Checks that only zeros follow an archive's last member, as programs that
/// unpack ignore everything else: a second archive that was appended by `cat`.
pub(super) fn check_rest(path: &Path, rest: &mut dyn Read) -> Result<(), DataError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match rest.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DataError::io(path)(error)),
        };
        if chunk[..count].iter().any(|&byte| byte != 0) {
            return Err(malformed(
                path,
                "more data follows the end of the tar archive, such as another archive \
                          appended with `cat`, which is ignored when unpacking; give archives \
                          separately (tar:a.tar,b.tar), or join them with `tar -A`",
            ));
        }
    }
}

pub(super) fn check_size(path: &Path, head: &Head) -> Result<(), DataError> {
    if head.size <= MAX_FILE {
        return Ok(());
    }
    Err(DataError::TooLarge {
        path: path.join(&head.path),
        what: "the size of a member",
        limit: MAX_FILE,
        advice: "no image is that large",
    })
}

pub(super) fn cut(path: &Path, head: &Head) -> DataError {
    malformed(
        &path.join(&head.path),
        "the archive is truncated: it ends within this member; get it again",
    )
}

/// A decompressed stream that fails once it exceeds a number of bytes.
struct Counted<'a> {
    inner: Gunzip<BufReader<File>>,
    read: u64,
    left: &'a mut u64,
    exceeded: bool,
    /// Why it could not be decompressed.
    fault: Option<io::Error>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.fault = Some(error);
                return Err(io::Error::other("cannot be decompressed"));
            }
        };
        self.read += count as u64;
        match self.left.checked_sub(count as u64) {
            Some(left) => *self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("unpacks to too much"));
            }
        }
        Ok(count)
    }
}
