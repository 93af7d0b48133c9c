//! Augmentation of training images beyond crops and mirroring.
//!
//! Each image is augmented by a random stream of its own, a batch is mixed by
//! one of its own, so that neither threads nor resuming change a value.

mod erase;
mod mix;
mod pixels;
mod policy;

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

pub(crate) use mix::mix;
pub(crate) use pixels::Pixels;

/// Augmentation of training images beyond crops and mirroring, which are a part
/// of the [`Preprocessing`](sdpoint_core::Preprocessing). By default none.
///
/// Its text form is a list separated by commas, such as `trivial,erase:0.1,mixup:0.2`:
///
/// ```
/// use sdpoint_data::Augmentation;
///
/// let some: Augmentation = "trivial,erase:0.1,mixup:0.2".parse()?;
/// assert!(some.trivial && some.mixup == 0.2);
/// assert_eq!(some.to_string(), "trivial,erase:0.1,mixup:0.2");
/// # Ok::<(), sdpoint_data::AugmentationError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Augmentation {
    /// TrivialAugment (Müller and Hutter, arXiv 2103.10158) in its wide search
    /// space: one of 14 operations, with a random strength.
    #[serde(skip_serializing_if = "is_default")]
    pub trivial: bool,
    /// Colour jitter: brightness, contrast and saturation are multiplied, in
    /// random order, by factors from `1 − jitter` to `1 + jitter`; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub jitter: f64,
    /// Random erasing (Zhong et al., arXiv 1708.04896): the probability that a
    /// rectangle of 2 to 33 % of the image is replaced by the mean colour.
    #[serde(skip_serializing_if = "is_default")]
    pub erase: f64,
    /// Cutout (DeVries and Taylor, arXiv 1708.04552): the side in pixels of a
    /// square, whose centre is anywhere, that is replaced by the mean colour; 0
    /// for none.
    #[serde(skip_serializing_if = "is_default")]
    pub cutout: usize,
    /// Mixup (Zhang et al., arXiv 1710.09412): both parameters of the Beta
    /// distribution of the shares of two images; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub mixup: f64,
    /// CutMix (Yun et al., arXiv 1905.04899): both parameters of the Beta
    /// distribution of the areas of two images; 0 for none. With
    /// [`mixup`](Self::mixup), each batch gets one of the two.
    #[serde(skip_serializing_if = "is_default")]
    pub cutmix: f64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An invalid [`Augmentation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AugmentationError(String);

/// The largest parameter of a Beta distribution.
const MAX_BETA: f64 = 4.0;

/// The names of the parts of an augmentation, for errors.
const NAMES: &str = "trivial, jitter:X, erase:P, cutout:PIXELS, mixup:ALPHA and cutmix:ALPHA";

impl Augmentation {
    /// Checks that all values are in range.
    ///
    /// # Errors
    /// For the first that is not.
    pub fn check(&self) -> Result<(), AugmentationError> {
        let check = |good, name, value: &dyn fmt::Display, range: &str| match good {
            true => Ok(()),
            false => Err(AugmentationError(format!(
                "{name} is {value}; it must be {range}"
            ))),
        };
        let up_to = |value: f64, most: f64| value >= 0.0 && value <= most;
        let (jitter, erase) = (self.jitter, self.erase);
        check(up_to(jitter, 1.0), "jitter", &jitter, "from 0 to 1")?;
        check(up_to(erase, 1.0), "erase", &erase, "a probability")?;
        check(
            self.cutout <= 1 << 16,
            "cutout",
            &self.cutout,
            "at most 65536 pixels",
        )?;
        for (name, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            check(up_to(alpha, MAX_BETA), name, &alpha, "from 0 to 4")?;
        }
        Ok(())
    }

    /// Whether images of a batch are mixed, and with them their labels.
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }

    /// Whether it changes the pixels of an image before normalisation.
    pub(crate) fn changes_pixels(&self) -> bool {
        self.trivial || self.jitter > 0.0
    }

    /// Changes the pixels of an image.
    pub(crate) fn change(&self, pixels: &mut Pixels, rng: &mut impl Rng) {
        if self.trivial {
            policy::trivial(pixels, rng);
        }
        if self.jitter > 0.0 {
            policy::jitter(pixels, self.jitter, rng);
        }
    }

    /// Erases parts of a normalised image of `[height, width]`.
    pub(crate) fn erase(&self, input: &mut [f32], size: [usize; 2], rng: &mut impl Rng) {
        if self.erase > 0.0 {
            erase::random_erasing(input, size, self.erase, rng);
        }
        if self.cutout > 0 {
            erase::cutout(input, size, self.cutout, rng);
        }
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |name, value: f64| (value > 0.0).then(|| format!("{name}:{value}"));
        let parts = [
            self.trivial.then(|| "trivial".to_owned()),
            number("jitter", self.jitter),
            number("erase", self.erase),
            number("cutout", self.cutout as f64),
            number("mixup", self.mixup),
            number("cutmix", self.cutmix),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.pad(&parts.join(","))
    }
}

impl FromStr for Augmentation {
    type Err = AugmentationError;

    fn from_str(text: &str) -> Result<Self, AugmentationError> {
        let mut augmentation = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) = match part.split_once(':') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            if seen.contains(&name) {
                return Err(AugmentationError(format!("'{name}' is there twice")));
            }
            seen.push(name);
            let number = || {
                let value = value.and_then(|value| value.parse::<f64>().ok());
                value.ok_or_else(|| {
                    AugmentationError(format!(
                        "'{part}' lacks a number: give one such as {name}:1"
                    ))
                })
            };
            match name {
                "trivial" if value.is_none() => augmentation.trivial = true,
                "jitter" => augmentation.jitter = number()?,
                "erase" => augmentation.erase = number()?,
                "cutout" => match value.map(str::parse) {
                    Some(Ok(side)) => augmentation.cutout = side,
                    _ => {
                        return Err(AugmentationError(format!(
                            "'{part}' lacks a number of pixels: give one such as cutout:16"
                        )));
                    }
                },
                "mixup" => augmentation.mixup = number()?,
                "cutmix" => augmentation.cutmix = number()?,
                _ => {
                    return Err(AugmentationError(format!(
                        "'{part}' is not an augmentation: there are {NAMES}"
                    )));
                }
            }
        }
        augmentation.check()?;
        Ok(augmentation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back() {
        for text in [
            "trivial",
            "jitter:0.4,cutout:16",
            "erase:0.25,mixup:0.2,cutmix:1",
        ] {
            let read: Augmentation = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<Augmentation>(&json).unwrap(), read);
        }
        assert_eq!(Augmentation::default().to_string(), "");
        assert_eq!(
            serde_json::to_string(&Augmentation::default()).unwrap(),
            "{}"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, part) in [
            ("", "not an augmentation"),
            ("trivial:2", "'trivial:2' is not"),
            ("mixup", "mixup:1"),
            ("mixup:x", "lacks a number"),
            ("cutout:1.5", "cutout:16"),
            ("cutmix:5", "cutmix is 5"),
            ("erase:1.5", "a probability"),
            ("jitter:NaN", "jitter is NaN"),
            ("mixup:-1", "from 0 to 4"),
            ("erase:0.1,erase:0.2", "twice"),
            ("rotate", "trivial, jitter:X"),
        ] {
            let error = text.parse::<Augmentation>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
