//! `tar:PATH`: images in archives, read without unpacking them to disk.
//!
//! Two layouts are supported and detected per archive: the tree of `folder:`
//! (`train/CLASS/….jpg`), read by the same code, and WebDataset's samples
//! (`KEY.jpg` with `KEY.cls`). The split of a member follows from its path or
//! from the archive's name (`train-000000.tar`). Of a plain archive, only the
//! members' offsets are kept in memory. A compressed one cannot be read out of
//! order, so its images are kept in compressed form.

mod distinct;
mod fault;
mod format;
mod gunzip;
mod layout;
mod links;
mod members;
mod pictures;
mod samples;
mod stream;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sdpoint_core::file::FileError;

use crate::contents::Contents;
use crate::error::DataError;
use crate::expand::expand;
use crate::file::read_at;
use crate::folder::{Disk, listed};
use crate::layout::{check_classes, meant};
use crate::left_out::LeftOut;
use crate::names::quoted;
use crate::options::OpenOptions;
use crate::split::Split;
use crate::tree::{ClassTree, Met, Store, choose, is_hidden, split_name, walk};
use distinct::check_distinct;
pub(crate) use format::{is_other_name, is_tar_name, refuse_archive};
use layout::Layout;
use links::Place;
use members::{Content, Members, read_members};
use pictures::{Picture, into_contents};
use samples::Shard;
use stream::read_passed;

/// Lists one split of the archives at `paths`, each an archive, a folder of
/// archives, or a pattern.
pub(crate) fn open(
    paths: &[PathBuf],
    split: Split,
    options: &OpenOptions,
) -> Result<Contents, DataError> {
    let mut archives = Vec::new();
    let mut unread = LeftOut::default();
    for path in paths {
        for path in expand(path)? {
            add_archives(&path, split, &mut archives, &mut unread)?;
        }
    }
    check_distinct(&archives)?;
    let mut memory = options.archive_bytes;
    let mut parts = Vec::new();
    let mut other = Vec::new();
    for (number, path) in archives.iter().enumerate() {
        let layout = Layout::new(path, split);
        if layout.is_of_other_split() {
            other.push(path.display().to_string());
            continue;
        }
        let archive = Archive::read(number, path, &layout, options, &mut memory)?;
        let found = archive.parts(&layout)?;
        if found.is_empty() {
            other.extend(archive.names()?);
        }
        parts.extend(found);
    }
    let names = names_of(split, &parts);
    let mut parts: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
    let (mut numbered, mut hint) = (true, None);
    let chosen = choose(&names, |index| {
        let mut tree = ClassTree::default();
        (numbered, hint) = (true, None);
        for part in &mut parts {
            if let Some(part) = part.take_if(|part| part.name == names[index]) {
                numbered &= part.has_samples;
                hint = hint.take().or(part.hint);
                tree.merge(part.tree);
            }
        }
        Ok(tree)
    })?;
    let place = paths.first().cloned().unwrap_or_default();
    let Some((_, mut tree)) = chosen else {
        return Err(DataError::NoSplit {
            path: place.clone(),
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
            hint: cifar_hint(&other, &place),
        });
    };
    tree.left_out.merge(unread);
    if tree.classes.is_empty() || (tree.filled() < 2 && hint.is_some()) {
        let classes: Vec<&String> = tree.classes.keys().collect();
        let folders = (!classes.is_empty()).then(|| format!("a folder {}", quoted(&classes)));
        let found: Vec<String> = folders.into_iter().chain(tree.left_out.lines()).collect();
        return Err(DataError::NoSplit {
            path: place,
            split,
            expected: "a folder for each class, or a .cls member for each image".to_owned(),
            found: found.join("; "),
            hint,
        });
    }
    if let (false, Some(option)) = (numbered, options.sample_option()) {
        return Err(DataError::Option(format!(
            "{option} is for WebDataset samples; the images in {} are in class folders",
            place.display()
        )));
    }
    check_classes(&tree, &place, &place, split, || Ok(String::new()))?;
    Ok(into_contents(archives, tree, numbered))
}

/// The possible names of the split, the preferred one first.
fn names_of(split: Split, parts: &[Part]) -> Vec<String> {
    let names = split.names().iter();
    let there = names.filter(|&name| parts.iter().any(|part| part.name == *name));
    there.map(|&name| name.to_owned()).collect()
}

