//! An archive's members as a tree of folders, with links resolved inside it.

use super::members::{Content, Member, Members, Node};
use crate::error::DataError;
use crate::tree::{Entry, EntryOf, Kind, Store};

/// The longest chain of links, as on disk.
pub(super) const MAX_LINKS: usize = 40;

/// A file of an archive, by the numbers of members.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The member at its path: of a link, the link itself.
    pub order: usize,
    /// The member that has the bytes.
    pub member: usize,
}

/// The result of resolving a path in an archive.
pub(super) enum Target {
    Folder(usize),
    Member(usize),
    Missing,
    Outside,
}

impl Store for Members {
    type Folder = usize;
    type File = Place;
    type Id = usize;

    fn entries(&self, folder: &usize) -> Result<Vec<EntryOf<Self>>, DataError> {
        let entries = self.folders[*folder].entries.iter();
        let entries = entries.map(|(name, &node)| {
            let (target, linked) = match node {
                Node::Folder(inner) => (Target::Folder(inner), false),
                Node::Member(member) => (self.follow(*folder, member, &mut { MAX_LINKS }), true),
            };
            let kind = match (target, node) {
                (Target::Folder(inner), _) => Kind::Folder(inner),
                (Target::Missing, _) => Kind::Broken,
                (Target::Outside, _) => Kind::Outside,
                (Target::Member(member), Node::Member(order)) => match self.members[member] {
                    Member::File(_) => Kind::File(Place { order, member }),
                    _ => Kind::Special,
                },
                (Target::Member(_), Node::Folder(_)) => Kind::Broken,
            };
            Entry {
                name: name.clone(),
                linked,
                kind,
            }
        });
        Ok(entries.collect())
    }

    fn id(&self, folder: &usize) -> usize {
        *folder
    }

    fn is_within(&self, folder: &usize, outer: &usize) -> bool {
        let mut at = *folder;
        while at != *outer {
            if at == 0 {
                return false;
            }
            at = self.folders[at].parent;
        }
        true
    }
}

impl Members {
    /// The content of a member that is a file.
    pub fn content(&self, member: usize) -> Option<&Content> {
        match &self.members[member] {
            Member::File(content) => Some(content),
            _ => None,
        }
    }

    /// What a member in `folder` is, or leads to through at most `links` links.
    /// Links are counted over the whole resolution, as links whose paths contain
    /// links would take exponential time otherwise.
    pub fn follow(&self, folder: usize, member: usize, links: &mut usize) -> Target {
        let (from, path) = match &self.members[member] {
            Member::File(_) | Member::Special => return Target::Member(member),
            // Each leads to a member before it, so they end.
            Member::HardLink(before) => return self.follow(folder, *before, links),
            Member::Missing => return Target::Missing,
            Member::Outside => return Target::Outside,
            Member::SymbolicLink(path) if path.starts_with('/') => return Target::Outside,
            Member::SymbolicLink(path) => (folder, path),
        };
        match links.checked_sub(1) {
            Some(left) => *links = left,
            None => return Target::Missing,
        }
        self.resolve(from, path, links)
    }

    /// What a path from a folder leads to.
    pub fn resolve(&self, from: usize, path: &str, links: &mut usize) -> Target {
        let mut at = from;
        let mut parts = path.split('/').filter(|p| !p.is_empty() && *p != ".");
        while let Some(part) = parts.next() {
            if part == ".." {
                if at == 0 {
                    return Target::Outside;
                }
                at = self.folders[at].parent;
                continue;
            }
            match self.folders[at].entries.get(part) {
                None => return Target::Missing,
                Some(&Node::Folder(inner)) => at = inner,
                Some(&Node::Member(member)) => {
                    let last = parts.clone().next().is_none();
                    match self.follow(at, member, links) {
                        Target::Folder(inner) => at = inner,
                        target if last => return target,
                        Target::Outside => return Target::Outside,
                        _ => return Target::Missing,
                    }
                }
            }
        }
        Target::Folder(at)
    }
}
