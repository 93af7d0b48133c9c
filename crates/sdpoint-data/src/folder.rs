//! `folder:DIR`: class folders of JPEG and PNG files under `train/` and
//! `test/` or `val/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Contents, Images};
use crate::decode::decode;
use crate::error::{DataError, ImageError, quoted};
use crate::image::Image;
use crate::source::Split;

/// Lists one split. Files are not opened: a large data set has a million.
pub(crate) fn open(root: &Path, split: Split) -> Result<Contents, DataError> {
    let entries = sorted_entries(root)?;
    let is = |name: &str| entries.iter().any(|e| e.name == name && e.path.is_dir());
    let Some(folder) = split
        .names()
        .iter()
        .find(|name| is(name))
        .map(|name| root.join(name))
    else {
        return Err(DataError::NoSplit {
            path: root.to_owned(),
            split,
            expected: format!("a folder {}", quoted(split.names())),
            found: listed(&entries),
        });
    };
    let entries = sorted_entries(&folder)?;
    let mut contents = Files {
        root: root.to_owned(),
        files: Vec::new(),
    };
    let (mut classes, mut labels, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for class in entries
        .iter()
        .filter(|e| e.path.is_dir() && !e.name.starts_with('.'))
    {
        collect(&class.path, root, &mut contents.files)?;
        if labels.len() == contents.files.len() {
            empty.push(class.name.clone());
        }
        labels.resize(contents.files.len(), classes.len() as u32);
        classes.push(class.name.clone());
    }
    if classes.is_empty() {
        return Err(DataError::NoSplit {
            path: folder,
            split,
            expected: "a folder of images for each class".to_owned(),
            found: listed(&entries),
        });
    }
    if !empty.is_empty() {
        return Err(DataError::EmptyClass {
            path: folder,
            classes: quoted(&empty),
        });
    }
    Ok(Contents {
        classes,
        labels,
        images: Box::new(contents),
    })
}

/// Whether a file's name says that it is an image of a kind that is read.
pub(crate) fn is_image(name: &str) -> bool {
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
}

struct Files {
    root: PathBuf,
    /// Paths from the root, which a million of need not repeat.
    files: Vec<Box<Path>>,
}

impl Images for Files {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        decode(&fs::read(self.root.join(&self.files[index]))?)
    }

    fn name(&self, index: usize) -> String {
        self.root.join(&self.files[index]).display().to_string()
    }
}

/// Adds the images in `folder` and the folders within it, in the order of
/// their names. A link to a folder is not followed: it might lead in circles.
fn collect(folder: &Path, root: &Path, files: &mut Vec<Box<Path>>) -> Result<(), DataError> {
    for entry in sorted_entries(folder)? {
        if entry.is_real_folder {
            collect(&entry.path, root, files)?;
        } else if is_image(&entry.name) && !entry.name.starts_with('.') {
            files.push(entry.path.strip_prefix(root).unwrap_or(&entry.path).into());
        }
    }
    Ok(())
}

pub(crate) struct Entry {
    pub name: String,
    pub path: PathBuf,
    is_real_folder: bool,
}

/// What a folder holds, sorted by name, so that no file system's order shows.
pub(crate) fn sorted_entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let kind = entry.file_type().map_err(DataError::io(entry.path()))?;
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            path: entry.path(),
            is_real_folder: kind.is_dir(),
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The entries' names for a message.
pub(crate) fn listed(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nothing".to_owned();
    }
    quoted(&entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>())
}
