//! What the paths in an archive say about split and class.

use std::collections::HashMap;
use std::path::Path;

use super::members::{Content, Wanted};
use crate::error::DataError;
use crate::file::read_at;
use crate::folder::is_image;
use crate::source::Split;

/// The longest `.cls` member that is read, in bytes.
const MAX_CLASS_NAME: usize = 1024;

/// How one archive is to be read for a split.
pub(super) struct Layout {
    split: Split,
    /// The split name that the archive's own name has, if any.
    named: Option<&'static str>,
}

/// An image or a class folder of the split.
pub(super) struct Located {
    /// The name that the split goes by here, such as `val`.
    pub split: &'static str,
    pub class: String,
    /// Whether a `.cls` member named the class.
    pub from_cls: bool,
    /// Path and bytes; none for a class folder.
    pub image: Option<(String, Content)>,
}

/// Split and class by a member's path alone.
struct Place<'a> {
    split: &'static str,
    class: Option<&'a str>,
}

impl Layout {
    /// The layout of the archive at `path`, by its name.
    pub fn new(path: &Path, split: Split) -> Layout {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
        Layout {
            split,
            named: words.find_map(split_name),
        }
    }

    /// Whether the archive's name says that it holds the other split.
    pub fn is_of_other_split(&self) -> bool {
        self.named
            .is_some_and(|name| !self.split.names().contains(&name))
    }

    /// Whether a member may be of use.
    pub fn wants(&self, path: &str) -> bool {
        let file = path.rsplit('/').next().unwrap_or_default();
        let of_use = file.is_empty() || is_image(file) || class_key(path).is_some();
        of_use
            && !file.starts_with('.')
            && self
                .place(path)
                .is_some_and(|p| self.split.names().contains(&p.split))
    }

    /// Split and class of a member: by the first folder that is named like a
    /// split and what comes below it, else by the archive's name and the
    /// member's own folder.
    fn place<'a>(&self, path: &'a str) -> Option<Place<'a>> {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|p| !p.is_empty() && *p != ".")
            .collect();
        // A folder of an archive that is itself named like a split may be a
        // class that happens to be called `train`.
        let is_folder = path.ends_with('/');
        let below = if self.named.is_some() && !is_folder {
            2
        } else {
            1
        };
        let folder = parts.iter().enumerate().find_map(|(at, part)| {
            let split = split_name(part)?;
            (at + below < parts.len()).then_some((at, split))
        });
        match (folder, self.named) {
            (Some((at, split)), _) => {
                let class = parts.get(at + 1).copied();
                let has_file = at + 2 < parts.len() || is_folder;
                Some(Place {
                    split,
                    class: class.filter(|_| has_file),
                })
            }
            (None, Some(_)) if is_folder => None,
            (None, Some(split)) => {
                let class = parts.len().checked_sub(2).map(|at| parts[at]);
                Some(Place { split, class })
            }
            (None, None) => None,
        }
    }

    /// The images of the archive at `archive`, each with its class.
    pub fn locate(
        &self,
        archive: &Path,
        members: Vec<Wanted>,
    ) -> Result<impl Iterator<Item = Located> + use<>, DataError> {
        let mut classes = HashMap::new();
        for member in &members {
            if let (Some(key), Some(content)) = (class_key(&member.path), &member.content) {
                let class = class_name(&archive.join(&member.path), archive, content)?;
                classes.insert(key.to_owned(), class);
            }
        }
        let mut located = Vec::new();
        for member in members {
            let Some(place) = self.place(&member.path) else {
                continue;
            };
            let split = place.split;
            let Some(content) = member.content else {
                if let (Some(class), true) = (place.class, classes.is_empty()) {
                    let class = class.to_owned();
                    located.push(Located {
                        split,
                        class,
                        from_cls: false,
                        image: None,
                    });
                }
                continue;
            };
            if class_key(&member.path).is_some() {
                continue;
            }
            let from_cls = !classes.is_empty();
            let class = if from_cls {
                classes.get(key(&member.path)).cloned()
            } else {
                place.class.map(str::to_owned)
            };
            let class = class.ok_or_else(|| DataError::Malformed {
                path: archive.join(&member.path),
                problem: if from_cls {
                    format!("there is no `{}.cls` with its class", key(&member.path))
                } else {
                    "it lies in no class folder and no .cls member tells its class".to_owned()
                },
            })?;
            located.push(Located {
                split,
                class,
                from_cls,
                image: Some((member.path, content)),
            });
        }
        Ok(located.into_iter())
    }
}

