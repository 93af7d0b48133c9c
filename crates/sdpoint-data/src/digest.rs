//! A digest to detect changes of a data set.

use std::thread;

use sdpoint_core::digest::hex;
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::error::DataError;

/// Data sets of at most this many bytes are hashed completely, as small images
/// often have equal sizes.
const SMALL_SET: u64 = 256 << 20;

/// Threads that query file sizes, which is slow on network file systems.
const THREADS: usize = 8;

impl Dataset {
    /// A digest of what the images are: their names below the data set's
    /// folder or archive, their classes and their sizes in bytes, in order; and
    /// of a data set of at most 256 MiB, whose images may well be
    /// of equal sizes, the bytes themselves.
    ///
    /// Two selections with one digest have the same images, as far as can be
    /// told without reading a large data set.
    ///
    /// # Errors
    /// A file is gone.
    pub fn digest(&self) -> Result<String, DataError> {
        digest(self)
    }
}

fn digest(dataset: &Dataset) -> Result<String, DataError> {
    let sizes = sizes(dataset)?;
    let small = sizes.iter().sum::<u64>() <= SMALL_SET;
    let mut hash = Sha256::new();
    for class in dataset.classes() {
        add_text(&mut hash, class);
    }
    for (index, size) in sizes.into_iter().enumerate() {
        add_text(&mut hash, &dataset.key(index));
        hash.update(size.to_le_bytes());
        hash.update(dataset.label(index).to_le_bytes());
        if small && let Some(bytes) = dataset.bytes(index) {
            hash.update(bytes);
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Adds a text preceded by its length, so that concatenations are unambiguous.
fn add_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// How many bytes each image has where it is stored.
fn sizes(dataset: &Dataset) -> Result<Vec<u64>, DataError> {
    let part = dataset.len().div_ceil(THREADS);
    thread::scope(|scope| {
        let starts = (0..dataset.len()).step_by(part);
        let parts: Vec<_> = starts
            .map(|start| {
                let end = (start + part).min(dataset.len());
                scope.spawn(move || {
                    (start..end)
                        .map(|index| dataset.stored(index))
                        .collect::<Result<Vec<u64>, _>>()
                })
            })
            .collect();
        let mut sizes = Vec::with_capacity(dataset.len());
        for part in parts {
            let panicked = |_| DataError::Loader("sizes could not be read".to_owned());
            sizes.extend(part.join().map_err(panicked)??);
        }
        Ok(sizes)
    })
}
