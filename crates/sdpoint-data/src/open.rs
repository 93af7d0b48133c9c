//! From a source to the data set of one of its splits.

use crate::cifar::CifarKind;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::expand::home;
use crate::source::{Source, Split};
use crate::{archive, cifar, folder, shapes};

/// How a source is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Seed of the images that `shapes` draws.
    pub shapes_seed: u64,
    /// How many training images `shapes` draws.
    pub shapes_train: usize,
    /// How many test images `shapes` draws.
    pub shapes_test: usize,
    /// How many unreadable images may be skipped in a split; by default the
    /// larger of 10 and 1 % of its images.
    pub skip_limit: Option<usize>,
    /// Bytes of decoded images that are kept in memory, so that a small data
    /// set is decoded only once.
    pub cache_bytes: usize,
    /// Bytes that the images of compressed archives may take in memory: they
    /// cannot be read out of order from the file.
    pub archive_bytes: u64,
    /// In WebDataset samples with several images, which one to read, by the
    /// end of its name after the key: `jpg`, `image.png`.
    pub image_key: Option<String>,
    /// In WebDataset samples, the key of `.json` members that has the class;
    /// without it, classes are read from `.cls` members.
    pub label_key: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            shapes_seed: 0,
            shapes_train: 10_000,
            shapes_test: 2_000,
            skip_limit: None,
            cache_bytes: 512 << 20,
            archive_bytes: 4 << 30,
            image_key: None,
            label_key: None,
        }
    }
}

/// Opens one split of a source. Nothing is decoded yet.
///
/// # Errors
/// The source is missing, holds nothing for the split, has a class without
/// images, or is malformed.
pub fn open(source: &Source, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let contents = match source {
        Source::Shapes => shapes::open(split, options)?,
        Source::Tar(paths) => archive::open(paths, split, options)?,
        Source::Folder(root) => folder::open(&home(root), split)?,
        Source::Cifar10(root) => cifar::open(CifarKind::Cifar10, &home(root), split)?,
        Source::Cifar100(root) => cifar::open(CifarKind::Cifar100, &home(root), split)?,
    };
    Ok(Dataset::new(source.clone(), split, contents, options))
}

/// Opens both splits, training first.
///
/// # Errors
/// As for [`open`], or the splits have different classes.
pub fn open_pair(source: &Source, options: &OpenOptions) -> Result<(Dataset, Dataset), DataError> {
    let train = open(source, Split::Train, options)?;
    let test = open(source, Split::Test, options)?;
    if train.classes() != test.classes() {
        let only_in = |a: &Dataset, b: &Dataset| {
            a.classes()
                .iter()
                .filter(|c| !b.classes().contains(c))
                .cloned()
                .collect()
        };
        return Err(DataError::ClassesDiffer {
            only_train: only_in(&train, &test),
            only_test: only_in(&test, &train),
        });
    }
    Ok((train, test))
}
