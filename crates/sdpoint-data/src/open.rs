//! Opening of the splits of a source.

use crate::cifar::CifarKind;
use crate::dataset::{Dataset, Limits};
use crate::error::DataError;
use crate::expand::expand_home;
use crate::options::OpenOptions;
use crate::source::Source;
use crate::split::Split;
use crate::{archive, cifar, folder, shapes};

/// Opens one split of a source. Nothing is decoded yet.
///
/// # Errors
/// If the source is missing, has no images of the split, has a class without
/// images, or is malformed.
pub fn open(source: &Source, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    if let (false, Some(option)) = (matches!(source, Source::Tar(_)), options.sample_option()) {
        return Err(DataError::Option(format!(
            "{option} is for WebDataset samples in `tar:` archives, not for {source}"
        )));
    }
    let contents = match source {
        Source::Shapes => shapes::open(split, options)?,
        Source::Tar(paths) => archive::open(paths, split, options)?,
        Source::Folder(root) => folder::open(&expand_home(root), split)?,
        Source::Cifar10(root) => cifar::open(CifarKind::Cifar10, &expand_home(root), split)?,
        Source::Cifar100(root) => cifar::open(CifarKind::Cifar100, &expand_home(root), split)?,
    };
    let limits = Limits {
        cache_bytes: options.cache_bytes,
        skip_limit: options.skip_limit,
    };
    Ok(Dataset::new(source.clone(), split, contents, &limits))
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
