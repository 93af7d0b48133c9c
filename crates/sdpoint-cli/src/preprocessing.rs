//! Options for the preprocessing of images that several commands have. The
//! model file stores what they set.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use sdpoint::core::{CropError, EvalTransform, ExifOrientation, Preprocessing};
use sdpoint::data::imagenet_preprocessing;

/// How images are preprocessed.
#[derive(clap::Args)]
#[group(multiple = true)]
pub struct PreprocessingArgs {
    /// Rotate images as their EXIF data says (apply), or use them as stored, as torchvision does
    /// (ignore) [default: ignore, or the model's setting]
    #[arg(long, value_name = "apply|ignore", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(["apply", "ignore"]).map(exif_orientation))]
    exif_orientation: Option<ExifOrientation>,
}

impl PreprocessingArgs {
    /// Applies the options that were given.
    pub fn set(&self, preprocessing: &mut Preprocessing) {
        if let Some(orientation) = self.exif_orientation {
            preprocessing.exif_orientation = orientation;
        }
    }
}

/// The usual size of images before a crop that does not fit into them.
pub fn usual_resize(error: CropError) -> usize {
    let usual = imagenet_preprocessing().with_size([error.crop; 2]);
    match usual.evaluate {
        EvalTransform::CenterCrop { resize } => resize,
        EvalTransform::Resize | EvalTransform::SquashCrop { .. } => error.crop,
    }
}

fn exif_orientation(word: String) -> ExifOrientation {
    match word.as_str() {
        "apply" => ExifOrientation::Apply,
        _ => ExifOrientation::Ignore,
    }
}
