//! How images become tensors: data that travels in the model file, so that
//! prediction cannot differ from evaluation. `sdpoint-data` carries it out.

use serde::{Deserialize, Serialize};

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
    /// Resize where the size differs, pad with zeros on each side, crop at
    /// random: the recipe for CIFAR.
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
