//! The preprocessing of images, as data. It is part of the model file, so
//! prediction and evaluation cannot differ. `sdpoint-data` applies it.

use serde::{Deserialize, Serialize};

use crate::shapes::MAX_SIDE;
use crate::words::plural;

/// The most pixels of an input.
const MAX_PIXELS: usize = 1 << 26;

/// The preprocessing of images in training and in evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height and width of the network's input, in pixels.
    pub size: [usize; 2],
    /// The mean of each channel, for pixel values from 0 to 1.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, for pixel values from 0 to 1.
    pub std: Vec<f32>,
    /// The augmentation of training images, before normalisation.
    pub train: TrainTransform,
    /// The transform of images in evaluation and prediction, before
    /// normalisation.
    pub evaluate: EvalTransform,
    /// The interpolation filter for resizing, in training and evaluation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
    /// Whether the orientation in the EXIF data of image files is applied.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exif_orientation: ExifOrientation,
}

/// The interpolation filter for resizing. Each is the filter of the same name in
/// Pillow. When downscaling, all but `Nearest` widen their support by the scale,
/// which antialiases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
// Not `non_exhaustive`: decoding and export match all variants.
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// The mean of the covered pixels.
    Box,
    /// A triangle filter, torchvision's default.
    #[default]
    Bilinear,
    /// A Hamming-windowed sinc filter.
    Hamming,
    /// A cubic filter with a = -0.5, the usual choice of timm.
    Bicubic,
    /// A Lanczos filter of three lobes.
    Lanczos,
}

impl Interpolation {
    /// All filters, in the order of their support.
    pub const ALL: [Interpolation; 6] = [
        Interpolation::Nearest,
        Interpolation::Box,
        Interpolation::Bilinear,
        Interpolation::Hamming,
        Interpolation::Bicubic,
        Interpolation::Lanczos,
    ];

    /// The name in model files and on the command line, as in torchvision's
    /// `InterpolationMode`.
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

/// The treatment of the orientation in a file's EXIF data, with which cameras
/// describe the rotation of the image instead of rotating its pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExifOrientation {
    /// Pixels are used as stored, as in torchvision's loader.
    #[default]
    Ignore,
    /// The image is rotated and mirrored accordingly, as viewers show it.
    Apply,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The augmentation of training images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
// Not `non_exhaustive`: decoding and export match all variants.
pub enum TrainTransform {
    /// Resize to the input size if different, pad, and crop at random: the usual
    /// augmentation for CIFAR. Padding is zero after normalisation, which is
    /// the mean colour.
    PadCrop {
        /// The padding on each side, in pixels.
        padding: usize,
        /// Whether images are mirrored with probability 0.5.
        flip: bool,
    },
    /// Crop a random area of random aspect ratio and resize it: the usual
    /// augmentation for ImageNet.
    RandomResizedCrop {
        /// The smallest and the largest share of the image's area.
        area: [f32; 2],
        /// The smallest and the largest ratio of width to height.
        aspect: [f32; 2],
        /// Whether images are mirrored with probability 0.5.
        flip: bool,
    },
    /// No augmentation: the transform of evaluation.
    None,
}

/// The transform of images for evaluation and prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
// Not `non_exhaustive`: decoding and export match all variants.
pub enum EvalTransform {
    /// Resize to the input size, without preserving the aspect ratio.
    Resize,
    /// Resize the shorter side to `resize` pixels, preserving the aspect ratio,
    /// then crop the centre. Where the image is smaller than the crop, it is
    /// padded with black.
    CenterCrop {
        /// The length of the shorter side before the crop, in pixels.
        resize: usize,
    },
    /// Resize to `resize` without preserving the aspect ratio, then crop the
    /// centre, padded likewise.
    SquashCrop {
        /// The height and width before the crop, in pixels.
        resize: [usize; 2],
    },
}

/// A crop that is larger than the image that it is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("images are resized to {resize} pixels, but the crop has {crop}")]
pub struct CropError {
    /// The shorter side of the resized image, in pixels; for
    /// [`EvalTransform::SquashCrop`] the side that is too short.
    pub resize: usize,
    /// The side of the crop that does not fit.
    pub crop: usize,
}

impl Preprocessing {
    /// Creates a preprocessing that resizes images to `size`, height and width,
    /// and normalises them, without augmentation.
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

