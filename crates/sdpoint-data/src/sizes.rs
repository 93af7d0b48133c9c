//! The sizes of a data set's images.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::dataset::Dataset;
use crate::error::DataError;

/// Images in the sample.
const INSPECTED: usize = 64;

/// Heights and widths of a sample of a data set's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The number of images of each height and width; not empty.
    counts: BTreeMap<[usize; 2], usize>,
}

impl Sizes {
    /// The sizes of up to 64 images, evenly spread over the classes. Which images
    /// these are depends on their names, not on the order of the files.
    ///
    /// # Errors
    /// As for [`Dataset::sample`].
    pub fn of(dataset: &Dataset) -> Result<Sizes, DataError> {
        let mut counts = BTreeMap::new();
        for index in inspected(dataset) {
            if let Some(sample) = dataset.readable(index)? {
                let size = [sample.image.height(), sample.image.width()];
                *counts.entry(size).or_default() += 1;
            }
        }
        if counts.is_empty() {
            // All of the sample were unreadable; some other is not.
            let image = dataset.sample(0)?.image;
            counts.insert([image.height(), image.width()], 1);
        }
        Ok(Sizes { counts })
    }

    /// The most frequent height and width; of equally frequent ones the
    /// largest.
    pub fn commonest(&self) -> [usize; 2] {
        self.all_commonest().first().copied().unwrap_or([1, 1])
    }

    /// The heights and widths of which there are the most images, the largest area
    /// first: several if they are equally frequent.
    pub fn all_commonest(&self) -> Vec<[usize; 2]> {
        let most = self.counts.values().max();
        let mut sizes: Vec<[usize; 2]> = (self.counts.iter())
            .filter(|(_, count)| Some(*count) == most)
            .map(|(&size, _)| size)
            .collect();
        sizes.sort_by_key(|&size| Reverse((size[0] * size[1], size)));
        sizes
    }

    /// All heights and widths with their shares of the images, from 0 to 1, the most
    /// frequent first.
    pub fn by_share(&self) -> Vec<([usize; 2], f64)> {
        let mut sizes: Vec<_> = self.counts.iter().collect();
        sizes.sort_by_key(|&(size, count)| Reverse((*count, size[0] * size[1], *size)));
        let all: usize = self.counts.values().sum();
        let share = |count: usize| count as f64 / all.max(1) as f64;
        sizes
            .into_iter()
            .map(|(&size, &count)| (size, share(count)))
            .collect()
    }

    /// The share of images for which `test` holds, from 0 to 1.
    pub fn share(&self, test: impl Fn([usize; 2]) -> bool) -> f64 {
        let all: usize = self.counts.values().sum();
        let some = self.counts.iter().filter(|(size, _)| test(**size));
        some.map(|(_, count)| count).sum::<usize>() as f64 / all.max(1) as f64
    }

    /// The smallest and the largest, by area, if not all are equal.
    pub fn range(&self) -> Option<[[usize; 2]; 2]> {
        let area = |size: &&[usize; 2]| size[0] * size[1];
        let least = *self.counts.keys().min_by_key(area)?;
        let most = *self.counts.keys().max_by_key(area)?;
        (self.counts.len() > 1).then_some([least, most])
    }
}

impl Dataset {
    /// The most frequent height and width among a sample of the images.
    ///
    /// # Errors
    /// As for [`Sizes::of`].
    pub fn native_size(&self) -> Result<[usize; 2], DataError> {
        Ok(Sizes::of(self)?.commonest())
    }
}

/// The images of the sample.
fn inspected(dataset: &Dataset) -> Vec<usize> {
    let len = dataset.len();
    if len <= INSPECTED {
        return (0..len).collect();
    }
    let place = |index| dataset.place(index, "sizes of images", 0);
    let mut ordered: Vec<(u32, f64, usize)> = (0..len)
        .map(|index| (dataset.label(index), place(index), index))
        .collect();
    ordered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    spread(INSPECTED, len).map(|nth| ordered[nth].2).collect()
}

/// Up to `count` numbers below `len`, evenly spread: files are usually sorted by
/// class, and all classes should be represented.
pub(crate) fn spread(count: usize, len: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |i| i * len / count)
}