fn cifar_hint(names: &[String], place: &Path) -> Option<String> {
    let kind = match names {
        names if names.iter().any(|n| n.contains("cifar-100-")) => "cifar100",
        names if names.iter().any(|n| n.contains("cifar-10-")) => "cifar10",
        _ => return meant(place),
    };
    Some(format!(
        "these look like CIFAR's own files: use {kind}:{}",
        place.display()
    ))
}

/// Adds the archive at `path`, or those in the folder at `path`.
fn add_archives(
    path: &Path,
    split: Split,
    archives: &mut Vec<PathBuf>,
    unread: &mut LeftOut,
) -> Result<(), DataError> {
    if !path.is_dir() {
        refuse_archive(path, false)?;
        archives.push(path.to_owned());
        return Ok(());
    }
    let before = archives.len();
    let mut others = Vec::new();
    let disk = Disk::new(path);
    let entries = disk.entries(&disk.top()?)?;
    for entry in &entries {
        if is_tar_name(&entry.name) && !is_hidden(&entry.name) {
            archives.push(path.join(&entry.name));
        } else if is_other_name(&entry.name) {
            unread.other_kind(&entry.name);
            others.push(path.join(&entry.name));
        }
    }
    if archives.len() == before {
        for other in &others {
            refuse_archive(other, false)?;
        }
        return Err(DataError::NoSplit {
            path: path.to_owned(),
            split,
            expected: "an archive (.tar, .tar.gz or .tgz)".to_owned(),
            found: listed(&entries),
            hint: (entries
                .iter()
                .any(|entry| split_name(&entry.name).is_some()))
            .then(|| format!("for folders of images use folder:{}", path.display())),
        });
    }
    Ok(())
}

/// The files of these names in the folder `folder` of an archive, or at its top
/// level if it has no such folder. It may unpack to at most `limit` bytes.
pub(crate) fn read_files(
    path: &Path,
    folder: &str,
    names: &[&str],
    limit: u64,
) -> Result<HashMap<String, Arc<[u8]>>, DataError> {
    let wanted = |member: &str| {
        let member = member.strip_prefix("./").unwrap_or(member);
        let name = member
            .strip_prefix(folder)
            .map(|name| name.trim_start_matches('/'));
        let name = name.unwrap_or(member);
        names.iter().find(|wanted| **wanted == name).copied()
    };
    let members = read_members(path, &mut { limit }, &|member| wanted(member).is_some())?;
    let mut found = Vec::new();
    walk(&members, &0, &mut LeftOut::default(), &mut |member, met| {
        if let (Met::File(place), Some(name)) = (met, wanted(member)) {
            found.push((name, place));
        }
    })?;
    let mut files = HashMap::new();
    for (name, place) in found {
        let bytes: Arc<[u8]> = match members.content(place.member) {
            Some(Content::Kept(bytes)) => bytes.as_ref().into(),
            Some(&Content::At { offset, len }) if len as u64 <= limit => read_at(path, offset, len)
                .map_err(DataError::file(path))?
                .into(),
            _ => continue,
        };
        files.insert(name.to_owned(), bytes);
    }
    Ok(files)
}

/// A listed archive.
struct Archive<'a> {
    number: usize,
    path: &'a Path,
    options: &'a OpenOptions,
    members: Members,
}

/// The part of an archive that belongs to a split, under one of its names.
struct Part {
    name: &'static str,
    /// Whether its classes were read from members, as in WebDataset.
    has_samples: bool,
    /// A hint how to give its images classes, if they have none.
    hint: Option<String>,
    tree: ClassTree<Picture>,
}

impl<'a> Archive<'a> {
    fn read(
        number: usize,
        path: &'a Path,
        layout: &Layout,
        options: &'a OpenOptions,
        memory: &mut u64,
    ) -> Result<Self, DataError> {
        let members = read_members(path, memory, &|member| {
            samples::may_matter(member, options) && layout.may_hold(member)
        })?;
        Ok(Self {
            number,
            path,
            options,
            members,
        })
    }

    /// The names of its files, for a message.
    fn names(&self) -> Result<Vec<String>, DataError> {
        let mut names = Vec::new();
        walk(
            &self.members,
            &0,
            &mut LeftOut::default(),
            &mut |path, met| {
                if matches!(met, Met::File(_)) {
                    names.push(path.to_owned());
                }
            },
        )?;
        Ok(names)
    }

