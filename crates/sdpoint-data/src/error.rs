//! What can be wrong with data, said so that the user knows what to do.

use std::io;
use std::path::PathBuf;

use crate::decode::kind::ImageKind;
use crate::file::FileError;
use crate::limits::{MAX_PIXELS, MAX_SIDE};
use crate::names::visible;
use crate::split::Split;

/// What to do with a file that has lost something.
const RESTORE: &str = "copy or download it again";

/// Why one image cannot be used. The file's name is for the caller to add.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file was not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are no bytes.
    #[error("is empty; {RESTORE}")]
    Empty,
    /// The file has nothing but zeros.
    #[error("has nothing but zeros; {RESTORE}")]
    Zeros,
    /// The first bytes are of a known kind of file that is not read.
    #[error("is {what}, which is not read; {advice}")]
    Foreign {
        /// What it is, with its article.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The first bytes are of no known kind of file.
    #[error("is not an image of a kind that is read (JPEG, PNG or WebP)")]
    Format,
    /// The file ends before its picture does.
    #[error("is a truncated {0} image: the end of the file is missing; {RESTORE}")]
    Truncated(ImageKind),
    /// The bytes contradict the format.
    #[error("is a damaged {0} image; {RESTORE}")]
    Damaged(ImageKind),
    /// A sound file of a variant that is not read.
    #[error("is a {kind} image {what}, which is not read; save it again with an ordinary program")]
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
    /// The image could not be brought to another size.
    #[error("cannot be resized")]
    Resize,
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
        "{path}: no {split} images: expected {expected}, found {found}{}",
        after_semicolon(hint),
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
        /// What was probably meant.
        hint: Option<String>,
    },
    /// Class folders without a single image.
    #[error("{path}: no JPEG, PNG or WebP image for class {classes}{found}; add images or remove the folder",
        path = path.display())]
    EmptyClass {
        /// The folder or archive.
        path: PathBuf,
        /// The classes, quoted and separated by commas.
        classes: String,
        /// What was left out, in brackets; empty where nothing was.
        found: String,
    },
    /// A single class, which nothing can be learnt from.
    #[error("{path}: `{class}` is the only class, and at least two are needed{}",
        after_semicolon(hint), path = path.display())]
    OneClass {
        /// The folder or archive.
        path: PathBuf,
        /// The class.
        class: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// A class of which every image is unreadable.
    #[error("{dataset}: none of the {count} images of class `{class}` can be read: {first}; \
         repair them, or remove the class", dataset = dataset)]
    UnreadableClass {
        /// The data set and its split.
        dataset: String,
        /// The class.
        class: String,
        /// How many images it has.
        count: usize,
        /// The first of them, with what is wrong with it.
        first: String,
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
    /// A file that is not read as it is.
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
        label: i64,
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
    #[error("the preprocessing is wrong: {0}")]
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
    /// Why a file was not read, with its name, for `map_err`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(FileError) -> DataError {
        let path = path.into();
        move |error| match error {
            FileError::Io(error) => DataError::Io { path, error },
            error => DataError::File { path, error },
        }
    }

    /// An operation's error with the file that it was about, for `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataError {
        let path = path.into();
        move |error| DataError::Io { path, error }
    }
}

/// What classes only one split has, told apart from those that look the same.
fn only(split: &str, classes: &[String]) -> String {
    if classes.is_empty() {
        String::new()
    } else {
        format!("only in {split}: {}", visible(classes))
    }
}

fn after_semicolon(hint: &Option<String>) -> String {
    hint.as_ref()
        .map_or_else(String::new, |hint| format!("; {hint}"))
}
