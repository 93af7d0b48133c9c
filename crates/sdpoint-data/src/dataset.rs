//! Labelled images with one interface for all sources.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use rand::seq::SliceRandom;

use crate::contents::Contents;
use crate::error::{DataError, ImageError};
use crate::image::Image;
use crate::left_out::LeftOut;
use crate::random::{Use, stream};
use crate::source::Source;
use crate::split::Split;

/// A split of a source, or a selection of its images. Cloning is cheap: clones
/// and selections share decoded images and the record of unreadable ones.
#[derive(Clone)]
pub struct Dataset {
    shared: Arc<Shared>,
    /// Numbers of the selected images; `None` for all.
    selection: Option<Arc<[usize]>>,
}

struct Shared {
    source: Source,
    split: Split,
    contents: Contents,
    decoded: Vec<OnceLock<Arc<Image>>>,
    cache_left: AtomicUsize,
    skip_limit: usize,
    /// Unreadable images and what is wrong with them.
    skipped: Mutex<BTreeMap<usize, String>>,
    /// How many images each class has.
    images_of_class: Vec<usize>,
}

/// The memory and the errors that a data set allows.
pub(crate) struct Limits {
    /// Bytes of decoded images that are kept in memory.
    pub cache_bytes: usize,
    /// Unreadable images that may be skipped; by default the larger of 10 and
    /// 1 % of the split.
    pub skip_limit: Option<usize>,
}

/// An image with its class.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// The image.
    pub image: Arc<Image>,
    /// The number of its class.
    pub label: u32,
}

impl Dataset {
    pub(crate) fn new(
        source: Source,
        split: Split,
        contents: Contents,
        limits: &Limits,
    ) -> Dataset {
        let len = contents.labels.len();
        let mut images_of_class = vec![0; contents.classes.len()];
        for &label in &contents.labels {
            images_of_class[label as usize] += 1;
        }
        Dataset {
            shared: Arc::new(Shared {
                source,
                split,
                contents,
                decoded: std::iter::repeat_with(OnceLock::new).take(len).collect(),
                cache_left: AtomicUsize::new(limits.cache_bytes),
                skip_limit: limits.skip_limit.unwrap_or((len / 100).max(10)),
                skipped: Mutex::default(),
                images_of_class,
            }),
            selection: None,
        }
    }

    /// The number of images, at least one.
    #[expect(clippy::len_without_is_empty, reason = "no source opens empty")]
    pub fn len(&self) -> usize {
        self.selection
            .as_ref()
            .map_or(self.shared.contents.labels.len(), |s| s.len())
    }

    /// The classes' names, in the order of their numbers.
    pub fn classes(&self) -> &[String] {
        &self.shared.contents.classes
    }

    /// Where the images come from.
    pub fn source(&self) -> &Source {
        &self.shared.source
    }

    /// Which split this is.
    pub fn split(&self) -> Split {
        self.shared.split
    }

