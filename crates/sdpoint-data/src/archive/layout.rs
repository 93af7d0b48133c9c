//! Which folders of an archive belong to which split.

use std::collections::HashSet;
use std::path::Path;

use super::members::Members;
use crate::error::DataError;
use crate::folder::is_image;
use crate::names::text_of;
use crate::split::Split;
use crate::tree::{Kind, Store, is_hidden, split_name};

/// The depth down to which folders named like splits are searched.
const MAX_DEPTH: usize = 8;

/// How an archive is read for a split.
pub(super) struct Layout {
    split: Split,
    /// The split's name in the archive's own name, if any.
    named: Option<&'static str>,
}

/// A folder of an archive with a split.
pub(super) struct Root {
    pub name: &'static str,
    pub folder: usize,
}

impl Layout {
    /// The layout of the archive at `path`, by its name.
    pub fn new(path: &Path, split: Split) -> Layout {
        let name = text_of(path.file_name().unwrap_or_default()).to_ascii_lowercase();
        let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
        Layout {
            split,
            named: words.find_map(split_name),
        }
    }

    /// Whether the archive's name says that it holds the other split.
    pub fn is_of_other_split(&self) -> bool {
        self.named.is_some_and(|name| !self.is_wanted(name))
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.split.names().contains(&name)
    }

    /// Whether a file at this path may be relevant, judging by the path. A file
    /// that is not may still be the target of a link.
    pub fn may_hold(&self, path: &str) -> bool {
        let mut parts = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        let in_split = self.named.is_some()
            || parts
                .clone()
                .any(|part| split_name(part).is_some_and(|name| self.is_wanted(name)));
        in_split && !parts.any(is_hidden)
    }

    /// The folders with the split: those named like it, at any depth; or else
    /// the root of the data, if the archive itself is named like it.
    pub fn roots(&self, members: &Members) -> Result<Vec<Root>, DataError> {
        let mut roots = Vec::new();
        let mut seen = HashSet::from([0]);
        let mut level = vec![0];
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for folder in level {
                for (name, inner) in inner_folders(members, folder)? {
                    if !seen.insert(inner) {
                        continue;
                    }
                    match split_name(&name) {
                        // In an archive of one split a class may be called
                        // `train`, which holds images then.
                        Some(name) if self.named.is_none() || holds_folders(members, inner)? => {
                            roots.push(Root {
                                name,
                                folder: inner,
                            });
                        }
                        _ => next.push(inner),
                    }
                }
            }
            level = next;
        }
        if let (true, Some(name)) = (roots.is_empty(), self.named) {
            let folder = unwrapped(members)?;
            roots.push(Root { name, folder });
        }
        roots.retain(|root| self.is_wanted(root.name));
        Ok(roots)
    }
}

/// The archive's top level, or the only folder in it, and so on, down to the
/// first folder that does not contain just one folder of folders.
fn unwrapped(members: &Members) -> Result<usize, DataError> {
    let mut at = 0;
    for _ in 0..MAX_DEPTH {
        let inner = inner_folders(members, at)?;
        let [(_, only)] = inner[..] else { break };
        if holds_images(members, at)? || !holds_folders(members, only)? {
            break;
        }
        at = only;
    }
    Ok(at)
}

fn inner_folders(members: &Members, folder: usize) -> Result<Vec<(String, usize)>, DataError> {
    let entries = members.entries(&folder)?.into_iter();
    let folders = entries.filter_map(|entry| match entry.kind {
        Kind::Folder(inner) if !is_hidden(&entry.name) => Some((entry.name, inner)),
        _ => None,
    });
    Ok(folders.collect())
}

fn holds_folders(members: &Members, folder: usize) -> Result<bool, DataError> {
    Ok(!inner_folders(members, folder)?.is_empty())
}

fn holds_images(members: &Members, folder: usize) -> Result<bool, DataError> {
    let mut entries = members.entries(&folder)?.into_iter();
    Ok(entries.any(|entry| matches!(entry.kind, Kind::File(_)) && is_image(&entry.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archives_name_tells_its_split_by_whole_words() {
        let named = |name| Layout::new(Path::new(name), Split::Train).named;
        assert_eq!(named("cifar-train.tar.gz"), Some("train"));
        assert_eq!(named("VAL_0001.tar"), Some("val"));
        assert_eq!(named("trainee.tar"), None);
        assert!(Layout::new(Path::new("x-val.tar"), Split::Train).is_of_other_split());
    }

    #[test]
    fn bytes_are_kept_where_the_path_is_of_the_split() {
        let may_hold = |archive, path| Layout::new(Path::new(archive), Split::Train).may_hold(path);
        assert!(may_hold("a.tar.gz", "set/train/cat/1.jpg"));
        assert!(!may_hold("a.tar.gz", "set/val/cat/1.jpg"));
        assert!(!may_hold("a.tar.gz", "__MACOSX/train/cat/1.jpg"));
        assert!(may_hold("train-0.tar.gz", "cat/1.jpg"));
    }
}
