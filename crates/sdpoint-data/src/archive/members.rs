//! The members of a tar archive, plain or compressed with gzip, as a tree.
//!
//! The tree is what unpacking would leave on disk: of members of one path the
//! last one counts, and links are entries of their own, which
//! [`Members`] as a [`Store`](crate::tree::Store) resolves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;
use crate::file::open_file;
use crate::left_out::LeftOut;

/// The largest member that is taken for an image.
const MAX_MEMBER: u64 = crate::file::MAX_FILE;

/// The most folders that a member's path may have.
const MAX_DEPTH: usize = 128;

/// The most folders of an archive: faces have some hundred thousand classes.
const MAX_FOLDERS: usize = 1 << 20;

/// The unit that archives are made of, in bytes.
const BLOCK: u64 = 512;

const GZIP_START: [u8; 2] = [0x1f, 0x8b];

/// A member's bytes, or where they are.
#[derive(Clone)]
pub(super) enum Content {
    /// In the archive's file.
    At { offset: u64, len: usize },
    /// In memory.
    Kept(Box<[u8]>),
    /// In a compressed archive, not kept.
    Passed { len: u64 },
}

/// What an archive holds.
pub(super) struct Members {
    /// The folder 0 is the archive itself.
    pub folders: Vec<Folder>,
    /// In the archive's order.
    pub members: Vec<Member>,
    /// Paths that came again, where the later member counts.
    pub replaced: BTreeSet<String>,
    pub left_out: LeftOut,
}

pub(super) struct Folder {
    pub parent: usize,
    name: String,
    pub entries: BTreeMap<String, Node>,
}

/// What a name in a folder stands for, by its number.
#[derive(Clone, Copy)]
pub(super) enum Node {
    Folder(usize),
    Member(usize),
}

pub(super) enum Member {
    File(Content),
    /// To a path from the archive's top.
    HardLink(String),
    /// To a path from the link's own folder.
    SymbolicLink(String),
    /// A device, a pipe, or a kind of member that only some programs know.
    Special,
}

/// What a member's header says.
struct Head {
    path: String,
    kind: tar::EntryType,
    size: u64,
    /// What a link leads to.
    target: String,
    /// Where the member's last block ends.
    end: u64,
}

impl Head {
    fn of<R: Read>(entry: &tar::Entry<'_, R>) -> Head {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let end = entry.raw_file_position().saturating_add(entry.size());
        Head {
            path: text(&entry.path_bytes()),
            kind: entry.header().entry_type(),
            size: entry.size(),
            target: text(&entry.link_name_bytes().unwrap_or_default()),
            end: end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX),
        }
    }

    fn is_file(&self) -> bool {
        matches!(
            self.kind,
            tar::EntryType::Regular | tar::EntryType::Continuous
        )
    }
}

