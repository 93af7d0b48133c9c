//! How images become tensors: data that travels in the model file, so that
//! prediction cannot differ from evaluation. `sdpoint-data` carries it out.

use serde::{Deserialize, Serialize};

use crate::shapes::MAX_SIDE;

/// The most pixels of an input.
const MAX_PIXELS: usize = 1 << 26;

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
    /// The filter with which images are resized, in training and evaluation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
    /// Whether a camera's note of how it was held turns the image upright.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exif_orientation: ExifOrientation,
}

/// The filter that resizes an image. Each is Pillow's of the same name; all
/// but `Nearest` widen with the reduction, so that nothing is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels that are covered.
    Box,
    /// A triangle: the default of torchvision.
    #[default]
    Bilinear,
    /// A raised cosine.
    Hamming,
    /// A cubic with a = -0.5: what timm's recipes mostly use.
    Bicubic,
    /// A windowed sinc of three lobes.
    Lanczos,
}

impl Interpolation {
    /// All filters, in order of their support.
    pub const ALL: [Interpolation; 6] = [
        Interpolation::Nearest,
        Interpolation::Box,
        Interpolation::Bilinear,
        Interpolation::Hamming,
        Interpolation::Bicubic,
        Interpolation::Lanczos,
    ];

    /// The name in model files and on the command line, which is that of
    /// torchvision's `InterpolationMode`.
    pub fn name(self) -> &'static str {
        match self {
            Interpolation::Nearest => "nearest",
            Interpolation::Box => "box",
            Interpolation::Bilinear => "bilinear",
            Interpolation::Hamming => "hamming",
            Interpolation::Bicubic => "bicubic",
            Interpolation::Lanczos => "lanczos",
        }
    }
}

/// What becomes of the orientation that cameras note in a file's EXIF data
/// instead of turning the pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExifOrientation {
    /// Pixels are taken as they are stored, as torchvision's loader does.
    #[default]
    Ignore,
    /// The image is turned and mirrored as noted, as viewers show it.
    Apply,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Resize to `resize`, whatever the shape, then crop the middle.
    SquashCrop {
        /// Height and width before the crop, in pixels.
        resize: [usize; 2],
    },
}

impl Preprocessing {
    /// Images of any size are resized to `size`, height and width, and
    /// normalised; training does the same as evaluation.
    ///
    /// ```
    /// use sdpoint_core::{EvalTransform, Preprocessing};
    ///
    /// let imagenet = Preprocessing {
    ///     evaluate: EvalTransform::CenterCrop { resize: 256 },
    ///     ..Preprocessing::new([224, 224], vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225])
    /// };
    /// assert!(imagenet.check(3).is_ok());
    /// ```
    pub fn new(size: [usize; 2], mean: Vec<f32>, std: Vec<f32>) -> Self {
        Self {
            size,
            mean,
            std,
            train: TrainTransform::None,
            evaluate: EvalTransform::Resize,
            interpolation: Interpolation::default(),
            exif_orientation: ExifOrientation::default(),
        }
    }

    /// The same for another input size, with all else in proportion.
    pub fn with_size(mut self, size: [usize; 2]) -> Self {
        let shorter = |size: [usize; 2]| size[0].min(size[1]);
        let scale = |pixels: &mut usize, to: usize, from: usize| {
            *pixels = (*pixels as f64 * to as f64 / from as f64).round() as usize;
        };
        match &mut self.evaluate {
            EvalTransform::Resize => {}
            EvalTransform::CenterCrop { resize } => {
                scale(resize, shorter(size), shorter(self.size));
            }
            EvalTransform::SquashCrop { resize } => {
                for (axis, pixels) in resize.iter_mut().enumerate() {
                    scale(pixels, size[axis], self.size[axis]);
                }
            }
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
        if self.size[0] * self.size[1] > MAX_PIXELS {
            return Err(format!(
                "its size is {}×{} pixels; at most {MAX_PIXELS} in all can be",
                self.size[0], self.size[1]
            ));
        }
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
            EvalTransform::SquashCrop { resize } => {
                side("height before the crop", resize[0], 1)?;
                side("width before the crop", resize[1], 1)
            }
            EvalTransform::Resize => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cifar() -> Preprocessing {
        Preprocessing {
            train: TrainTransform::PadCrop {
                padding: 4,
                flip: true,
            },
            ..Preprocessing::new([32, 32], vec![0.49, 0.48, 0.45], vec![0.25, 0.24, 0.26])
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
        let squashed = Preprocessing {
            evaluate: EvalTransform::SquashCrop { resize: [36, 40] },
            ..cifar()
        };
        let evaluate = EvalTransform::SquashCrop { resize: [18, 80] };
        assert_eq!(squashed.with_size([16, 64]).evaluate, evaluate);
    }

    #[test]
    fn names_of_filters_are_those_of_the_model_file() {
        for filter in Interpolation::ALL {
            assert_eq!(serde_json::to_value(filter).unwrap(), filter.name());
        }
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
        refuse(&|p| p.size = [MAX_SIDE; 2], "in all");
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
