//! Options for the preprocessing of images that several commands have. The
//! model file stores what they set.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use sdpoint::core::{ExifOrientation, Preprocessing};

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

fn exif_orientation(word: String) -> ExifOrientation {
    match word.as_str() {
        "apply" => ExifOrientation::Apply,
        _ => ExifOrientation::Ignore,
    }
}