    /// Returns the same preprocessing for another input size. The size before a
    /// crop is scaled in proportion: to the longer side of the input, so that the
    /// crop of an oblong input fits into a square image.
    pub fn with_size(mut self, size: [usize; 2]) -> Self {
        let longer = |size: [usize; 2]| size[0].max(size[1]);
        let scale = |pixels: &mut usize, to: usize, from: usize| {
            *pixels = (*pixels as f64 * to as f64 / from as f64).round() as usize;
        };
        match &mut self.evaluate {
            EvalTransform::Resize => {}
            EvalTransform::CenterCrop { resize } => {
                scale(resize, longer(size), longer(self.size));
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

    /// Checks that the crop of evaluation lies within every resized image.
    ///
    /// Files may contain a crop that does not, so this is not part of
    /// [`check`](Self::check): what is outside of the image is black.
    ///
    /// # Errors
    /// The sides that do not fit.
    ///
    /// ```
    /// use sdpoint_core::{EvalTransform, Preprocessing};
    ///
    /// let wide = Preprocessing {
    ///     evaluate: EvalTransform::CenterCrop { resize: 37 },
    ///     ..Preprocessing::new([32, 48], vec![0.5; 3], vec![0.25; 3])
    /// };
    /// let error = wide.check_crop().unwrap_err();
    /// assert_eq!((error.resize, error.crop), (37, 48));
    /// ```
    pub fn check_crop(&self) -> Result<(), CropError> {
        let [height, width] = self.size;
        let (resize, crop) = match self.evaluate {
            EvalTransform::CenterCrop { resize } => (resize, height.max(width)),
            EvalTransform::SquashCrop { resize } if resize[0] < height => (resize[0], height),
            EvalTransform::SquashCrop { resize } => (resize[1], width),
            EvalTransform::Resize => return Ok(()),
        };
        match resize < crop {
            true => Err(CropError { resize, crop }),
            false => Ok(()),
        }
    }

    /// For each channel, the normalised values of all bytes:
    /// `(byte / 255 - mean) / std`.
    pub fn normalised_bytes(&self) -> Vec<[f32; 256]> {
        let channels = std::iter::zip(&self.mean, &self.std);
        let table = |(mean, std): (&f32, &f32)| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        };
        channels.map(table).collect()
    }

    /// Validates the values for a network with `channels` input channels.
    ///
    /// # Errors
    /// A description of the first value that is out of range, not finite, or
    /// missing for a channel.
    pub fn check(&self, channels: usize) -> Result<(), String> {
        let side = |what: &str, pixels: usize, least: usize| {
            if (least..=MAX_SIDE).contains(&pixels) {
                Ok(())
            } else {
                Err(format!(
                    "its {what} of {pixels} is not between {least} and {MAX_SIDE} pixels"
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
                "it has {} and {} for {channels} channels",
                plural(self.mean.len(), "mean", "means"),
                plural(self.std.len(), "standard deviation", "standard deviations")
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
    fn resizing_keeps_the_proportion_of_the_crop() {
        let large = Preprocessing {
            size: [224, 224],
            evaluate: EvalTransform::CenterCrop { resize: 256 },
            ..cifar()
        };
        let smaller = large.with_size([112, 168]);
        assert_eq!(smaller.size, [112, 168]);
        assert_eq!(smaller.evaluate, EvalTransform::CenterCrop { resize: 192 });
        assert_eq!(smaller.check_crop(), Ok(()));
        let back = smaller.with_size([96, 48]);
        assert_eq!(back.evaluate, EvalTransform::CenterCrop { resize: 110 });
        assert_eq!(cifar().with_size([24, 24]).train, cifar().train);
        let squashed = Preprocessing {
            evaluate: EvalTransform::SquashCrop { resize: [36, 40] },
            ..cifar()
        };
        let evaluate = EvalTransform::SquashCrop { resize: [18, 80] };
        assert_eq!(squashed.with_size([16, 64]).evaluate, evaluate);
    }

    #[test]
    fn a_crop_beyond_the_image_is_found() {
        let of = |size, evaluate| {
            let preprocessing = Preprocessing {
                size,
                evaluate,
                ..cifar()
            };
            preprocessing.check_crop().err()
        };
        let short = |resize| EvalTransform::CenterCrop { resize };
        let squash = |resize| EvalTransform::SquashCrop { resize };
        let error = |resize, crop| Some(CropError { resize, crop });
        assert_eq!(of([32, 48], short(47)), error(47, 48));
        assert_eq!(of([48, 32], short(32)), error(32, 48));
        assert_eq!(of([48, 32], short(48)), None);
        assert_eq!(of([32, 48], squash([40, 47])), error(47, 48));
        assert_eq!(of([32, 48], squash([31, 60])), error(31, 32));
        assert_eq!(of([32, 48], squash([32, 48])), None);
        assert_eq!(of([32, 48], EvalTransform::Resize), None);
    }

    #[test]
    fn filters_have_the_same_names_in_model_files() {
        for filter in Interpolation::ALL {
            assert_eq!(serde_json::to_value(filter).unwrap(), filter.name());
        }
    }

    #[test]
    fn invalid_values_are_refused() {
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
        refuse(&|p| p.mean.truncate(1), "1 mean and");
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
