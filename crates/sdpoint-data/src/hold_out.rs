//! Images held out of training, for choices.

use std::path::MAIN_SEPARATOR;

use sdpoint_core::HeldOut;
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::error::DataError;

/// A training split in two parts: the images for training, and those held out
/// of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HoldOut {
    /// The images for training.
    pub train: Dataset,
    /// The images held out, at least one.
    pub held_out: Dataset,
}

impl Dataset {
    /// Divides the images into those for training and those that are held out
    /// of it, about a share of them.
    ///
    /// Whether an image is held out depends on the seed, its class and its name
    /// below the folder of its class only: on no other image, nor on where the
    /// data is stored, nor on whether it is in folders or in an archive. So it
    /// stays on its side when images are added or removed, or others are selected.
    ///
    /// There are two exceptions for tiny data sets: a class keeps at least one
    /// image for training, and at least one image is held out.
    ///
    /// # Errors
    /// If the share is not one of [`HeldOut`], or every class has a single image.
    pub fn hold_out(&self, how: &HeldOut) -> Result<HoldOut, DataError> {
        how.check().map_err(DataError::Option)?;
        let places: Vec<f64> = (0..self.len())
            .map(|i| self.place(i, "held out of training", how.seed))
            .collect();
        // By class, the image that stays for training whatever happens.
        let mut kept: Vec<Option<usize>> = vec![None; self.classes().len()];
        for index in 0..self.len() {
            let kept = &mut kept[self.label(index) as usize];
            if kept.is_none_or(|last| places[index] > places[last]) {
                *kept = Some(index);
            }
        }
        let may_go = |&index: &usize| kept[self.label(index) as usize] != Some(index);
        let candidates = || (0..self.len()).filter(may_go);
        let mut held: Vec<usize> = candidates().filter(|&i| places[i] < how.share).collect();
        if held.is_empty() {
            let first = candidates().min_by(|&a, &b| places[a].total_cmp(&places[b]));
            held.extend(first);
        }
        if held.is_empty() {
            return Err(DataError::Option(format!(
                "no image of {} can be held out of training, as every class has a single image: \
                 hold out none, or add images",
                self.source()
            )));
        }
        let mut next = held.iter().copied().peekable();
        let rest: Vec<usize> = (0..self.len())
            .filter(|&index| next.next_if_eq(&index).is_none())
            .collect();
        Ok(HoldOut {
            train: self.select(&rest)?,
            held_out: self.select(&held)?,
        })
    }

    /// A random number from 0 to 1 that an image has for a purpose and a seed. It
    /// depends on its class and its name below the folder of the class only.
    pub(crate) fn place(&self, index: usize, purpose: &str, seed: u64) -> f64 {
        let class = &self.classes()[self.label(index) as usize];
        let key = format!("/{}", self.key(index)).replace(MAIN_SEPARATOR, "/");
        let below = match key.split_once(&format!("/{class}/")) {
            Some((_, below)) => below,
            None => &key[1..],
        };
        let mut hash = Sha256::new();
        hash.update(purpose);
        hash.update(seed.to_le_bytes());
        hash.update((class.len() as u64).to_le_bytes());
        hash.update(class);
        hash.update(below);
        let digest = hash.finalize();
        let (first, _) = digest
            .split_first_chunk::<8>()
            .expect("a SHA-256 has 32 bytes");
        // As many bits as a number has digits.
        (u64::from_le_bytes(*first) >> 11) as f64 / (1u64 << 53) as f64
    }
}