/// The split name that a word is, if it is one.
fn split_name(word: &str) -> Option<&'static str> {
    [Split::Train, Split::Test]
        .iter()
        .flat_map(|s| s.names())
        .copied()
        .find(|name| *name == word)
}

/// What the members of a WebDataset sample have in common: the path up to
/// the first dot of the file's name.
fn key(path: &str) -> &str {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    path[file..]
        .find('.')
        .map_or(path, |dot| &path[..file + dot])
}

/// The key of a member that holds a class.
fn class_key(path: &str) -> Option<&str> {
    path.strip_suffix(".cls").filter(|stem| *stem == key(path))
}

/// What a `.cls` member says: a name, or a number without leading zeros.
fn class_name(path: &Path, archive: &Path, content: &Content) -> Result<String, DataError> {
    let malformed = |problem: &str| DataError::Malformed {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let bytes = match content {
        Content::Kept(bytes) => bytes.to_vec(),
        Content::At { len, .. } if *len > MAX_CLASS_NAME => {
            return Err(malformed("a class is a number or a short name"));
        }
        &Content::At { offset, len } => {
            read_at(archive, offset, len).map_err(DataError::io(archive))?
        }
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| malformed("the class is not text"))?
        .trim();
    if text.is_empty() || text.len() > MAX_CLASS_NAME {
        return Err(malformed("a class is a number or a short name"));
    }
    Ok(text
        .parse::<u32>()
        .map_or_else(|_| text.to_owned(), |number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Split and class of a path in an archive of the given name.
    fn place(archive: &str, path: &str) -> Option<(&'static str, Option<String>)> {
        let layout = Layout::new(Path::new(archive), Split::Train);
        layout
            .place(path)
            .map(|p| (p.split, p.class.map(str::to_owned)))
    }

    fn class(split: &'static str, class: &str) -> Option<(&'static str, Option<String>)> {
        Some((split, Some(class.to_owned())))
    }

    #[test]
    fn the_first_folder_named_like_a_split_counts() {
        assert_eq!(place("a.tar", "train/cat/1.jpg"), class("train", "cat"));
        assert_eq!(
            place("a.tar", "./set/val/cat/deep/1.jpg"),
            class("val", "cat")
        );
        assert_eq!(place("a.tar", "test/train/1.jpg"), class("test", "train"));
        assert_eq!(place("a.tar", "train/cat/"), class("train", "cat"));
        assert_eq!(place("a.tar", "train/"), None);
        assert_eq!(place("a.tar", "cat/1.jpg"), None);
    }

    #[test]
    fn an_archive_named_like_a_split_needs_no_such_folder() {
        assert_eq!(
            place("cifar-train.tar.gz", "train/cat/1.jpg"),
            class("train", "cat")
        );
        assert_eq!(
            place("cifar-train.tar.gz", "cat/1.jpg"),
            class("train", "cat")
        );
        assert_eq!(
            place("cifar-train.tar.gz", "train/1.jpg"),
            class("train", "train")
        );
        assert_eq!(place("train-000.tar", "000001.jpg"), Some(("train", None)));
        assert_eq!(place("val-000.tar", "cat/"), None);
        assert_eq!(place("trainee.tar", "000001.jpg"), None);
    }

    #[test]
    fn keys_end_at_the_first_dot_of_the_file_name() {
        assert_eq!(key("a.b/c.d.jpg"), "a.b/c");
        assert_eq!(class_key("a.b/c.cls"), Some("a.b/c"));
        assert_eq!(class_key("a.b/c.x.cls"), None);
    }
}