    fn parts(&self, layout: &Layout) -> Result<Vec<Part>, DataError> {
        let roots = layout.roots(&self.members)?.into_iter();
        let parts = roots.map(|root| self.part(root.name, root.folder));
        let mut parts = parts.collect::<Result<Vec<Part>, _>>()?;
        if let Some(first) = parts.first_mut() {
            // It is not known which split these members would belong to.
            first.tree.left_out.merge(self.members.left_out.clone());
        }
        Ok(parts)
    }

    fn part(&self, name: &'static str, root: usize) -> Result<Part, DataError> {
        let above = self.members.path_of(root);
        let mut left_out = LeftOut::default();
        let mut folders = Vec::new();
        let mut files = Vec::new();
        walk(
            &self.members,
            &root,
            &mut left_out,
            &mut |path, met| match met {
                Met::Folder => folders.push(path.to_owned()),
                Met::File(place) => files.push((format!("{above}{path}"), place)),
            },
        )?;
        for path in self
            .members
            .replaced
            .iter()
            .filter(|p| p.starts_with(&above))
        {
            left_out.replaced.add(path);
        }
        let shard = Shard {
            archive: self.path,
            files: &files,
            replaced: &self.members.replaced,
            options: self.options,
            bytes: &|place, limit| self.bytes(place, limit),
        };
        let has_samples = shard.has_samples();
        let mut tree = if has_samples {
            shard.read()?
        } else {
            let mut tree = ClassTree::default();
            for folder in folders {
                tree.add(&folder, Met::Folder);
            }
            for (index, (path, _)) in files.iter().enumerate() {
                tree.add(&path[above.len()..], Met::File(index));
            }
            tree
        };
        // Samples without classes look like a single class, or none.
        let unlabelled = tree.filled() < 2;
        let hint = if unlabelled { shard.hint() } else { None };
        left_out.merge(std::mem::take(&mut tree.left_out));
        tree.left_out = left_out;
        Ok(Part {
            name,
            has_samples,
            hint,
            tree: self.pictures(tree, files)?,
        })
    }

    /// The images of a tree, given by their numbers among the files, with their
    /// bytes or the location of these.
    fn pictures(
        &self,
        tree: ClassTree<usize>,
        mut files: Vec<(String, Place)>,
    ) -> Result<ClassTree<Picture>, DataError> {
        let members = tree
            .classes
            .values()
            .flatten()
            .map(|&file| files[file].1.member);
        let is_passed =
            |member: &usize| matches!(self.members.content(*member), Some(Content::Passed { .. }));
        let passed: HashSet<usize> = members.filter(is_passed).collect();
        let mut late = HashMap::new();
        if !passed.is_empty() {
            // Links led to members whose own paths did not look relevant.
            late = read_passed(self.path, &mut { self.options.archive_bytes }, &passed)?;
        }
        Ok(tree.map(|file| {
            let (path, place) = &mut files[file];
            let content = match late.get(&place.member) {
                Some(bytes) => Some(Content::Kept(bytes.clone())),
                None => self.members.content(place.member).cloned(),
            };
            Picture {
                order: (self.number, place.order),
                path: std::mem::take(path),
                content: content.unwrap_or(Content::Passed { len: 0 }),
            }
        }))
    }

    /// The bytes of a member, if they are at most `limit`.
    fn bytes(&self, place: Place, limit: usize) -> Result<Vec<u8>, DataError> {
        let too_long = || DataError::File {
            path: self.path.to_owned(),
            error: FileError::TooLarge(limit as u64),
        };
        match self.members.content(place.member) {
            Some(Content::Kept(bytes)) if bytes.len() <= limit => Ok(bytes.to_vec()),
            Some(&Content::At { offset, len }) if len <= limit => {
                read_at(self.path, offset, len).map_err(DataError::file(self.path))
            }
            Some(&Content::Passed { len }) if len <= limit as u64 => {
                let wanted = HashSet::from([place.member]);
                let memory = &mut { self.options.archive_bytes };
                let mut bytes = read_passed(self.path, memory, &wanted)?;
                Ok(bytes.remove(&place.member).unwrap_or_default().into())
            }
            _ => Err(too_long()),
        }
    }
}
