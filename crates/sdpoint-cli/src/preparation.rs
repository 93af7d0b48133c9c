//! Options of how images are prepared, as several commands take them. What
//! they set goes into the model file.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use sdpoint::core::{ExifOrientation, Preprocessing};

/// How images are prepared.
#[derive(clap::Args)]
#[group(id = "Preparation", multiple = true)]
pub struct Preparation {
    /// Whether images are turned as their EXIF data says (apply), or taken as they are stored, as
    /// torchvision does (ignore) [default: ignore, or what the model has]
    #[arg(long, value_name = "apply|ignore", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(["apply", "ignore"]).map(exif_orientation))]
    exif_orientation: Option<ExifOrientation>,
}

impl Preparation {
    /// Sets what was given on the command line.
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
