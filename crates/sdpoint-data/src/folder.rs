//! `folder:DIR`: class folders of JPEG, PNG and WebP files under `train/` and
//! `test/` or `val/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::refuse_archive;
use crate::contents::{Contents, Images};
use crate::decode::decode;
use crate::decode::kind::ImageKind;
use crate::error::{DataError, ImageError};
use crate::file::read_file;
use crate::image::Image;
use crate::layout::{check_classes, meant};
use crate::names::{quoted, text_of};
use crate::split::Split;
use crate::tree::{ClassTree, Entry, EntryOf, Kind, Store, choose, is_hidden};

/// Lists one split. Files are not opened: a large data set has a million.
pub(crate) fn open(root: &Path, split: Split) -> Result<Contents, DataError> {
    refuse_archive(root, true)?;
    let disk = Disk::new(root);
    let found = disk.entries(&disk.top()?)?;
    let folders = split_folders(split, &found);
    let names: Vec<String> = folders.iter().map(|(name, _)| name.clone()).collect();
    let chosen = choose(&names, |index| ClassTree::read(&disk, &folders[index].1))?;
    let Some((index, tree)) = chosen else {
        return Err(DataError::NoSplit {
            path: root.to_owned(),
            split,
            expected: format!("a folder {}", quoted(split.names())),
            found: listed(&found),
            hint: meant(root),
        });
    };
    check_classes(&tree, &folders[index].1.path, root, split, || {
        Ok(listed(&disk.entries(&folders[index].1)?))
    })?;
    let (mut classes, mut labels, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (class, images) in tree.classes {
        files.extend(images);
        labels.resize(files.len(), classes.len() as u32);
        classes.push(class);
    }
    Ok(Contents {
        classes,
        labels,
        left_out: tree.left_out,
        images: Box::new(Files {
            root: root.to_owned(),
            files,
        }),
    })
}

/// The folders named like the split, in order of preference; lower-case names
/// come first.
fn split_folders(split: Split, found: &[EntryOf<Disk>]) -> Vec<(String, Folder)> {
    let mut folders = Vec::new();
    for wanted in split.names() {
        let mut named: Vec<_> = found
            .iter()
            .filter(|entry| entry.name.eq_ignore_ascii_case(wanted))
            .collect();
        named.sort_by_key(|entry| entry.name != *wanted);
        for entry in named {
            if let Kind::Folder(folder) = &entry.kind {
                folders.push((entry.name.clone(), folder.clone()));
            }
        }
    }
    folders
}

/// Whether a file's extension is that of a supported kind of image.
pub(crate) fn is_image(name: &str) -> bool {
    ImageKind::of_name(name).is_some()
}

struct Files {
    root: PathBuf,
    /// Paths relative to the root, to save memory.
    files: Vec<Box<Path>>,
}

impl Images for Files {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        decode(&read_file(&self.root.join(&self.files[index]))?)
    }

    fn name(&self, index: usize) -> String {
        self.root.join(&self.files[index]).display().to_string()
    }

    fn key(&self, index: usize) -> String {
        text_of(self.files[index].as_os_str())
    }

    fn stored(&self, index: usize) -> Result<u64, DataError> {
        let path = self.root.join(&self.files[index]);
        let metadata = fs::metadata(&path).map_err(DataError::io(path))?;
        Ok(metadata.len())
    }

    fn bytes(&self, index: usize) -> Option<Vec<u8>> {
        read_file(&self.root.join(&self.files[index])).ok()
    }
}

/// The file system below a folder.
pub(crate) struct Disk {
    root: PathBuf,
}

/// A folder on disk.
#[derive(Clone)]
pub(crate) struct Folder {
    /// As it was reached.
    pub path: PathBuf,
    /// Without links.
    real: PathBuf,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn top(&self) -> Result<Folder, DataError> {
        let real = fs::canonicalize(&self.root).map_err(DataError::io(&self.root))?;
        Ok(Folder {
            path: self.root.clone(),
            real,
        })
    }
}

impl Store for Disk {
    type Folder = Folder;
    type File = Box<Path>;
    type Id = PathBuf;

    fn entries(&self, folder: &Folder) -> Result<Vec<EntryOf<Self>>, DataError> {
        let path = &folder.path;
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(DataError::io(path))? {
            let entry = entry.map_err(DataError::io(path))?;
            let kind = entry.file_type().map_err(DataError::io(entry.path()))?;
            let path = entry.path();
            let linked = kind.is_symlink();
            // Except for links, the directory entry has the type, which saves a
            // system call per file.
            let target = linked.then(|| fs::metadata(&path));
            let kind = match target {
                None => Some(kind),
                Some(Ok(target)) => Some(target.file_type()),
                Some(Err(_)) => None,
            };
            let kind = match kind {
                None => Kind::Broken,
                Some(kind) if kind.is_dir() => Kind::Folder(Folder {
                    real: if linked {
                        fs::canonicalize(&path).map_err(DataError::io(&path))?
                    } else {
                        folder.real.join(entry.file_name())
                    },
                    path,
                }),
                Some(kind) if kind.is_file() => {
                    Kind::File(path.strip_prefix(&self.root).unwrap_or(&path).into())
                }
                Some(_) => Kind::Special,
            };
            let name = entry.file_name();
            entries.push((name, linked, kind));
        }
        // Independent of the file system's order.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let entries = entries.into_iter().map(|(name, linked, kind)| Entry {
            name: text_of(&name),
            linked,
            kind,
        });
        Ok(entries.collect())
    }

    fn id(&self, folder: &Folder) -> PathBuf {
        folder.real.clone()
    }

    fn is_within(&self, folder: &Folder, outer: &Folder) -> bool {
        folder.real.starts_with(&outer.real)
    }
}

/// The entries' names for a message, hidden ones last.
pub(crate) fn listed<D, F>(entries: &[Entry<D, F>]) -> String {
    if entries.is_empty() {
        return "nothing".to_owned();
    }
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_by_key(|name| is_hidden(name));
    quoted(&names)
}
