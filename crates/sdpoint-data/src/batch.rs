//! A batch of prepared images.

use std::sync::{Arc, Mutex, PoisonError};

/// Marks an unreadable image, in place of its class.
pub(crate) const MISSING: u32 = u32::MAX;

/// A batch of network inputs with their labels. Dropping it returns its memory
/// to its loader.
#[derive(Debug)]
#[non_exhaustive]
pub struct Batch {
    /// Normalised values, `images × height × width × 3` (NHWC).
    pub images: Vec<f32>,
    /// The class of each image.
    pub labels: Vec<u32>,
    /// The classes of the images that these were mixed with, if they were.
    pub mixed: Option<Mixed>,
    /// Height and width of the images.
    pub size: [usize; 2],
    pool: Arc<Pool>,
}

/// What the images of a batch were mixed with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mixed {
    /// The class of the other image of each image.
    pub labels: Vec<u32>,
    /// The share of the other image, from 0 to 1.
    pub share: f32,
}

/// Memory of dropped batches, for reuse.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<f32>>>);

impl Pool {
    fn buffers(&self) -> std::sync::MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// A batch of `len` images to be filled in.
    pub(crate) fn new(len: usize, size: [usize; 2], input_len: usize, pool: &Arc<Pool>) -> Batch {
        let mut images = pool.buffers().pop().unwrap_or_default();
        images.resize(len * input_len, 0.0);
        Batch {
            images,
            labels: vec![0; len],
            mixed: None,
            size,
            pool: Arc::clone(pool),
        }
    }

    /// Removes the images without a class.
    pub(crate) fn close_gaps(&mut self) {
        let len = self.images.len() / self.labels.len().max(1);
        let mut kept = 0;
        for index in 0..self.labels.len() {
            if self.labels[index] == MISSING {
                continue;
            }
            if kept != index {
                self.labels[kept] = self.labels[index];
                self.images
                    .copy_within(index * len..(index + 1) * len, kept * len);
            }
            kept += 1;
        }
        self.labels.truncate(kept);
        self.images.truncate(kept * len);
    }

    /// The number of images, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a loader makes no empty batch")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.buffers().push(std::mem::take(&mut self.images));
    }
}
