//! What can be wrong with data, said so that the user knows what to do.

use std::io;
use std::path::PathBuf;

use crate::image::{MAX_PIXELS, MAX_SIDE};
use crate::source::Split;

/// Why one image cannot be used. The file's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The first bytes are of another kind of file.
    #[error("is neither a JPEG nor a PNG image")]
    Format,
    /// A JPEG file that its decoder refuses.
    #[error("is not a sound JPEG image: {0}")]
    Jpeg(String),
    /// A PNG file that its decoder refuses.
    #[error("is not a sound PNG image: {0}")]
    Png(String),
    /// A side is zero, or too long.
    #[error(
        "is {width}×{height} pixels; at least 1, at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
    )]
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The image could not be brought to another size.
    #[error("cannot be resized: {0}")]
    Resize(String),
    /// The number of bytes is not that of the size.
    #[error("has {actual} bytes of pixels where its size needs {expected}")]
    Length {
        /// Bytes that the size needs.
        expected: usize,
        /// Bytes that there are.
        actual: usize,
    },
}

/// Why a data set cannot be opened, read or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A source in none of the known forms.
    #[error(
        "unknown data source `{0}`: use shapes, folder:DIR, tar:PATH, cifar10:DIR or cifar100:DIR"
    )]
    Source(String),
    /// A file or folder could not be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Nothing in the source belongs to the split.
    #[error(
        "{path}: no {split} images: expected {expected}, found {found}",
        path = path.display()
    )]
    NoSplit {
        /// The folder or archive.
        path: PathBuf,
        /// The split that was asked for.
        split: Split,
        /// What would have been taken.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// Class folders without a single image.
    #[error("{path}: no JPEG or PNG image for class {classes}; add images or remove the folder",
        path = path.display())]
    EmptyClass {
        /// The folder or archive.
        path: PathBuf,
        /// The classes, quoted and separated by commas.
        classes: String,
    },
    /// The two splits do not have the same classes.
    #[error(
        "the classes of the splits differ: {}{}{}",
        only("train", only_train),
        if only_train.is_empty() || only_test.is_empty() { "" } else { "; " },
        only("test", only_test)
    )]
    ClassesDiffer {
        /// Classes that only the training split has.
        only_train: Vec<String>,
        /// Classes that only the test split has.
        only_test: Vec<String>,
    },
    /// One image cannot be used.
    #[error("{name} {error}")]
    Image {
        /// The image's file, or its archive and place in it.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// More images are unreadable than may be skipped.
    #[error(
        "{count} unreadable images in {dataset}, more than the {limit} that may be skipped: {}; \
         repair or remove them, or raise the limit",
        first.join("; ")
    )]
    TooManyUnreadable {
        /// The data set.
        dataset: String,
        /// Unreadable images found so far.
        count: usize,
        /// How many may be skipped.
        limit: usize,
        /// The first few, each with what is wrong.
        first: Vec<String>,
    },
    /// A file whose size is not the one its format has.
    #[error("{path} has {actual} bytes where {expected} are expected; remove it and fetch it again",
        path = path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Bytes that it should have, in words.
        expected: String,
        /// Bytes that it has.
        actual: u64,
    },
    /// A record whose label is no class.
    #[error("{path}: record {record} has label {label}, but there are {classes} classes",
        path = path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which record of the file, from 0.
        record: usize,
        /// The label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// A file whose content is not in the format that its name promises.
    #[error("{path}: {problem}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An archive that would take more memory than is allowed.
    #[error("{path}: {what} exceeds the limit of {limit} bytes; {advice}", path = path.display())]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// Preprocessing that cannot be carried out.
    #[error("preprocessing: {0}")]
    Preprocessing(String),
    /// An option out of its range.
    #[error("{0}")]
    Option(String),
    /// A thread could not be started, or panicked.
    #[error("loading ahead failed: {0}")]
    Loader(String),
    /// A download that did not succeed.
    #[cfg(feature = "fetch")]
    #[error("{url}: {problem}")]
    Download {
        /// The address.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A download whose checksum is not the published one.
    #[cfg(feature = "fetch")]
    #[error(
        "{url}: the MD5 checksum is {actual}, the published one {expected}; \
         the download was deleted, fetch it again"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The published checksum.
        expected: String,
        /// The download's checksum.
        actual: String,
    },
}

impl DataError {
    /// An operation's error with the file that it was about, for `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataError {
        let path = path.into();
        move |error| DataError::Io { path, error }
    }
}

fn only(split: &str, classes: &[String]) -> String {
    if classes.is_empty() {
        String::new()
    } else {
        format!("only in {split}: {}", quoted(classes))
    }
}

/// Names in backquotes, separated by commas; at most eight of them.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 8;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|n| format!("`{}`", n.as_ref()))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
