//! Preprocessed batches.

use sdpoint_core::Preprocessing;
use sdpoint_data::{Image, Preparer, decode};
use sdpoint_engine::Images;

use super::RunError;

/// A batch of images preprocessed for a model, in NHWC order.
///
/// [`Images`] borrows tensors that were preprocessed elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    data: Vec<f32>,
    batch: usize,
    size: [usize; 2],
}

impl Inputs {
    /// A batch from `batch · height · width · channels` values.
    pub(super) fn of(data: Vec<f32>, batch: usize, size: [usize; 2]) -> Self {
        Self { data, batch, size }
    }

    pub(super) fn decode<F: AsRef<[u8]>>(
        files: impl IntoIterator<Item = F>,
        preprocessing: &Preprocessing,
    ) -> Result<Self, RunError> {
        let decoded = files.into_iter().enumerate().map(|(index, file)| {
            decode(file.as_ref()).map_err(|error| RunError::Image { index, error })
        });
        Self::collect(decoded, preprocessing)
    }

    pub(super) fn prepare<'a>(
        images: impl IntoIterator<Item = &'a Image>,
        preprocessing: &Preprocessing,
    ) -> Result<Self, RunError> {
        Self::collect(images.into_iter().map(Ok), preprocessing)
    }

    fn collect<I: std::borrow::Borrow<Image>>(
        images: impl Iterator<Item = Result<I, RunError>>,
        preprocessing: &Preprocessing,
    ) -> Result<Self, RunError> {
        let mut preparer = Preparer::new(preprocessing)?;
        let mut inputs = Self {
            data: Vec::new(),
            batch: 0,
            size: preprocessing.size,
        };
        for (index, image) in images.enumerate() {
            let start = inputs.data.len();
            inputs.data.resize(start + preparer.input_len(), 0.0);
            preparer
                .prepare(image?.borrow(), &mut inputs.data[start..])
                .map_err(|error| RunError::Image { index, error })?;
            inputs.batch += 1;
        }
        Ok(inputs)
    }
}

impl<'a> From<&'a Inputs> for Images<'a> {
    fn from(inputs: &'a Inputs) -> Self {
        Images {
            data: &inputs.data,
            batch: inputs.batch,
            size: inputs.size,
        }
    }
}
