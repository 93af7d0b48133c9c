//! Assembles the images of several jobs into a batch.

use sdpoint::core::Preprocessing;

use super::pending::Piece;
use crate::{Input, Job, Refusal};

/// Writes the images of jobs into a batch, normalised and in NHWC order.
pub(super) struct Assembler {
    channels: usize,
    /// Height times width.
    area: usize,
    /// For each channel, the normalised values of all bytes.
    normalised: Vec<[f32; 256]>,
}

impl Assembler {
    pub fn new(preprocessing: &Preprocessing, channels: usize) -> Self {
        Self {
            channels,
            area: preprocessing.size.iter().product(),
            normalised: preprocessing.normalised_bytes(),
        }
    }

    /// The number of values of an image.
    pub fn image_len(&self) -> usize {
        self.area * self.channels
    }

    /// Checks that a job has the right number of values.
    pub fn check(&self, job: &Job) -> Result<(), Refusal> {
        let found = match &job.input {
            Input::Planes(values) | Input::Prepared(values) => values.len(),
            Input::Pixels(pixels) => pixels.len(),
        };
        let needed = self.image_len().checked_mul(job.images);
        if job.images == 0 {
            return Err(Refusal::Failed("the request has no images".into()));
        }
        if needed != Some(found) {
            let images = job.images;
            let each = self.image_len();
            return Err(Refusal::Failed(format!(
                "the request has {found} values; {images} images need {each} each"
            )));
        }
        if matches!(job.input, Input::Pixels(_)) && self.normalised.len() != self.channels {
            return Err(Refusal::Failed(
                "the model has no normalisation for its channels".into(),
            ));
        }
        Ok(())
    }

    /// Fills `batch` with the images of `pieces`.
    pub fn assemble<'a>(&self, pieces: impl Iterator<Item = &'a Piece>, batch: &mut Vec<f32>) {
        batch.clear();
        for piece in pieces {
            let range =
                piece.first * self.image_len()..(piece.first + piece.images) * self.image_len();
            match &piece.pending.job.input {
                Input::Prepared(values) => batch.extend_from_slice(&values[range]),
                Input::Planes(values) => {
                    let images = values[range].chunks_exact(self.image_len());
                    images.for_each(|image| self.interleave(image, batch));
                }
                Input::Pixels(pixels) => self.normalise(&pixels[range], batch),
            }
        }
    }

    /// Converts an image from channel-major to channel-minor order.
    fn interleave(&self, planes: &[f32], batch: &mut Vec<f32>) {
        let start = batch.len();
        if let [a, b, c] = planes.chunks_exact(self.area).collect::<Vec<_>>()[..] {
            let cells = std::iter::zip(a, std::iter::zip(b, c));
            batch.extend(cells.flat_map(|(&a, (&b, &c))| [a, b, c]));
            return;
        }
        batch.resize(start + planes.len(), 0.0);
        for (channel, plane) in planes.chunks_exact(self.area).enumerate() {
            let out = batch[start + channel..].iter_mut().step_by(self.channels);
            out.zip(plane).for_each(|(out, value)| *out = *value);
        }
    }

    fn normalise(&self, pixels: &[u8], batch: &mut Vec<f32>) {
        let start = batch.len();
        batch.resize(start + pixels.len(), 0.0);
        let cells = batch[start..].chunks_exact_mut(self.channels);
        for (out, cell) in cells.zip(pixels.chunks_exact(self.channels)) {
            for ((out, byte), table) in out.iter_mut().zip(cell).zip(&self.normalised) {
                *out = table[usize::from(*byte)];
            }
        }
    }
}
