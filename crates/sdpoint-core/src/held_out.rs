//! Images held out of training.

use serde::{Deserialize, Serialize};

/// Which images of a training split are held out of training, so that instances
/// and thresholds can be chosen by images that neither trained the network nor
/// judge it.
///
/// Whether an image is held out is a function of the seed and of its class and
/// name; `sdpoint-data` computes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// The share of the images, above 0 and at most 0.5.
    pub share: f64,
    /// The seed of the choice.
    pub seed: u64,
}

impl HeldOut {
    /// Checks the share.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn check(&self) -> Result<(), String> {
        match self.share > 0.0 && self.share <= 0.5 {
            true => Ok(()),
            false => Err(format!(
                "a share of {} held out of training: it must be above 0 and at most 0.5",
                self.share
            )),
        }
    }
}
