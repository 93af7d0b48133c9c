//! The members of a tar archive, plain or compressed with gzip, as a tree.
//!
//! The tree is what unpacking would leave on disk: of several members with the
//! same path the last one counts, a hard link is what its target was when the
//! link was made, and symbolic links are entries of their own, resolved by
//! [`Members`] as a [`Store`](crate::tree::Store).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::fault::bad_header;
use super::links::{MAX_LINKS, Target};
use super::stream::{
    Head, check_end, check_rest, check_size, cut, is_gzip, read_compressed, read_whole,
};
use crate::error::DataError;
use crate::file::open_file;
use crate::left_out::LeftOut;

/// The most folders that a member's path may have.
const MAX_DEPTH: usize = 128;

/// The most folders of an archive: faces have some hundred thousand classes.
const MAX_FOLDERS: usize = 1 << 20;

/// A member's bytes, or their location.
#[derive(Clone)]
pub(super) enum Content {
    /// In the archive's file.
    At { offset: u64, len: usize },
    /// In memory.
    Kept(Box<[u8]>),
    /// In a compressed archive, not kept.
    Passed { len: u64 },
}

/// The members of an archive.
pub(super) struct Members {
    /// The folder 0 is the archive itself.
    pub folders: Vec<Folder>,
    /// In the archive's order.
    pub members: Vec<Member>,
    /// Paths that occur several times, where the last member counts.
    pub replaced: BTreeSet<String>,
    pub left_out: LeftOut,
}

pub(super) struct Folder {
    pub parent: usize,
    name: String,
    pub entries: BTreeMap<String, Node>,
}

/// The entry of a name in a folder, by number.
#[derive(Clone, Copy)]
pub(super) enum Node {
    Folder(usize),
    Member(usize),
}

pub(super) enum Member {
    File(Content),
    /// To a member before it.
    HardLink(usize),
    /// A hard link to a path of no member before it.
    Missing,
    /// A hard link out of the archive.
    Outside,
    /// To a path from the link's own folder.
    SymbolicLink(String),
    /// A device, a pipe, or a kind of member that only some programs know.
    Special,
}

/// Lists an archive. Of a compressed archive, the bytes of members for whose
/// paths `keep` is true are kept. All bytes that it unpacks to are subtracted
/// from `memory`, whether kept or not, which also stops decompression bombs.
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
    let entries = archive.entries_with_seek().map_err(DataError::io(path))?;
    let mut end = 0;
    let mut last: Option<String> = None;
    for entry in entries {
        let mut entry = entry.map_err(|error| match (&last, check_end(path, len, end)) {
            (Some(_), Err(truncated)) => truncated,
            (last, _) => bad_header(path, error, last.as_deref()),
        })?;
        let head = Head::of(path, &mut entry)?;
        let (offset, size) = (entry.raw_file_position(), head.size);
        end = head.end;
        if offset.checked_add(size).is_none_or(|end| end > len) {
            check_size(path, &head)?;
            return Err(cut(path, &head));
        }
        let len = size as usize;
        members.insert(&head, Content::At { offset, len });
        last = Some(head.path);
    }
    check_end(path, len, end)?;
    let (mut file, _) = open_file(path)?;
    file.seek(SeekFrom::Start(end))
        .map_err(DataError::io(path))?;
    check_rest(path, &mut file)?;
    Ok(members)
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

    /// Adds a member to the tree. Members are numbered in the archive's order.
    fn insert(&mut self, head: &Head, content: Content) {
        let number = self.members.len();
        self.members.push(match head.kind {
            _ if head.is_file() => Member::File(content),
            tar::EntryType::Link => self.hard_link(&head.target),
            tar::EntryType::Symlink => Member::SymbolicLink(head.target.clone()),
            _ => Member::Special,
        });
        if head.kind.is_pax_global_extensions() {
            return;
        }
        let Some(parts) = self.parts(&head.path) else {
            return;
        };
        let Some((name, above)) = parts.split_last() else {
            return;
        };
        let Some(folder) = self.folder(above) else {
            return;
        };
        let is_folder = head.kind.is_dir() || head.path.ends_with('/');
        match (self.folders[folder].entries.get(*name), is_folder) {
            (Some(Node::Folder(_)), true) => return,
            // A folder that holds something is not overwritten.
            (Some(&Node::Folder(there)), false) if !self.folders[there].entries.is_empty() => {
                self.left_out.obstructed.add(&parts.join("/"));
                return;
            }
            (Some(_), _) => {
                self.replaced.insert(parts.join("/"));
            }
            (None, _) => {}
        }
        let node = match is_folder {
            true => match self.new_folder(folder, name) {
                Some(new) => Node::Folder(new),
                None => return self.left_out.deep.add(&parts.join("/")),
            },
            false => Node::Member(number),
        };
        let entries = &mut self.folders[folder].entries;
        entries.insert((*name).to_owned(), node);
    }

    /// A hard link to a path from the archive's top. The path may lead through
    /// symbolic links, but its last name is not followed if it is one.
    fn hard_link(&self, path: &str) -> Member {
        let path = path.trim_end_matches('/');
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = match self.resolve(0, above, &mut { MAX_LINKS }) {
            Target::Folder(folder) => folder,
            Target::Outside => return Member::Outside,
            Target::Member(_) | Target::Missing => return Member::Missing,
        };
        match self.folders[folder].entries.get(name) {
            Some(&Node::Member(member)) => Member::HardLink(member),
            _ => Member::Missing,
        }
    }

    /// A path's components, unless it leads out of the archive or is too deep.
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

    /// The number of the folder at a path, created if missing. Links to folders
    /// are followed, as a program that unpacks follows them on disk.
    fn folder(&mut self, parts: &[&str]) -> Option<usize> {
        let mut at = 0;
        for part in parts {
            at = match self.folders[at].entries.get(*part) {
                Some(Node::Folder(folder)) => *folder,
                Some(&Node::Member(member)) => {
                    match self.follow(at, member, &mut { MAX_LINKS }) {
                        Target::Folder(folder) => folder,
                        Target::Outside => {
                            self.left_out.outside.add(&parts.join("/"));
                            return None;
                        }
                        // No folder can be created where there is a file.
                        Target::Member(_) | Target::Missing => {
                            self.left_out.obstructed.add(&parts.join("/"));
                            return None;
                        }
                    }
                }
                None => {
                    let Some(new) = self.new_folder(at, part) else {
                        self.left_out.deep.add(&parts.join("/"));
                        return None;
                    };
                    let entries = &mut self.folders[at].entries;
                    entries.insert((*part).to_owned(), Node::Folder(new));
                    new
                }
            };
        }
        Some(at)
    }

    /// The number of a new folder, which is not an entry of its parent yet;
    /// `None` if there are too many.
    fn new_folder(&mut self, parent: usize, name: &str) -> Option<usize> {
        let number = self.folders.len();
        if number >= MAX_FOLDERS {
            return None;
        }
        self.folders.push(Folder {
            parent,
            name: name.to_owned(),
            entries: BTreeMap::new(),
        });
        Some(number)
    }
}