    /// The class of image `index`.
    ///
    /// # Panics
    /// `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> u32 {
        self.shared.contents.labels[self.number(index)]
    }

    /// The name of image `index` in messages: its file, or its place in one.
    ///
    /// # Panics
    /// `index` is not below [`len`](Self::len).
    pub fn image_name(&self, index: usize) -> String {
        self.shared.contents.images.name(self.number(index))
    }

    /// Image `index`, from the cache if it was decoded before.
    ///
    /// # Errors
    /// If the image is unreadable.
    ///
    /// # Panics
    /// `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Result<Arc<Image>, DataError> {
        let number = self.number(index);
        let slot = &self.shared.decoded[number];
        if let Some(image) = slot.get() {
            return Ok(Arc::clone(image));
        }
        let image = self
            .shared
            .contents
            .images
            .load(number)
            .map_err(|error| DataError::Image {
                name: self.image_name(index),
                error,
            })?;
        let image = Arc::new(image);
        if self.shared.reserve(image.pixels().len()) {
            // Another thread may have been faster; both images are the same.
            let _ = slot.set(Arc::clone(&image));
        }
        Ok(image)
    }

    /// Image `index` with its class, for training. An unreadable image is
    /// replaced by the next readable one, with that one's class, so that the
    /// number of steps of an epoch stays the same. The unreadable one is
    /// recorded: see [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// If more images were unreadable than may be skipped, or all of a class.
    ///
    /// # Panics
    /// `index` is not below [`len`](Self::len).
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        self.sample_prepared(index, |_| Ok(()))
    }

    /// As [`sample`](Self::sample), where an image counts as unreadable, too, if
    /// `prepare` fails.
    pub(crate) fn sample_prepared(
        &self,
        index: usize,
        mut prepare: impl FnMut(&Image) -> Result<(), ImageError>,
    ) -> Result<Sample, DataError> {
        for step in 0..self.len() {
            let index = (index + step) % self.len();
            if let Some(sample) = self.usable(index, &mut prepare)? {
                return Ok(sample);
            }
        }
        Err(self
            .shared
            .too_many_unreadable(self.len(), self.len().saturating_sub(1)))
    }

    /// Image `index` with its class, for evaluation. `None` if it is unreadable,
    /// which is recorded.
    ///
    /// # Errors
    /// As for [`sample`](Self::sample).
    ///
    /// # Panics
    /// `index` is not below [`len`](Self::len).
    pub fn readable(&self, index: usize) -> Result<Option<Sample>, DataError> {
        self.usable(index, |_| Ok(()))
    }

    /// As [`readable`](Self::readable), where an image counts as unreadable, too,
    /// if `prepare` fails.
    pub(crate) fn usable(
        &self,
        index: usize,
        prepare: impl FnOnce(&Image) -> Result<(), ImageError>,
    ) -> Result<Option<Sample>, DataError> {
        let prepared = self.image(index).and_then(|image| match prepare(&image) {
            Ok(()) => Ok(image),
            Err(error) => Err(DataError::Image {
                name: self.image_name(index),
                error,
            }),
        });
        match prepared {
            Ok(image) => Ok(Some(Sample {
                image,
                label: self.label(index),
            })),
            Err(error) => {
                self.shared.skip(self.number(index), &error)?;
                Ok(None)
            }
        }
    }

    /// The unreadable images found so far in the split, each with the problem, in
    /// the split's order.
    pub fn skipped(&self) -> Vec<String> {
        self.shared.skipped().values().cloned().collect()
    }

    /// What opening the split left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.shared.contents.left_out
    }

    /// Decodes the images of these numbers on several threads, to find out before
    /// hours of work which are unreadable. They are recorded, and those that fit
    /// into the cache need not be decoded again.
    ///
    /// # Errors
    /// If more images were unreadable than may be skipped, or all of a class.
    ///
    /// # Panics
    /// A number is not below [`len`](Self::len).
    pub fn check_readable(&self, images: Range<usize>, threads: usize) -> Result<(), DataError> {
        let part = images.len().div_ceil(threads.max(1)).max(1);
        thread::scope(|scope| {
            let starts = images.clone().step_by(part);
            let parts: Vec<_> = starts
                .map(|start| {
                    let mut part = start..(start + part).min(images.end);
                    scope.spawn(move || part.try_for_each(|index| self.readable(index).map(drop)))
                })
                .collect();
            let panicked = |_| DataError::Loader("images could not be checked".to_owned());
            parts
                .into_iter()
                .try_for_each(|part| part.join().map_err(panicked)?)
        })
    }

    /// The images of the given numbers, in that order.
    ///
    /// # Errors
    /// If there are none, or one is not below [`len`](Self::len).
    pub fn select(&self, indices: &[usize]) -> Result<Dataset, DataError> {
        if let Some(index) = indices.iter().find(|&&i| i >= self.len()) {
            return Err(DataError::Option(format!(
                "image {index} of a data set that has {}",
                self.len()
            )));
        }
        if indices.is_empty() {
            return Err(DataError::Option("a selection of no images".to_owned()));
        }
        Ok(Dataset {
            shared: Arc::clone(&self.shared),
            selection: Some(indices.iter().map(|&i| self.number(i)).collect()),
        })
    }

    /// `count` random images, balanced over the classes as far as possible, in
    /// the data set's order; all images if `count` is at least their number.
    ///
    /// # Errors
    /// If `count` is zero.
    pub fn balanced(&self, count: usize, seed: u64) -> Result<Dataset, DataError> {
        if count >= self.len() {
            return Ok(self.clone());
        }
        let mut by_class = vec![Vec::new(); self.classes().len()];
        for index in 0..self.len() {
            by_class[self.label(index) as usize].push(index);
        }
        for (class, indices) in by_class.iter_mut().enumerate() {
            indices.shuffle(&mut stream(Use::Selection, seed, class as u64, 0));
        }
        let rounds = by_class.iter().map(Vec::len).max().unwrap_or(0);
        let mut chosen: Vec<usize> = (0..rounds)
            .flat_map(|round| by_class.iter().filter_map(move |c| c.get(round).copied()))
            .take(count)
            .collect();
        chosen.sort_unstable();
        self.select(&chosen)
    }

    pub(crate) fn key(&self, index: usize) -> String {
        self.shared.contents.images.key(self.number(index))
    }

    pub(crate) fn stored(&self, index: usize) -> Result<u64, DataError> {
        self.shared.contents.images.stored(self.number(index))
    }

    pub(crate) fn bytes(&self, index: usize) -> Option<Vec<u8>> {
        self.shared.contents.images.bytes(self.number(index))
    }

    fn number(&self, index: usize) -> usize {
        self.selection.as_ref().map_or(index, |s| s[index])
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Dataset({}, {}, {} images)",
            self.source(),
            self.split(),
            self.len()
        )
    }
}

impl Shared {
    /// Reserves `bytes` of the cache, if they are free.
    fn reserve(&self, bytes: usize) -> bool {
        self.cache_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    fn skipped(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, String>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skip(&self, number: usize, error: &DataError) -> Result<(), DataError> {
        let mut skipped = self.skipped();
        let new = !skipped.contains_key(&number);
        skipped.entry(number).or_insert_with(|| error.to_string());
        let count = skipped.len();
        // The class can become unreadable only through an image that was not yet
        // recorded.
        let class = self.contents.labels[number];
        let images = self.images_of_class[class as usize];
        let of_class = || {
            skipped
                .iter()
                .filter(|(n, _)| self.contents.labels[**n] == class)
        };
        if new && count >= images && of_class().count() == images {
            let first = of_class().map(|(_, problem)| problem.clone()).next();
            return Err(DataError::UnreadableClass {
                dataset: format!("{} ({})", self.source, self.split),
                class: self.contents.classes[class as usize].clone(),
                count: images,
                first: first.unwrap_or_default(),
            });
        }
        drop(skipped);
        if count > self.skip_limit {
            return Err(self.too_many_unreadable(count, self.skip_limit));
        }
        Ok(())
    }

    fn too_many_unreadable(&self, count: usize, limit: usize) -> DataError {
        const SHOWN: usize = 3;
        DataError::TooManyUnreadable {
            dataset: format!("{} ({})", self.source, self.split),
            count,
            limit,
            first: self.skipped().values().take(SHOWN).cloned().collect(),
        }
    }
}
