//! The form of the preprocessing in exported files.

use sdpoint_core::{EvalTransform, ExifOrientation, Interpolation, Preprocessing, TrainTransform};
use serde::Serialize;

/// The preprocessing in exported files: as in a model file, but with all fields,
/// so that readers need not know the defaults.
///
/// ```
/// use sdpoint_core::Preprocessing;
/// use sdpoint_exchange::ExportedPreprocessing;
///
/// let plain = Preprocessing::new([32, 32], vec![0.5; 3], vec![0.25; 3]);
/// let json = serde_json::to_string(&ExportedPreprocessing::from(&plain))?;
/// assert!(json.contains(r#""interpolation":"bilinear","exif_orientation":"ignore""#));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExportedPreprocessing<'a> {
    size: [usize; 2],
    mean: &'a [f32],
    std: &'a [f32],
    evaluate: EvalTransform,
    interpolation: Interpolation,
    exif_orientation: ExifOrientation,
    train: TrainTransform,
}

impl<'a> From<&'a Preprocessing> for ExportedPreprocessing<'a> {
    fn from(preprocessing: &'a Preprocessing) -> Self {
        // Without `..`, so that a new field cannot be forgotten here.
        let Preprocessing {
            size,
            mean,
            std,
            train,
            evaluate,
            interpolation,
            exif_orientation,
        } = preprocessing;
        Self {
            size: *size,
            mean,
            std,
            evaluate: *evaluate,
            interpolation: *interpolation,
            exif_orientation: *exif_orientation,
            train: *train,
        }
    }
}

/// A description of the preprocessing of evaluation before normalisation, one
/// sentence per line; sizes are height×width.
pub(crate) fn in_words(preprocessing: &Preprocessing) -> [String; 3] {
    let orientation = match preprocessing.exif_orientation {
        ExifOrientation::Ignore => "Pixels are taken as stored: EXIF orientation is ignored.",
        ExifOrientation::Apply => "Images are turned upright as their EXIF orientation says.",
    };
    let [height, width] = preprocessing.size;
    let resizing = match preprocessing.evaluate {
        EvalTransform::Resize => {
            format!("They are resized to {height}x{width}, whatever their shape.")
        }
        EvalTransform::CenterCrop { resize } => format!(
            "Their shorter side is resized to {resize}, then the middle {height}x{width} cut out."
        ),
        EvalTransform::SquashCrop { resize: [h, w] } => format!(
            "They are resized to {h}x{w}, whatever their shape, then the middle {height}x{width} cut out."
        ),
    };
    let name = preprocessing.interpolation.name();
    let filter = match preprocessing.interpolation {
        Interpolation::Nearest => format!("The filter is {name}, as in Pillow."),
        _ => format!("The filter is {name} with antialiasing, as in Pillow."),
    };
    [orientation.into(), resizing, filter]
}