/// Lists an archive. `keep` says of which members' paths a compressed archive
/// keeps the bytes. The bytes that it unpacks to are taken from `memory`,
/// whether they are kept or not: so it also bounds what a small file that
/// unpacks without end can do.
pub(super) fn read_members(
    path: &Path,
    memory: &mut u64,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Members, DataError> {
    let mut members = Members::default();
    if is_gzip(path)? {
        read_compressed(path, memory, &mut |head, bytes| {
            let content = match head.is_file() && keep(&head.path) {
                true => Content::Kept(read_whole(bytes, path, head)?),
                false => Content::Passed { len: head.size },
            };
            members.insert(head, content);
            Ok(())
        })?;
        return Ok(members);
    }
    let (file, len) = open_file(path)?;
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries_with_seek().map_err(malformed(path))?;
    let mut end = 0;
    for entry in entries {
        let entry = entry.map_err(malformed(path))?;
        let head = Head::of(&entry);
        let (offset, size) = (entry.raw_file_position(), head.size);
        end = head.end;
        if offset.checked_add(size).is_none_or(|end| end > len) {
            check_size(path, &head)?;
            return Err(cut(path, &head));
        }
        let len = size as usize;
        members.insert(&head, Content::At { offset, len });
    }
    check_end(path, len, end)?;
    Ok(members)
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

/// Hands on the members of a compressed archive with what reads their bytes.
fn read_compressed(
    path: &Path,
    memory: &mut u64,
    take: &mut dyn FnMut(&Head, &mut dyn Read) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let limit = *memory;
    let mut unpacked = Counted {
        inner: MultiGzDecoder::new(BufReader::new(open_file(path)?.0)),
        read: 0,
        left: memory,
        exceeded: false,
    };
    let listed = list(path, &mut unpacked, take).and_then(|end| {
        check_end(path, unpacked.read, end)?;
        // The checksum comes last.
        match io::copy(&mut unpacked, &mut io::sink()) {
            Err(error) if !is_trailing(&error) => Err(malformed(path)(error)),
            _ => Ok(()),
        }
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

/// Hands on the members of a stream, and tells where the last one ends.
fn list(
    path: &Path,
    stream: &mut dyn Read,
    take: &mut dyn FnMut(&Head, &mut dyn Read) -> Result<(), DataError>,
) -> Result<u64, DataError> {
    let mut end = 0;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(malformed(path))? {
        let mut entry = entry.map_err(malformed(path))?;
        let head = Head::of(&entry);
        end = head.end;
        take(&head, &mut entry)?;
    }
    Ok(end)
}

/// Whether decompression failed at what follows a whole stream, such as the
/// zeros that fill a tape's block, which other programs pass over too.
fn is_trailing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains("header")
}

fn is_gzip(path: &Path) -> Result<bool, DataError> {
    let (mut file, len) = open_file(path)?;
    let mut start = [0; 2];
    if len >= 2 {
        file.read_exact(&mut start).map_err(DataError::io(path))?;
    }
    Ok(start == GZIP_START)
}

fn read_whole(stream: &mut dyn Read, path: &Path, head: &Head) -> Result<Box<[u8]>, DataError> {
    check_size(path, head)?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(malformed(&path.join(&head.path)))?;
    if bytes.len() as u64 != head.size {
        return Err(cut(path, head));
    }
    Ok(bytes.into())
}

/// An archive ends with blocks of zeros: where there is none, what followed
/// is gone.
fn check_end(path: &Path, len: u64, end: u64) -> Result<(), DataError> {
    if len >= end.saturating_add(BLOCK) {
        return Ok(());
    }
    Err(DataError::Malformed {
        path: path.to_owned(),
        problem: if len == 0 {
            "it is empty, not a tar archive".to_owned()
        } else {
            "it ends without the mark that ends a tar archive: it was cut, and members may be \
             missing; get it again"
                .to_owned()
        },
    })
}

fn check_size(path: &Path, head: &Head) -> Result<(), DataError> {
    if head.size <= MAX_MEMBER {
        return Ok(());
    }
    Err(DataError::TooLarge {
        path: path.join(&head.path),
        what: "the size of a member",
        limit: MAX_MEMBER,
        advice: "no image is that large",
    })
}

fn cut(path: &Path, head: &Head) -> DataError {
    malformed(&path.join(&head.path))(io::Error::other("the archive ends within a member"))
}

fn malformed(path: &Path) -> impl Fn(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |error| DataError::Malformed {
        path: path.clone(),
        problem: format!("not a sound tar archive: {error}"),
    }
}

impl Default for Members {
    fn default() -> Self {
        let top = Folder {
            parent: 0,
            name: String::new(),
            entries: BTreeMap::new(),
        };
        Self {
            folders: vec![top],
            members: Vec::new(),
            replaced: BTreeSet::new(),
            left_out: LeftOut::default(),
        }
    }
}

impl Members {
    /// A folder's path with a `/` at its end; nothing for the archive's top.
    pub fn path_of(&self, folder: usize) -> String {
        let mut names = Vec::new();
        let mut at = folder;
        while at != 0 {
            names.push(self.folders[at].name.as_str());
            at = self.folders[at].parent;
        }
        names.iter().rev().map(|name| format!("{name}/")).collect()
    }

    /// Puts a member in its place. Members are numbered as they come.
    fn insert(&mut self, head: &Head, content: Content) {
        let number = self.members.len();
        self.members.push(match head.kind {
            _ if head.is_file() => Member::File(content),
            tar::EntryType::Link => Member::HardLink(head.target.clone()),
            tar::EntryType::Symlink => Member::SymbolicLink(head.target.clone()),
            _ => Member::Special,
        });
        if head.kind.is_pax_global_extensions() {
            return;
        }
        let Some(parts) = self.parts(&head.path) else {
            return;
        };
        let above = match head.kind.is_dir() || head.path.ends_with('/') {
            true => &parts[..],
            false => &parts[..parts.len().saturating_sub(1)],
        };
        let Some(folder) = self.folder(above) else {
            return;
        };
        let Some(name) = parts.get(above.len()) else {
            return;
        };
        match self.folders[folder].entries.get_mut(*name) {
            // A folder that holds something is not overwritten.
            Some(Node::Folder(_)) => {}
            Some(Node::Member(there)) => {
                *there = number;
                self.replaced.insert(parts.join("/"));
            }
            None => {
                let entries = &mut self.folders[folder].entries;
                entries.insert((*name).to_owned(), Node::Member(number));
            }
        }
    }

    /// A path's parts, unless it leads out of the archive or is deeper than
    /// any data set.
    fn parts<'a>(&mut self, path: &'a str) -> Option<Vec<&'a str>> {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") {
            self.left_out.outside.add(path);
            return None;
        }
        if parts.len() > MAX_DEPTH {
            self.left_out.deep.add(path.get(..100).unwrap_or(path));
            return None;
        }
        Some(parts)
    }

    /// The number of the folder at a path, which is made where it is missing.
    fn folder(&mut self, parts: &[&str]) -> Option<usize> {
        let mut at = 0;
        for part in parts {
            at = match self.folders[at].entries.get(*part) {
                Some(Node::Folder(folder)) => *folder,
                // What follows a link or a file would be unpacked elsewhere.
                Some(Node::Member(_)) => {
                    self.left_out.outside.add(&parts.join("/"));
                    return None;
                }
                None if self.folders.len() >= MAX_FOLDERS => {
                    self.left_out.deep.add(&parts.join("/"));
                    return None;
                }
                None => {
                    let new = self.folders.len();
                    self.folders.push(Folder {
                        parent: at,
                        name: (*part).to_owned(),
                        entries: BTreeMap::new(),
                    });
                    let entries = &mut self.folders[at].entries;
                    entries.insert((*part).to_owned(), Node::Folder(new));
                    new
                }
            };
        }
        Some(at)
    }
}

/// A decompressed stream that counts what was read, and fails once that is
/// more than was left.
struct Counted<'a> {
    inner: MultiGzDecoder<BufReader<File>>,
    read: u64,
    left: &'a mut u64,
    exceeded: bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
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
