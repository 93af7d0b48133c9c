//! How images become tensors: data that travels in the model file, so that
//! prediction cannot differ from evaluation. `sdpoint-data` carries it out.

use serde::{Deserialize, Serialize};

use crate::shapes::MAX_SIDE;

/// How images are prepared, for training and for evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height and width of the network's input, in pixels.
    pub size: [usize; 2],
    /// Mean of each channel, with pixel values in 0..=1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, with pixel values in 0..=1.
    pub std: Vec<f32>,
    /// What training does to an image before it is normalised.
    pub train: TrainTransform,
    /// What evaluation and prediction do to an image before it is normalised.
    pub evaluate: EvalTransform,
}

/// Augmentation of training images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainTransform {
    /// Resize where the size differs, normalise, pad with zeros on each side,
    /// crop at random: the recipe for CIFAR. Zeros after normalisation are
    /// the mean colour.
    PadCrop {
        /// Zeros on each side.
        padding: usize,
        /// Whether half of the images are mirrored.
        flip: bool,
    },
    /// Crop a random part of random shape, resize it: the recipe for ImageNet.
    RandomResizedCrop {
        /// Smallest and largest part of the image's area.
        area: [f32; 2],
        /// Smallest and largest width over height.
        aspect: [f32; 2],
        /// Whether half of the images are mirrored.
        flip: bool,
    },
    /// As in evaluation.
    None,
}

/// Preparation of images for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EvalTransform {
    /// Resize to the input size, whatever the shape.
    Resize,
    /// Resize the shorter side to `resize` pixels, then crop the middle.
    CenterCrop {
        /// Length of the shorter side before the crop.
        resize: usize,
    },
}

impl Preprocessing {
    /// The same for another input size, with all else in proportion.
    pub fn with_size(mut self, size: [usize; 2]) -> Self {
        let shorter = |size: [usize; 2]| size[0].min(size[1]);
        if let EvalTransform::CenterCrop { resize } = &mut self.evaluate {
            let scale = shorter(size) as f64 / shorter(self.size) as f64;
            *resize = (*resize as f64 * scale).round() as usize;
        }
        self.size = size;
        self
    }

    /// Checks the numbers for a network whose images have `channels` colours.
    ///
    /// # Errors
    /// If they are not as many as there are colours, not finite, or absurd;
    /// the text says which.
    pub fn check(&self, channels: usize) -> Result<(), String> {
        let side = |what: &str, pixels: usize, least: usize| {
            if (least..=MAX_SIDE).contains(&pixels) {
                Ok(())
            } else {
                Err(format!(
                    "its {what} is {pixels} pixels; {least} to {MAX_SIDE} can be"
                ))
            }
        };
        side("height", self.size[0], 1)?;
        side("width", self.size[1], 1)?;
        if self.mean.len() != channels || self.std.len() != channels {
            return Err(format!(
                "it has {} means and {} standard deviations for {channels} colours",
                self.mean.len(),
                self.std.len()
            ));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err("its means are not finite".into());
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err("its standard deviations are not all finite and above 0".into());
        }
        match self.train {
            TrainTransform::PadCrop { padding, .. } => side("padding", padding, 0)?,
            TrainTransform::RandomResizedCrop { area, aspect, .. } => {
                let range = |[low, high]: [f32; 2]| 0.0 < low && low <= high && high.is_finite();
                if !range(area) || area[1] > 1.0 || !range(aspect) {
                    return Err(format!(
                        "it crops areas of {area:?} and aspects of {aspect:?}"
                    ));
                }
            }
            TrainTransform::None => {}
        }
        match self.evaluate {
            EvalTransform::CenterCrop { resize } => side("shorter side", resize, 1),
            EvalTransform::Resize => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cifar() -> Preprocessing {
        Preprocessing {
            size: [32, 32],
            mean: vec![0.49, 0.48, 0.45],
            std: vec![0.25, 0.24, 0.26],
            train: TrainTransform::PadCrop {
                padding: 4,
                flip: true,
            },
            evaluate: EvalTransform::Resize,
        }
    }

    #[test]
    fn another_size_keeps_the_proportion_of_the_crop() {
        let large = Preprocessing {
            size: [224, 224],
            evaluate: EvalTransform::CenterCrop { resize: 256 },
            ..cifar()
        };
        let smaller = large.with_size([112, 168]);
        assert_eq!(smaller.size, [112, 168]);
        assert_eq!(smaller.evaluate, EvalTransform::CenterCrop { resize: 128 });
        assert_eq!(cifar().with_size([24, 24]).train, cifar().train);
    }

    #[test]
    fn absurd_numbers_are_refused() {
        assert_eq!(cifar().check(3), Ok(()));
        let refuse = |change: &dyn Fn(&mut Preprocessing), part: &str| {
            let mut preprocessing = cifar();
            change(&mut preprocessing);
            let error = preprocessing.check(3).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refuse(&|p| p.size[0] = 0, "height");
        refuse(&|p| p.size[1] = usize::MAX, "width");
        refuse(&|p| p.mean.truncate(1), "1 means");
        refuse(&|p| p.mean[0] = f32::NAN, "means");
        refuse(&|p| p.std[2] = 0.0, "deviations");
        refuse(
            &|p| p.evaluate = EvalTransform::CenterCrop { resize: 0 },
            "side",
        );
        let padding = 1 << 20;
        let train = TrainTransform::PadCrop {
            padding,
            flip: false,
        };
        refuse(&|p| p.train = train, "padding");
        let train = TrainTransform::RandomResizedCrop {
            area: [0.5, 1.5],
            aspect: [0.75, 1.33],
            flip: false,
        };
        refuse(&|p| p.train = train, "areas");
    }
}
