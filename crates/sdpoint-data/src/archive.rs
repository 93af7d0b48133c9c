//! `tar:PATH`: images in archives, read without unpacking them to disk.
//!
//! Two layouts are known, told apart archive by archive: the tree of
//! `folder:` (`train/CLASS/….jpg`), and WebDataset's pairs of members
//! (`KEY.jpg` with `KEY.cls`). What belongs to which split is said by the
//! members' paths or by the archive's name (`train-000000.tar`). Of a plain
//! archive only the members' places are kept in memory; a compressed one
//! cannot be read out of order, so its images' bytes are kept.

mod layout;
mod members;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Contents, Images, OpenOptions};
use crate::decode::decode;
use crate::error::{DataError, ImageError, quoted};
use crate::file::read_at;
use crate::folder::{listed, sorted_entries};
use crate::image::Image;
use crate::source::Split;
use layout::{Layout, Located};
use members::{Content, read_members};

/// Lists one split of the archives at `paths`, each an archive or a folder
/// that holds archives.
pub(crate) fn open(
    paths: &[PathBuf],
    split: Split,
    options: &OpenOptions,
) -> Result<Contents, DataError> {
    let mut archives = Vec::new();
    for path in paths {
        add_archives(path, split, &mut archives)?;
    }
    let mut memory = options.archive_bytes;
    let mut located = Vec::new();
    let mut other = Vec::new();
    for (number, path) in archives.iter().enumerate() {
        let layout = Layout::new(path, split);
        if layout.is_of_other_split() {
            other.push(path.display().to_string());
            continue;
        }
        let members = read_members(path, &mut memory, |member| layout.wants(member))?;
        other.extend(members.other);
        located.extend(layout.locate(path, members.wanted)?.map(|l| (number, l)));
    }
    // Where there is `test` as well as `val`, `test` alone is taken.
    let preferred = split
        .names()
        .iter()
        .find(|&name| located.iter().any(|(_, l)| l.split == *name));
    located.retain(|(_, l)| Some(&l.split) == preferred);
    if !located.iter().any(|(_, l)| l.image.is_some()) {
        return Err(DataError::NoSplit {
            path: paths.first().cloned().unwrap_or_default(),
            split,
            expected: format!(
                "members {0}/CLASS/….jpg, or KEY.jpg with KEY.cls in archives named {0}-….tar",
                split.names()[0]
            ),
            found: if other.is_empty() {
                "no image".to_owned()
            } else {
                quoted(&other)
            },
        });
    }
    into_contents(archives, located)
}

/// Adds the archive at `path`, or those in the folder at `path`.
fn add_archives(path: &Path, split: Split, archives: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !path.is_dir() {
        archives.push(path.to_owned());
        return Ok(());
    }
    let entries = sorted_entries(path)?;
    let is_archive = |name: &str| {
        let name = name.to_ascii_lowercase();
        [".tar", ".tar.gz", ".tgz"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let before = archives.len();
    archives.extend(
        entries
            .iter()
            .filter(|e| is_archive(&e.name))
            .map(|e| e.path.clone()),
    );
    if archives.len() == before {
        return Err(DataError::NoSplit {
            path: path.to_owned(),
            split,
            expected: "an archive (.tar, .tar.gz or .tgz)".to_owned(),
            found: listed(&entries),
        });
    }
    Ok(())
}

/// Numbers the classes: by name, or by value where all are numbers that
/// `.cls` members gave.
fn into_contents(
    archives: Vec<PathBuf>,
    located: Vec<(usize, Located)>,
) -> Result<Contents, DataError> {
    let numbered = located
        .iter()
        .all(|(_, l)| l.from_cls && l.class.parse::<u32>().is_ok());
    let mut classes: Vec<String> = {
        let mut images: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, l) in &located {
            *images.entry(&l.class).or_default() += usize::from(l.image.is_some());
        }
        let empty: Vec<&str> = images
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(c, _)| *c)
            .collect();
        if !empty.is_empty() {
            return Err(DataError::EmptyClass {
                path: archives[located[0].0].clone(),
                classes: quoted(&empty),
            });
        }
        images.into_keys().map(str::to_owned).collect()
    };
    if numbered {
        classes.sort_by_key(|class| class.parse::<u32>().unwrap_or(u32::MAX));
    }
    let ids: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let (mut labels, mut members) = (Vec::new(), Vec::new());
    for (archive, l) in located {
        if let Some((path, content)) = l.image {
            labels.push(ids[l.class.as_str()]);
            members.push(Member {
                archive,
                path,
                content,
            });
        }
    }
    drop(ids);
    Ok(Contents {
        classes,
        labels,
        images: Box::new(Members { archives, members }),
    })
}

struct Members {
    archives: Vec<PathBuf>,
    members: Vec<Member>,
}

struct Member {
    /// Number of its archive.
    archive: usize,
    path: String,
    content: Content,
}

impl Images for Members {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let member = &self.members[index];
        match &member.content {
            Content::Kept(bytes) => decode(bytes),
            &Content::At { offset, len } => {
                decode(&read_at(&self.archives[member.archive], offset, len)?)
            }
        }
    }

    fn name(&self, index: usize) -> String {
        let member = &self.members[index];
        format!(
            "{}: {}",
            self.archives[member.archive].display(),
            member.path
        )
    }
}
