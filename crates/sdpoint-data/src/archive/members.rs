//! The members of a tar archive, plain or compressed with gzip.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;
use crate::file::open_file;

/// The largest member that is taken for an image.
const MAX_MEMBER: u64 = 256 << 20;

/// Members shown when none is of use.
const SHOWN: usize = 9;

const GZIP_START: [u8; 2] = [0x1f, 0x8b];

/// What an archive holds.
#[derive(Default)]
pub(super) struct Members {
    pub wanted: Vec<Wanted>,
    /// Paths of the first few others.
    pub other: Vec<String>,
}

/// A member that the caller asked for.
pub(super) struct Wanted {
    pub path: String,
    /// None for a folder.
    pub content: Option<Content>,
}

/// A member's bytes, or where they are.
pub(super) enum Content {
    /// In the archive's file.
    At { offset: u64, len: usize },
    /// In memory.
    Kept(Box<[u8]>),
}

/// Lists the members whose paths are `wanted`. The bytes that a compressed
/// archive unpacks to are taken from `memory`, whether they are kept or not:
/// so it also bounds what a small file that unpacks without end can do.
pub(super) fn read_members(
    path: &Path,
    memory: &mut u64,
    wanted: impl Fn(&str) -> bool,
) -> Result<Members, DataError> {
    let (mut file, len) = open_file(path)?;
    let mut start = [0; 2];
    let compressed = len >= 2 && {
        file.read_exact(&mut start).map_err(DataError::io(path))?;
        start == GZIP_START
    };
    let file = File::open(path).map_err(DataError::io(path))?;
    if !compressed {
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries_with_seek().map_err(malformed(path))?;
        return list(path, entries, wanted, |entry| {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > len) {
                return Err(io::Error::other("the archive ends within a member"));
            }
            Ok(Content::At {
                offset,
                len: size as usize,
            })
        });
    }
    let mut unpacked = Bounded {
        inner: MultiGzDecoder::new(BufReader::new(file)),
        left: memory,
        exceeded: false,
    };
    let limit = *unpacked.left;
    let mut archive = tar::Archive::new(&mut unpacked);
    let listed = archive
        .entries()
        .map_err(malformed(path))
        .and_then(|entries| {
            list(path, entries, wanted, |entry| {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                if bytes.len() as u64 != entry.size() {
                    return Err(io::Error::other("the archive ends within a member"));
                }
                Ok(Content::Kept(bytes.into()))
            })
        });
    if unpacked.exceeded {
        return Err(DataError::TooLarge {
            path: path.to_owned(),
            what: "what the compressed archive unpacks to",
            limit,
            advice: "decompress it: a plain .tar is read in place",
        });
    }
    listed
}

/// Goes through an archive; `content` takes one member.
fn list<R: Read>(
    path: &Path,
    entries: tar::Entries<'_, R>,
    wanted: impl Fn(&str) -> bool,
    content: impl Fn(&mut tar::Entry<'_, R>) -> io::Result<Content>,
) -> Result<Members, DataError> {
    let mut members = Members::default();
    for entry in entries {
        let mut entry = entry.map_err(malformed(path))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if !wanted(&name) || !(kind.is_file() || kind.is_dir()) {
            if kind.is_file() && members.other.len() < SHOWN {
                members.other.push(name);
            }
            continue;
        }
        if entry.size() > MAX_MEMBER {
            return Err(DataError::TooLarge {
                path: path.join(name),
                what: "the size of a member",
                limit: MAX_MEMBER,
                advice: "no image is that large",
            });
        }
        let content = if kind.is_dir() {
            None
        } else {
            Some(content(&mut entry).map_err(malformed(&path.join(&name)))?)
        };
        members.wanted.push(Wanted {
            path: name,
            content,
        });
    }
    Ok(members)
}

fn malformed(path: &Path) -> impl Fn(io::Error) -> DataError {
    move |error| DataError::Malformed {
        path: path.to_owned(),
        problem: format!("not a sound tar archive: {error}"),
    }
}

/// A reader that fails once more has been read than was left.
struct Bounded<'a, R> {
    inner: R,
    left: &'a mut u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
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
