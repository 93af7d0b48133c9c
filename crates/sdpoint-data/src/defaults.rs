//! The default preprocessing of a data set.

use sdpoint_core::{EvalTransform, Preprocessing, TrainTransform};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::sizes::{Sizes, spread};
use crate::source::Source;
use crate::transform::{CHANNELS, prepare};

/// The longest side of an image that counts as small.
const SMALL: usize = 64;

/// The share of larger images that a set of small ones may have.
const FEW: f64 = 0.1;

/// Images that statistics are measured over.
const MEASURED: usize = 5000;

/// Mean and standard deviation over all pixels of CIFAR-10's and CIFAR-100's
/// training images, to the digits that are customary.
const CIFAR10: [[f32; CHANNELS]; 2] = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]];
const CIFAR100: [[f32; CHANNELS]; 2] = [[0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]];

/// ImageNet's, as torchvision's models have them.
const IMAGENET: [[f32; CHANNELS]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// The customary preprocessing for a training split.
///
/// Images of at most 64 pixels a side keep their size, or get the most common
/// one if their sizes differ. They are padded by 4 pixels, randomly cropped and
/// mirrored, as usual for CIFAR; mean and standard deviation are CIFAR's own, or
/// measured over up to 5000 images. `shapes` is only mirrored.
/// Larger images are prepared as usual for ImageNet: for training, a random crop
/// of 8 to 100 % of the area, resized to 224×224 and randomly mirrored; for
/// evaluation, the shorter side resized to 256 and a centre crop of 224×224.
///
/// # Errors
/// As for [`Dataset::sample`].
pub fn default_preprocessing(dataset: &Dataset) -> Result<Preprocessing, DataError> {
    // A sample is enough, so that a large data set need not be decoded.
    let sizes = Sizes::of(dataset)?;
    if sizes.share(|size| size.iter().any(|&side| side > SMALL)) > FEW {
        return Ok(imagenet_preprocessing());
    }
    // Figures are drawn at random positions, so shifting them would only add
    // borders, which do not occur in evaluation.
    let padding = match dataset.source() {
        Source::Shapes => 0,
        _ => 4,
    };
    let mut preprocessing = Preprocessing {
        train: TrainTransform::PadCrop {
            padding,
            flip: true,
        },
        ..Preprocessing::new(sizes.commonest(), vec![0.0; CHANNELS], vec![1.0; CHANNELS])
    };
    let [mean, std] = match dataset.source() {
        Source::Cifar10(_) => CIFAR10,
        Source::Cifar100(_) => CIFAR100,
        _ => measure(dataset, &preprocessing)?,
    };
    preprocessing.mean = mean.to_vec();
    preprocessing.std = std.to_vec();
    Ok(preprocessing)
}

/// The usual preprocessing for ImageNet: random resized crops of 224×224 pixels
/// in training; in evaluation, centre crops of images whose shorter side is 256.
pub fn imagenet_preprocessing() -> Preprocessing {
    let [mean, std] = IMAGENET;
    Preprocessing {
        train: TrainTransform::RandomResizedCrop {
            area: [0.08, 1.0],
            aspect: [3.0 / 4.0, 4.0 / 3.0],
            flip: true,
        },
        evaluate: EvalTransform::CenterCrop { resize: 256 },
        ..Preprocessing::new([224, 224], mean.to_vec(), std.to_vec())
    }
}

/// Mean and standard deviation of each channel, rounded to four digits like
/// the constants above.
fn measure(
    dataset: &Dataset,
    preprocessing: &Preprocessing,
) -> Result<[[f32; CHANNELS]; 2], DataError> {
    let mut sum = [0.0; CHANNELS];
    let mut squares = [0.0; CHANNELS];
    let mut pixels: f64 = 0.0;
    for index in spread(MEASURED, dataset.len()) {
        let Some(sample) = dataset.readable(index)? else {
            continue;
        };
        for pixel in prepare(&sample.image, preprocessing)?.chunks(CHANNELS) {
            for (channel, &value) in pixel.iter().enumerate() {
                sum[channel] += f64::from(value);
                squares[channel] += f64::from(value) * f64::from(value);
            }
            pixels += 1.0;
        }
    }
    let round = |value: f64| ((value * 1e4).round() / 1e4) as f32;
    let mean = sum.map(|s: f64| s / pixels);
    let std = std::array::from_fn(|c| {
        let variance: f64 = squares[c] / pixels - mean[c] * mean[c];
        // Images of a single colour have no deviation to divide by.
        if variance < 1e-6 {
            1.0
        } else {
            round(variance.sqrt())
        }
    });
    Ok([mean.map(round), std])
}
