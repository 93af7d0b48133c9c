//! Checks that class folders form a data set, with a suggestion of the folder
//! that was probably meant if they do not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{is_other_name, is_tar_name};
use crate::error::DataError;
use crate::names::{quoted, text_of};
use crate::split::Split;
use crate::tree::{ClassTree, is_hidden, split_name};

/// Entries of a folder that are examined for a suggestion.
const LOOKED_AT: usize = 200;

/// Files of CIFAR's own forms.
const CIFAR10_FILES: [&str; 2] = ["data_batch_1", "data_batch_1.bin"];
const CIFAR100_FILES: [&str; 2] = ["train", "train.bin"];

/// Rejects a split without classes, with a single class, or with empty classes.
/// `place` is the split's folder or archive, and `found` describes its content.
pub(crate) fn check_classes<F>(
    tree: &ClassTree<F>,
    place: &Path,
    root: &Path,
    split: Split,
    found: impl FnOnce() -> Result<String, DataError>,
) -> Result<(), DataError> {
    let names: Vec<&str> = tree.classes.keys().map(String::as_str).collect();
    if names.is_empty() {
        return Err(DataError::NoSplit {
            path: place.to_owned(),
            split,
            expected: "a folder of images for each class".to_owned(),
            found: found()?,
            hint: meant(root),
        });
    }
    if names.iter().all(|name| split_name(name).is_some()) {
        return Err(DataError::NoSplit {
            path: place.to_owned(),
            split,
            expected: "a folder of images for each class".to_owned(),
            found: quoted(&names),
            hint: has_split(place).then(|| did_you_mean(&[place.to_owned()])),
        });
    }
    let empty = tree.empty();
    if !empty.is_empty() {
        let lines = tree.left_out.lines();
        return Err(DataError::EmptyClass {
            path: place.to_owned(),
            classes: quoted(&empty),
            found: if lines.is_empty() {
                String::new()
            } else {
                format!(" (left out in all classes: {})", lines.join("; "))
            },
        });
    }
    if let [class] = names[..] {
        let inner: Vec<&String> = tree.inner.iter().collect();
        let hint = if inner.is_empty() {
            meant(root)
        } else {
            Some(format!(
                "if {} are the classes, move them from `{class}` to {}",
                quoted(&inner),
                place.display()
            ))
        };
        return Err(DataError::OneClass {
            path: place.to_owned(),
            class: class.to_owned(),
            hint,
        });
    }
    Ok(())
}

/// A suggestion what was probably meant by the folder `root`, as a sentence: a
/// folder above or below it with a data set, or CIFAR's files.
pub(crate) fn meant(root: &Path) -> Option<String> {
    let has_file = |name: &str| root.join(name).is_file();
    let cifar = |files: [&str; 2]| files.into_iter().any(has_file);
    let kind = match (cifar(CIFAR10_FILES), cifar(CIFAR100_FILES)) {
        (true, _) => Some("cifar10"),
        (_, true) => Some("cifar100"),
        _ => None,
    };
    if let Some(kind) = kind {
        return Some(format!(
            "these look like CIFAR's own files: use {kind}:{}",
            root.display()
        ));
    }
    if let Some(above) = above(root) {
        return Some(did_you_mean(&[above]));
    }
    let children = folders(root);
    let mut below: Vec<PathBuf> = children.iter().filter(|f| has_split(f)).cloned().collect();
    if below.is_empty() {
        below = children.iter().flat_map(|child| folders(child)).collect();
        below.retain(|folder| has_split(folder));
    }
    if !below.is_empty() {
        return Some(did_you_mean(&below));
    }
    if let Some(hint) = archives(root) {
        return Some(hint);
    }
    let classes = children
        .iter()
        .filter(|f| {
            f.file_name()
                .is_some_and(|n| split_name(&text_of(n)).is_none())
        })
        .filter(|f| has_image(f));
    (classes.count() >= 2).then(|| {
        "its folders look like classes: put them into a folder `train`, \
         and some images of each into the same folders in `test`"
            .to_owned()
    })
}

/// How archives in a folder are read.
fn archives(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root).ok()?.take(LOOKED_AT);
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| text_of(&entry.file_name()))
        .collect();
    names.sort();
    if names.iter().any(|name| is_tar_name(name)) {
        return Some(format!("its archives are read by tar:{}", root.display()));
    }
    let other = names.iter().find(|name| is_other_name(name))?;
    Some(format!("`{other}` has to be unpacked first"))
}

/// The folder one or two levels above, if `root` is a split or a class of
/// its data set.
fn above(root: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(root).ok()?;
    let mut inner = real.as_path();
    for level in 0..2 {
        let outer = inner.parent()?;
        let is_split = split_name(&text_of(inner.file_name()?)).is_some();
        if is_split && has_split(outer) {
            // In the words of the user where they reach.
            let mut said = root.to_owned();
            let enough = (0..=level).all(|_| said.file_name().is_some() && said.pop());
            return Some(if enough && !said.as_os_str().is_empty() {
                said
            } else {
                outer.to_owned()
            });
        }
        inner = outer;
    }
    None
}

/// Whether a folder has a folder that is named like a split and holds
/// folders.
fn has_split(folder: &Path) -> bool {
    folders(folder).iter().any(|inner| {
        let name = inner.file_name().map(text_of);
        name.is_some_and(|name| split_name(&name).is_some()) && !folders(inner).is_empty()
    })
}

/// Whether a folder directly holds an image.
fn has_image(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    let mut entries = entries.take(LOOKED_AT).filter_map(Result::ok);
    entries.any(|entry| crate::folder::is_image(&text_of(&entry.file_name())))
}

/// The first folders in a folder, hidden ones left out, in the order of their
/// names.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.take(LOOKED_AT).filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| !is_hidden(&text_of(&entry.file_name())))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn did_you_mean(folders: &[PathBuf]) -> String {
    const SHOWN: usize = 3;
    let shown = folders.iter().take(SHOWN);
    let shown: Vec<String> = shown
        .map(|folder| format!("folder:{}", folder.display()))
        .collect();
    format!("did you mean {}?", shown.join(" or "))
}
