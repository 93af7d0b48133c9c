//! Errors of images and data sets, with advice for the user.

use std::io;
use std::path::PathBuf;

use sdpoint_core::file::FileError;
use sdpoint_core::words::plural;

use crate::decode::kind::ImageKind;
use crate::limits::{MAX_PIXELS, MAX_SIDE};
use crate::names::visible;
use crate::split::Split;

/// What to do with a file that has lost something.
const RESTORE: &str = "copy or download it again";

/// Why an image cannot be used. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file was not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are no bytes.
    #[error("is empty; {RESTORE}")]
    Empty,
    /// The file consists of zeros.
    #[error("contains only zeros; {RESTORE}")]
    Zeros,
    /// The first bytes are those of a known but unsupported kind of file.
    #[error("is {what}, which is not supported; {advice}")]
    Foreign {
        /// What it is, with its article.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// An image behind bytes that do not belong to it: spaces, line breaks or a
    /// byte-order mark.
    #[error(
        "has {} before the start of its {kind} image, at offset {offset}; remove them, or fetch the \
         file again",
        plural(*offset, "byte", "bytes")
    )]
    Shifted {
        /// The kind of image.
        kind: ImageKind,
        /// Where it starts, in bytes.
        offset: usize,
    },
    /// The first bytes are those of no known kind of file.
    #[error("is not an image of a supported format (JPEG, PNG or WebP)")]
    Format,
    /// The file ends before its picture does.
    #[error("is a truncated {0} image: the end of the file is missing; {RESTORE}")]
    Truncated(ImageKind),
    /// The bytes contradict the format.
    #[error("is a damaged {0} image; {RESTORE}")]
    Damaged(ImageKind),
    /// A valid file of an unsupported variant.
    #[error("is a {kind} image {what}, which is not supported; save it again with another program")]
    Unsupported {
        /// The kind of file.
        kind: ImageKind,
        /// The variant, after the kind's name.
        what: &'static str,
    },
    /// A side is zero, or too long.
    #[error(
        "is {width}×{height} pixels; images of 1 to {MAX_SIDE} pixels a side and of at most \
         {MAX_PIXELS} in all are read"
    )]
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The image could not be resized.
    #[error("cannot be resized")]
    Resize,
    /// The number of bytes does not match the size.
    #[error("has {actual} bytes of pixels where its size needs {expected}")]
    Length {
        /// Required number of bytes.
        expected: usize,
        /// Actual number of bytes.
        actual: usize,
    },
}

