//! Test images that are kept in the model file.

use sdpoint_core::{ExifOrientation, KeptImage};
use sdpoint_data::{Dataset, small_png};

use crate::error::TrainError;
use crate::plan::TrainPlan;

/// A few small test images, balanced over the classes. Unreadable ones are left out.
pub(crate) fn kept_images(plan: &TrainPlan, test: &Dataset) -> Result<Vec<KeptImage>, TrainError> {
    if plan.samples == 0 {
        return Ok(Vec::new());
    }
    let chosen = test.balanced(plan.samples, plan.seed)?;
    let mut kept = Vec::new();
    for index in 0..chosen.len() {
        let Some(sample) = chosen.readable(index)? else {
            continue;
        };
        // The small copy has no EXIF data, so what they would change is changed here.
        let png = match plan.preprocessing.exif_orientation {
            ExifOrientation::Apply => small_png(&sample.image.upright(), KeptImage::SIDE),
            ExifOrientation::Ignore => small_png(&sample.image, KeptImage::SIDE),
        };
        let error = |error| sdpoint_data::DataError::Image {
            name: chosen.image_name(index),
            error,
        };
        kept.push(KeptImage {
            label: sample.label as usize,
            png: png.map_err(error)?,
        });
    }
    Ok(kept)
}
