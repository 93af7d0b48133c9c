//! The images of archives, numbered and read when they are needed.

use std::path::{Path, PathBuf};

use sdpoint_core::file::FileError;

use super::members::Content;
use super::samples;
use crate::contents::{Contents, Images};
use crate::decode::decode;
use crate::error::{DataError, ImageError};
use crate::file::{MAX_FILE, read_at};
use crate::image::Image;
use crate::names::text_of;
use crate::tree::ClassTree;

/// An image in an archive.
pub(super) struct Picture {
    /// The archive's number, and the member's in it, by which images are sorted.
    pub order: (usize, usize),
    pub path: String,
    pub content: Content,
}

/// Numbers the classes: by name, or by value where all are numbers that
/// members gave. Images come in the order of the archives and their members.
pub(super) fn into_contents(
    archives: Vec<PathBuf>,
    tree: ClassTree<Picture>,
    numbered: bool,
) -> Contents {
    let mut classes: Vec<String> = tree.classes.keys().cloned().collect();
    if numbered && let Some(numbers) = samples::numbers(tree.classes.keys()) {
        classes.sort_by_key(|class| numbers[class.as_str()]);
    }
    let mut pictures = Vec::new();
    let mut by_class = tree.classes;
    for (label, class) in classes.iter().enumerate() {
        let of_class = by_class.remove(class).unwrap_or_default();
        pictures.extend(of_class.into_iter().map(|picture| (label as u32, picture)));
    }
    pictures.sort_by(|(_, a), (_, b)| (a.order, &a.path).cmp(&(b.order, &b.path)));
    let (labels, pictures) = pictures.into_iter().unzip();
    Contents {
        classes,
        labels,
        left_out: tree.left_out,
        images: Box::new(Pictures { archives, pictures }),
    }
}

struct Pictures {
    archives: Vec<PathBuf>,
    pictures: Vec<Picture>,
}

impl Pictures {
    fn archive(&self, index: usize) -> &Path {
        &self.archives[self.pictures[index].order.0]
    }
}

impl Images for Pictures {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        match &self.pictures[index].content {
            Content::Kept(bytes) => decode(bytes),
            Content::At { len, .. } if *len as u64 > MAX_FILE => {
                Err(FileError::TooLarge(MAX_FILE).into())
            }
            &Content::At { offset, len } => decode(&read_at(self.archive(index), offset, len)?),
            Content::Passed { .. } => Err(FileError::TooLarge(MAX_FILE).into()),
        }
    }

    fn name(&self, index: usize) -> String {
        format!(
            "{}: {}",
            self.archive(index).display(),
            self.pictures[index].path
        )
    }

    fn key(&self, index: usize) -> String {
        let archive = text_of(self.archive(index).file_name().unwrap_or_default());
        format!("{archive}/{}", self.pictures[index].path)
    }

    fn stored(&self, index: usize) -> Result<u64, DataError> {
        Ok(match &self.pictures[index].content {
            Content::Kept(bytes) => bytes.len() as u64,
            Content::At { len, .. } => *len as u64,
            Content::Passed { len } => *len,
        })
    }

    fn bytes(&self, index: usize) -> Option<Vec<u8>> {
        match &self.pictures[index].content {
            Content::Kept(bytes) => Some(bytes.to_vec()),
            &Content::At { offset, len } if len as u64 <= MAX_FILE => {
                read_at(self.archive(index), offset, len).ok()
            }
            _ => None,
        }
    }
}