/// Why a data set cannot be opened, read or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A source of unknown form.
    #[error(
        "unknown data source `{0}`: use shapes, folder:DIR, tar:PATH, cifar10:DIR or cifar100:DIR"
    )]
    Source(String),
    /// A source of a known form without its path.
    #[error("the data source `{text}` lacks a path: give {form}")]
    SourcePath {
        /// The source.
        text: String,
        /// The form, such as `folder:DIR`.
        form: &'static str,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The source has no images of the split.
    #[error(
        "{path}: no {split} images: expected {expected}, found {found}{}",
        after_semicolon(hint),
        path = path.display()
    )]
    NoSplit {
        /// The folder or archive.
        path: PathBuf,
        /// The requested split.
        split: Split,
        /// What is accepted.
        expected: String,
        /// What is there instead.
        found: String,
        /// A suggestion what was probably meant.
        hint: Option<String>,
    },
    /// Class folders without images.
    #[error("{path}: no JPEG, PNG or WebP image for class {classes}{found}; add images or remove the folder",
        path = path.display())]
    EmptyClass {
        /// The folder or archive.
        path: PathBuf,
        /// The classes, quoted and separated by commas.
        classes: String,
        /// What was left out, in brackets; empty if nothing was.
        found: String,
    },
    /// A single class.
    #[error("{path}: `{class}` is the only class, and at least two are needed{}",
        after_semicolon(hint), path = path.display())]
    OneClass {
        /// The folder or archive.
        path: PathBuf,
        /// The class.
        class: String,
        /// A suggestion what was probably meant.
        hint: Option<String>,
    },
    /// A class whose images are all unreadable.
    #[error("{dataset}: {}: {first}; repair {}, or remove the class",
        none_of_class(*count, class), them(*count))]
    UnreadableClass {
        /// The data set and its split.
        dataset: String,
        /// The class.
        class: String,
        /// The number of its images.
        count: usize,
        /// The first of them, with its problem.
        first: String,
    },
    /// The two splits have different classes.
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
    /// A file that cannot be read.
    #[error("'{path}' {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
    /// One image cannot be used.
    #[error("{name} {error}")]
    Image {
        /// The image's file, or its archive and path in it.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// More images are unreadable than may be skipped.
    #[error(
        "{} in {dataset}, more than the {limit} that may be skipped: {}; repair or remove {}, or \
         raise the limit",
        plural(*count, "unreadable image", "unreadable images"),
        first.join("; "),
        them(*count),
    )]
    TooManyUnreadable {
        /// The data set.
        dataset: String,
        /// Unreadable images found so far.
        count: usize,
        /// The number that may be skipped.
        limit: usize,
        /// The first few, each with its problem.
        first: Vec<String>,
    },
    /// A file of the wrong size for its format.
    #[error("{path} has {actual} bytes where {expected} are expected; remove it and fetch it again",
        path = path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// The expected number of bytes, in words.
        expected: String,
        /// The actual number of bytes.
        actual: u64,
    },
    /// A record whose label is out of range.
    #[error("{path}: record {record} has label {label}, but there are {classes} classes",
        path = path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Index of the record in the file.
        record: usize,
        /// The label.
        label: i64,
        /// The number of classes.
        classes: usize,
    },
    /// A file whose content does not have the format of its name.
    #[error("{path}: {problem}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An archive that would exceed the memory limit.
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
    /// Invalid preprocessing.
    #[error("the preprocessing is wrong: {0}")]
    Preprocessing(String),
    /// An option out of range.
    #[error("{0}")]
    Option(String),
    /// A thread could not be started, or panicked.
    #[error("loading ahead failed: {0}")]
    Loader(String),
    /// A failed download.
    #[cfg(feature = "fetch")]
    #[error("{url}: {problem}")]
    Download {
        /// The address.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A download with a wrong checksum.
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
    /// Adds a file's name to the error of reading it, for `map_err`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(FileError) -> DataError {
        let path = path.into();
        move |error| match error {
            FileError::Io(error) => DataError::Io { path, error },
            error => DataError::File { path, error },
        }
    }

    /// Adds a file's name to an I/O error, for `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataError {
        let path = path.into();
        move |error| DataError::Io { path, error }
    }
}

/// The classes that only one split has, distinguishable from similar names.
fn only(split: &str, classes: &[String]) -> String {
    if classes.is_empty() {
        String::new()
    } else {
        format!("only in {split}: {}", visible(classes))
    }
}

/// That none of a class's images can be read.
fn none_of_class(images: usize, class: &str) -> String {
    match images {
        1 => format!("the only image of class `{class}` cannot be read"),
        images => format!("none of the {images} images of class `{class}` can be read"),
    }
}

/// The pronoun for a number of images.
fn them(images: usize) -> &'static str {
    match images {
        1 => "it",
        _ => "them",
    }
}

fn after_semicolon(hint: &Option<String>) -> String {
    hint.as_ref()
        .map_or_else(String::new, |hint| format!("; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_nouns_agree() {
        let too_many = |count| {
            let error = DataError::TooManyUnreadable {
                dataset: "photos".into(),
                count,
                limit: 0,
                first: vec!["a.jpg is empty".into()],
            };
            error.to_string()
        };
        assert!(too_many(1).starts_with("1 unreadable image in photos"));
        assert!(too_many(1).contains("; repair or remove it, or"));
        assert!(too_many(2).starts_with("2 unreadable images in photos"));
        assert!(too_many(2).contains("; repair or remove them, or"));
        let class = |count| {
            let error = DataError::UnreadableClass {
                dataset: "photos".into(),
                class: "cat".into(),
                count,
                first: "a.jpg is empty".into(),
            };
            error.to_string()
        };
        assert!(class(1).contains("the only image of class `cat` cannot be read: a.jpg"));
        assert!(class(3).contains("none of the 3 images of class `cat` can be read: a.jpg"));
    }
}
